"""The page of one explanation, and its plot: what GET /explanations/{request_id} says to people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from service.pages import plots, wording
from service.pages.contributions import (
    Contributions,
    Table,
    cell_text,
    contributions_of,
    table_of,
)
from service.pages.decision_plot import decision_plot
from service.pages.drawing import DIGITS, exact
from service.pages.rendering import Rendered, drawing, page

Json = dict[str, Any]
Pairs = Sequence[tuple[str, str]]


class NotInRecordError(LookupError):
    """The record has no such instance or output; parameter: which of them was asked for."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(detail)
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Place:
    """An event's place in the log."""

    seq: int
    event: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What the service found when it checked that its log has the record."""

    kind: Literal["proven", "failed", "withheld", "awaited"]
    verdict: str = ""
    log: str = ""
    size: int = 0
    signed_at: str = ""
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of a record is looked at. query: of the request, carried on by the page's links.

    output None: the class that was predicted.
    """

    instance: int = 0
    output: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beside:
    """What the page says beside the document. warnings: None where they are not to be shown."""

    proof: Proof
    warnings: Sequence[Mapping[str, str]] | None = None
    retry_after_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said, in a sentence and in numbers."""

    sentence: str
    decision: str | None
    probabilities: Pairs


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot and what to know of it."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason as the policy words it."""

    code: str
    text: str
    features: str
    contribution: str


@dataclass(frozen=True, slots=True)
class Reasons:
    """Of an adverse decision. items: empty where they are withheld, for that reason."""

    decision: str
    reason: str | None
    items: Sequence[Reason]
    against: str


