"""For who has to answer questions about a decision: scores, threshold, columns, warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.narratives.cases import Aim, Case
from service.narratives.numerals import signed
from service.narratives.said import (
    NOTHING,
    UNTOLD,
    Document,
    Piece,
    Said,
    listed,
    number,
    quoted,
    said,
    sentences,
)
from service.narratives.wording import UNITS, towards

MOST = 5
"""Columns told of for and against."""

MOST_CLASSES = 10
"""Of more classes only the likeliest are told of."""

WARNINGS = {
    "out_of_training_range": "is outside the range of the registration data",
    "unseen_category": "is a level the model was not trained with",
}
UNFINISHED = {
    "pending": "The explanation is pending.",
    "failed": "The explanation failed; the prediction stands.",
    "skipped": "The explanation was skipped.",
    None: "No explanation was asked for.",
}


def head(record: Document) -> Said:
    """Which model answered what, and when."""
    return said(
        f"Model {quoted(record['model']['name'])}, version ",
        number(record, "model", "version"),
        f", answered request {quoted(record['request_id'])}, received at "
        f"{quoted(record['received_at'])}.",
    )


def outcome(case: Case) -> Said:
    """Answer, scores, and the decision with its threshold."""
    if case.answer is not None:
        answer = said(f"Answer: {quoted(case.answer)}.")
    elif case.score_path is not None:
        answer = said("Answer: ", number(case.record, *case.score_path), ".")
    else:
        answer = said("The answer may not be shown to this role.")
    return sentences(answer, _scores(case), _decision(case))


def case_paragraphs(case: Case) -> list[Said]:
    """What counted with its numbers, the reasons with their codes, the warnings."""
    return [sentences(*_counted(case)), _reasons(case), _warnings(case)]


def _scores(case: Case) -> Said:
    if not case.probabilities:
        return NOTHING
    ranked = sorted(case.probabilities, key=lambda name: -case.probabilities[name])
    is_cut = len(ranked) > MOST_CLASSES
    names = ranked[:MOST_CLASSES] if is_cut else list(case.probabilities)
    path = ("predictions", case.index, "probabilities")
    shown = [said(f"{quoted(name)} ", number(case.record, *path, name)) for name in names]
    return said("Highest scores: " if is_cut else "Scores: ", listed(shown), ".")


def _decision(case: Case) -> Said:
    if case.decision is None:
        return NOTHING
    found = case.score_and_bound()
    if found is None:
        return said(f"Decision: {quoted(case.decision)}.")
    score, bound, is_reached = found
    way = "reaches" if is_reached else "is below"
    what = "the value" if case.answer is None else f"the score of {quoted(case.subject)}"
    return said(
        f"Decision: {quoted(case.decision)}, because {what}, ",
        *(score, f", {way} the threshold ", bound, "."),
    )


def _counted(case: Case) -> list[Piece]:
    aim = case.aim
    if "visible" in case.explanation:
        return [ranked(case)]
    if case.values is None or aim is None:
        method = quoted(case.explanation["method"])
        return [f"Explained by {method}, which is no list of contributions to this answer."]
    told = [_side(case, aim, sign) for sign in (1, -1)]
    return [*told, _unit(case, aim), _estimated(case)]


def _unit(case: Case, aim: Aim) -> str:
    unit = UNITS[case.explanation["output_space"]]
    if aim.name is None:
        return f"Contributions are in {unit}."
    output = quoted(case.explanation["output_names"][aim.output])
    turned = "" if aim.sign > 0 else f", so negative ones speak for {quoted(aim.name)}"
    return f"Contributions are in {unit} of {output}{turned}."


def _side(case: Case, aim: Aim, sign: int) -> Said:
    found = case.strongest(aim, sign, MOST)
    if not found:
        return said(f"Nothing counted {towards(aim, sign)}.")
    most = "Only one column counted" if len(found) == 1 else "Counted most"
    return said(f"{most} {towards(aim, sign)}: ", listed([*map(case.named_cell, found)]), ".")


def _estimated(case: Case) -> str:
    if case.explanation.get("standard_errors") is None:
        return ""
    return (
        "They are estimates; columns within two standard errors of zero are left out, "
        "as their direction is not certain."
    )


def ranked(case: Case) -> Said:
    """The columns a role may see, without numbers."""
    if case.visible is None:
        return said("What counted may not be shown to this role.")
    by_output: dict[str, list[str]] = {}
    for entry in sorted(case.visible, key=lambda entry: int(entry["rank"])):
        way = {1: "for", 0: "neither", -1: "against"}[entry["sign"]]
        told = by_output.setdefault(entry["output"], [])
        told.append(f"{quoted(entry['feature'])} ({way})")
    return sentences(
        "This role sees some columns only, as the model would be without the others.",
        *(
            said(f"For {quoted(output)}, the strongest first: ", listed(columns[:MOST]), ".")
            for output, columns in by_output.items()
        ),
    )


def _reasons(case: Case) -> Said:
    entry = case.reasons
    if entry is None:
        return NOTHING
    if entry["decision"] is None:  # as a masked role sees every instance, adverse or not
        return UNTOLD
    decision = quoted(entry["decision"])
    if entry["status"] != "given":
        why = f": {quoted(entry['reason'])}" if entry["reason"] else ""
        return said(f"Reasons for {decision} are withheld{why}.")
    path = ("explanation", "reasons", case.index, "items")
    items: Sequence[Mapping[str, Any]] = entry["items"]
    shown = [
        said(
            f"{quoted(item['code'])} {quoted(item['text'])} (",
            listed([quoted(name) for name in item["features"]]),
            *(", ", number(case.record, *path, place, "contribution", style=signed), ")"),
        )
        for place, item in enumerate(items)
    ]
    noun = "Reason" if len(shown) == 1 else "Reasons"
    return said(f"{noun} for {decision}: ", listed(shown), ".")


def _warnings(case: Case) -> Said:
    start = f"/instances/{case.index}/"
    told = [
        f"{quoted(_column(warning['pointer'], start))} {WARNINGS[warning['code']]}"
        for warning in case.record.get("warnings") or ()
        if warning["pointer"].startswith(start) and warning["code"] in WARNINGS
    ]
    if not told:
        return NOTHING
    return said("Warning: " if len(told) == 1 else "Warnings: ", listed(told), ".")


def _column(pointer: str, start: str) -> str:
    name: str = pointer.removeprefix(start)
    return name.replace("~1", "/").replace("~0", "~")
