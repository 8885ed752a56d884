"""For the person a decision is about: plain words, and no number that means nothing to them."""

from collections.abc import Sequence

from service.narratives.cases import Aim, Case, Effect
from service.narratives.numerals import percent
from service.narratives.said import NOTHING, UNTOLD, Said, listed, number, quoted, said, sentences
from service.narratives.wording import towards

MOST = 3
"""Columns told of for and against."""

MOST_LISTED = 40
"""More columns are not named one by one."""

CAVEAT = (
    "This says what moved the model's answer, compared with the cases it was set against. "
    "These are not causes: a change of one of them need not change the outcome."
)
UNFINISHED = {
    "pending": "The explanation is still being made. Please ask again later.",
    "failed": "No explanation could be made. The answer itself is not affected.",
    "skipped": "No explanation is made for this answer.",
    None: "No explanation was asked for.",
}


def case_paragraphs(case: Case) -> list[Said]:
    """What came out, what counted, the reasons given, what was looked at."""
    aim = case.aim
    counted = [said("What counted cannot be put into words for this kind of explanation.")]
    if case.visible is not None and aim is not None:
        counted = [_of_visible(case, aim, 1), _of_visible(case, aim, -1)]
    elif case.values is not None and aim is not None:
        counted = [sentences(_counted(case, aim, 1), _counted(case, aim, -1), _unclear(case))]
    elif "visible" in case.explanation:
        counted = [said("What counted may not be shown here.")]
    return [*counted, _reasons(case), _considered(case)]


def outcome(case: Case) -> Said:
    """The decision, else the answer, and how sure the model is of it."""
    if case.decision is not None:
        return sentences(f"The outcome of this case is {quoted(case.decision)}.", _chance(case))
    if case.answer is not None:
        return sentences(f"The model's answer is {quoted(case.answer)}.", _chance(case))
    if case.score_path is None:
        return said("The model's answer may not be shown here.")
    return said("The model's answer is ", number(case.record, *case.score_path), ".")


def _chance(case: Case) -> Said:
    path = case.score_path
    if path is None:
        return NOTHING
    shown = number(case.record, *path, style=percent)
    if path[-1] == "value":
        return said("The model's value is ", number(case.record, *path), ".")
    return said("The model sees a chance of ", shown, f" for {quoted(path[-1])}.")


def _counted(case: Case, aim: Aim, sign: int) -> Said:
    found = case.strongest(aim, sign, MOST)
    way = towards(aim, sign)
    if not found:
        return said(f"Nothing counted {way}.")
    shown = [said(quoted(effect.column), " (", _given(case, effect), ")") for effect in found]
    if len(found) == 1:
        return said(f"Only one thing counted {way}: ", *shown, ".")
    return said(f"What counted most {way}, the strongest first: ", listed(shown), ".")


def _given(case: Case, effect: Effect) -> Said:
    cell = case.cell(effect.column)
    return cell if case.instance.get(effect.column) is None else said("given as ", cell)


def _unclear(case: Case) -> Said:
    if case.explanation.get("standard_errors") is None:
        return NOTHING
    return said("These effects are estimates; those too uncertain to tell are left out.")


def _of_visible(case: Case, aim: Aim, sign: int) -> Said:
    output = case.explanation["output_names"][aim.output]
    found = [
        quoted(entry["feature"])
        for entry in sorted(case.visible or (), key=lambda entry: int(entry["rank"]))
        if entry["output"] == output and entry["sign"] * aim.sign * sign > 0
    ][:MOST]
    way = towards(aim, sign)
    if not found:
        return said(f"Nothing that may be shown here counted {way}.")
    most = "this counted" if len(found) == 1 else "these counted most, the strongest first,"
    return said(f"Of what may be shown here, {most} {way}: ", listed(found), ".")


def _reasons(case: Case) -> Said:
    entry = case.reasons
    if entry is None:
        return NOTHING
    if entry["decision"] is None:  # as a masked role sees every instance, adverse or not
        return UNTOLD
    decision = quoted(entry["decision"])
    if entry["status"] != "given":
        return said(f"No reasons are given for {decision}.")
    texts: Sequence[str] = [quoted(item["text"]) for item in entry["items"]]
    if len(texts) == 1:
        return said(f"The reason for {decision} is: ", *texts, ".")
    return said(f"The main reasons for {decision} are: ", listed(texts), ".")


def _considered(case: Case) -> Said:
    names: Sequence[str] = case.explanation["feature_names"]
    if len(names) > MOST_LISTED:
        looked = said("Only what was given for this case was looked at, and nothing else.")
    elif len(names) == 1:
        looked = said(f"The model looked at one thing only: {quoted(names[0])}.")
    else:
        shown = listed([quoted(name) for name in names])
        looked = said("The model looked at nothing but these: ", shown, ".")
    return sentences(looked, _idle(case), _absent(case))


def _idle(case: Case) -> Said:
    """Columns whose exact number is zero for every output."""
    if case.values is None or case.explanation["exact"] is not True:
        return NOTHING
    named = zip(case.explanation["feature_names"], case.values, strict=True)
    idle = [quoted(name) for name, row in named if not any(row)]
    if not idle or len(idle) > MOST_LISTED:
        return NOTHING
    return said(listed(idle), " made no difference here.")


def _absent(case: Case) -> Said:
    if "visible" in case.explanation:
        return NOTHING  # a masked cell looks like one that was not given
    names = case.explanation["feature_names"]
    absent = [quoted(name) for name in names if case.instance.get(name) is None]
    if not absent or len(absent) > MOST_LISTED or not case.instance:
        return NOTHING
    return said("Not given: ", listed(absent), ".")