@dataclass(frozen=True, slots=True)
class VisibleColumn:
    """All that a role with masked columns gets of a column."""

    output: str
    rank: int
    name: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the template shows; lists are empty, and texts None, where there is nothing to show."""

    request_id: str
    received_at: str
    model: Mapping[str, object]
    instance: int
    n_instances: int
    previous_url: str | None
    next_url: str | None
    warnings: Sequence[str] | None
    proof: Proof
    provenance: Pairs
    links: Pairs
    caveat: str | None
    is_erased: bool = True
    prediction: Prediction | None = None
    status: str = "complete"
    status_text: str = ""
    reason: str | None = None
    reasons: Reasons | None = None
    reading: str = ""
    output_links: Sequence[tuple[str, str | None]] = ()
    plots: Sequence[Plot] = ()
    table: Table | None = None
    visible: Sequence[VisibleColumn] = ()
    cells: Pairs = ()


def explanation_page(record: Json, asked: Asked, beside: Beside) -> Rendered:
    """The record as a page about one of its instances. Raises NotInRecordError.

    Cost: some milliseconds; more than a hundred columns are cut to the strongest.
    """
    _check_instance(record, asked.instance)
    view = _frame(record, asked, beside)
    if record["instances"][asked.instance] is not None:
        view = _filled(view, record, asked)
    return page("explanation.html", view, refresh=beside.retry_after_seconds)


def explanation_plot(record: Json, asked: Asked) -> Rendered:
    """The waterfall of one output; where there is none, a drawing that says why."""
    _check_instance(record, asked.instance)
    found = _contributions(record, asked)
    if found is None or found.path is None:
        explanation = record["explanation"] or {}
        text = explanation.get("reason") or _status_text(record["explanation"])
        return drawing(plots.message(text or "What would be plotted is withheld or erased."))
    return drawing(plots.waterfall(found.path))


def _check_instance(record: Json, instance: int) -> None:
    count = len(record["instances"])
    if instance >= count:
        raise NotInRecordError("instance", f"the record has {count}, counted from 0")


def _frame(record: Json, asked: Asked, beside: Beside) -> View:
    """What does not depend on how the instance was explained."""
    path, explanation = f"/explanations/{record['request_id']}", record["explanation"] or {}
    count, at = len(record["instances"]), asked.instance
    turned = {n: wording.link(path, asked.query, instance=n, output=None) for n in (at - 1, at + 1)}
    return View(
        request_id=record["request_id"],
        received_at=wording.moment(record["received_at"]),
        model=record["model"],
        instance=at,
        n_instances=count,
        previous_url=turned[at - 1] if at else None,
        next_url=turned[at + 1] if at + 1 < count else None,
        warnings=_warnings(beside.warnings, at),
        proof=beside.proof,
        provenance=_provenance(record, at),
        links=_links(path, record, asked),
        caveat=explanation.get("caveat"),
    )


def _filled(view: View, record: Json, asked: Asked) -> View:
    explanation = record["explanation"]
    status = "none" if explanation is None else explanation["status"]
    found = _contributions(record, asked)
    shown = None if found is None else found.path
    cells = record["instances"][asked.instance]
    return replace(
        view,
        is_erased=False,
        prediction=_prediction(record["predictions"][asked.instance]),
        status=status,
        status_text=_status_text(explanation),
        reason=None if explanation is None else explanation["reason"],
        reasons=_reasons(explanation, asked.instance),
        reading="" if shown is None else _reading(shown.output_name, shown.unit),
        output_links=() if found is None else _output_links(found, asked, view.request_id),
        plots=[] if found is None else _plots(found),
        table=None if found is None else table_of(found),
        visible=_visible(explanation, cells, asked.instance),
        cells=() if found is not None else _cells(cells, sees_all=view.proof.kind != "withheld"),
    )


def _cells(cells: Json, *, sees_all: bool) -> Pairs:
    absent = "missing" if sees_all else "missing or withheld"
    return [(name, absent if cell is None else cell_text(cell)) for name, cell in cells.items()]


def _contributions(record: Json, asked: Asked) -> Contributions | None:
    prediction = record["predictions"][asked.instance] or {}
    probabilities = prediction.get("probabilities") or {}
    predicted = max(probabilities, key=probabilities.__getitem__) if probabilities else None
    try:
        return contributions_of(
            record["explanation"],
            record["instances"][asked.instance],
            asked.instance,
            asked.output,
            predicted=predicted,
        )
    except KeyError:
        raise NotInRecordError("output", "the model explains no output of this name") from None


def _status_text(explanation: Json | None) -> str:
    if explanation is None:
        return wording.NOT_ASKED
    return wording.STATUS_TEXTS.get(explanation["status"], "")


def _prediction(prediction: Json) -> Prediction:
    decision = prediction.get("decision")
    probabilities = prediction.get("probabilities")
    if "label" in prediction:
        label = exact(prediction["label"])
        sentence = f"The model answered {label}"
        if probabilities:
            sentence += f", with probability {max(probabilities.values()):.{DIGITS}g}"
    elif prediction["value"] is None:
        sentence = "The predicted value is withheld from your role"
    else:
        sentence = f"The model predicted {exact(prediction['value'])}"
    pairs = [(name, exact(value)) for name, value in (probabilities or {}).items()]
    return Prediction(sentence + ".", None if decision is None else exact(decision), pairs)


def _reading(output: str, unit: str) -> str:
    return (
        f"Each bar is what one column adds to the score of “{output}” (unit: {unit}): bars to the "
        f"right raise it, bars to the left lower it. Numbers beside bars have {DIGITS} significant "
        "digits; the table has the stored ones."
    )


def _plots(found: Contributions) -> list[Plot]:
    if found.path is None:
        return []
    path, unit = found.path, found.path.unit
    others = f" {path.rest_text.capitalize()}: {path.rest_names}." if path.rest else ""
    caption = (
        f"Waterfall: from the base value, the model's mean over the background, to the output "
        f"“{path.output_name}” (unit: {unit}).{others}"
    )
    drawn = [Plot(plots.waterfall(path), caption)]
    if len(found.paths) > 1:
        caption = "Decision plot: each line is an output; columns are added from top to bottom."
        return [*drawn, Plot(decision_plot(found.paths), caption)]
    caption = (
        "Force plot: what raises the output pushes from the left, what lowers it from the right. "
        "Numbers in the bar are ranks in the table."
    )
    return [*drawn, Plot(plots.force(path), caption)]


def _output_links(
    found: Contributions, asked: Asked, request_id: str
) -> list[tuple[str, str | None]]:
    if len(found.outputs) < 2:
        return []
    shown, path = found.outputs[found.shown], f"/explanations/{request_id}"
    return [
        (name, None if name == shown else wording.link(path, asked.query, output=name))
        for name in found.outputs
    ]


def _reasons(explanation: Json | None, instance: int) -> Reasons | None:
    """Of this instance, where the policy gives any: `explanation.reasons`."""
    listed = (explanation or {}).get("reasons")
    found = listed[instance] if listed else None
    if found is None:
        return None
    items = [
        Reason(item["code"], item["text"], ", ".join(item["features"]), exact(item["contribution"]))
        for item in found["items"] or ()
    ]
    cohort = found["cohort_digest"]
    against = "the background" if cohort is None else f"the reference cohort {cohort}"
    return Reasons(exact(found["decision"]), found["reason"], items, against)


def _visible(explanation: Json | None, cells: Json, instance: int) -> list[VisibleColumn]:
    listed = (explanation or {}).get("visible")
    return [
        VisibleColumn(
            entry["output"],
            entry["rank"],
            entry["feature"],
            cell_text(cells.get(entry["feature"])),
            wording.EFFECTS[entry["sign"]],
        )
        for entry in (listed[instance] if listed else None) or ()
    ]


def _warnings(warnings: Sequence[Mapping[str, str]] | None, instance: int) -> list[str] | None:
    if warnings is None:
        return None
    start = f"/instances/{instance}/"
    return [
        f"{_column(each['pointer'].removeprefix(start))} "
        f"{wording.WARNING_TEXTS.get(each['code'], each['code'])}"
        for each in warnings
        if each["pointer"].startswith(start)
    ]


def _column(token: str) -> str:
    """A JSON pointer's last token as the name it stands for."""
    return token.replace("~1", "/").replace("~0", "~")


def _provenance(record: Json, instance: int) -> Pairs:
    model, explanation = record["model"], record["explanation"] or {}
    how = {name: explanation.get(name) for name in ("method", "engine", "exact", "lane")}
    about = {
        "request": record["request_id"],
        "explains again": record.get("parent_request_id"),
        "model": f"{model['name']} version {model['version']}",
        **how,
        "additivity_error": _of_instance(explanation.get("additivity_error"), instance),
        "seed": _of_instance(explanation.get("seed"), instance),
    }
    told = about.keys()
    own = {name: value for name, value in record["provenance"].items() if name not in told}
    return wording.facts({**about, **own})


def _of_instance(listed: Sequence[object] | None, instance: int) -> object:
    """One instance's of a list that has one for each."""
    return None if listed is None else listed[instance]


def _links(path: str, record: Json, asked: Asked) -> Pairs:
    tenant = {name: value for name, value in asked.query.items() if name == "tenant"}
    found = [("This record as JSON", wording.link(path, tenant, format="json"))]
    if (record["explanation"] or {}).get("values"):
        found.append(("The waterfall as SVG", wording.link(path, asked.query, format="svg")))
    return [
        *found,
        ("In words, for who applied (JSON)", wording.link(f"{path}/narrative", tenant)),
        ("Its proof (JSON)", wording.link(f"{path}/proof", tenant)),
        ("Explained again (JSON)", wording.link(f"{path}/related", tenant)),
        (f"Model {record['model']['name']}", f"/models/{record['model']['name']}"),
    ]
