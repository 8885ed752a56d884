"""The pages of GET /models and GET /models/{name}."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.pages import wording
from service.pages.drawing import exact, short
from service.pages.plots import bars
from service.pages.rendering import Rendered, page

Json = dict[str, Any]
MOST_BARS = 20
MOST_LEVELS = 12


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """One column of the schema."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A section that may be missing: reason says why."""

    reason: str = ""
    svg: str = ""
    summary: str = ""
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What the template shows."""

    name: str
    facts: Sequence[tuple[str, str]]
    columns: Sequence[ColumnRow]
    is_described: bool
    importance: Shown
    drift: Shown
    slis: Shown
    links: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class DriftState:
    """What the last look at drift found. alarms: what moved; rows: by kind, in the windows."""

    at: str
    rows: Mapping[str, int]
    alarms: Sequence[tuple[str, str]]
    psi: Sequence[tuple[str, str, float]]


@dataclass(frozen=True, slots=True)
class ListView:
    """The models that are served."""

    models: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]
    links: Sequence[tuple[str, str]]


def models_page(document: Json) -> Rendered:
    """All served models."""
    rows = [
        (item["name"], wording.link(f"/models/{item['name']}", {}), _facts(item))
        for item in document["items"]
    ]
    view = ListView(rows, [("This list as JSON", "/models?format=json")])
    return page("models.html", view)


def model_page(
    info: Json,
    importance: Json | str,
    drift: DriftState | str,
    slis: Sequence[tuple[str, int, int]] | str,
) -> Rendered:
    """One model. importance, drift, slis (how many of all were good): what is known, or why it is
    not shown.
    """
    path = f"/models/{info['name']}"
    links = [
        ("This model as JSON", wording.link(path, {}, format="json")),
        ("Its explanations", wording.link("/explanations", {}, model=info["name"])),
        ("Its card (Markdown)", f"{path}/card"),
        ("Importance as JSON", f"{path}/importance"),
    ]
    properties = info["json_schema"].get("properties", {})
    columns = [_column(name, each) for name, each in properties.items()]
    view = View(
        info["name"],
        _facts(info),
        columns,
        any(column.description for column in columns),
        Shown(importance) if isinstance(importance, str) else _importance(importance),
        Shown(drift) if isinstance(drift, str) else _drift(drift),
        Shown(slis) if isinstance(slis, str) else _slis(slis),
        links,
    )
    return page("model.html", view)


def _facts(info: Json) -> list[tuple[str, str]]:
    cost = info["cost_seconds_per_instance"]
    return wording.facts(
        {
            "serving version": info["serving_version"],
            "versions": info["versions"],
            "task": info["task"],
            "explained by": info["method"] or "nothing: this model is not explained",
            "output space": wording.SPACE_TEXTS[info["output_space"]],
            "cost": None if cost is None else f"{short(1e6 * cost)} microseconds an instance",
        }
    )


def _column(name: str, schema: Json) -> ColumnRow:
    levels = [exact(level) for level in schema.get("enum", ()) if level is not None]
    listed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = " or ".join(each for each in listed if each != "null")
    if levels:
        kind = f"one of {', '.join(levels[:MOST_LEVELS])}"
        kind += f" and {len(levels) - MOST_LEVELS} more" if len(levels) > MOST_LEVELS else ""
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    missing = ["may be missing"] if "null" in listed else []
    description = schema.get("description") or schema.get("title") or ""
    return ColumnRow(name, ", ".join([kind, *bounds, *missing]), description)


_BOUNDS = {"minimum": "at least", "maximum": "at most"}


def _importance(document: Json) -> Shown:
    means = document["importance"]
    period = f"from {document['since']} until {document['until']} (excluded)"
    if means is None:
        return Shown(
            f"Nothing is shown {period}: {document['reason']}. A day counts when at least "
            f"{document['k']} people stand behind it."
        )
    ranked = sorted(means.items(), key=lambda item: -item[1])
    unit = wording.SPACE_TEXTS[document["output_space"]]
    title = "Mean importance of the columns"
    others = len(ranked) - MOST_BARS
    summary = (
        f"Mean absolute contribution of each column, {period}, over {document['people']} people on "
        f"{document['days']} days; {document['withheld_days']} days are withheld. Noise is added "
        "that protects single people."
    )
    if others > 0:
        summary += f" The plot shows the first {MOST_BARS}, the table all."
    svg = bars(title, unit, ranked[:MOST_BARS], key="importance")
    return Shown("", svg, summary, [(name, exact(mean)) for name, mean in ranked])


def _drift(state: DriftState) -> Shown:
    rows = _rows_text(state.rows.items())
    if not state.psi:
        return Shown(f"Too few rows to say anything at {state.at}: {rows}.")
    moved = ", ".join(f"{feature} ({kind})" for kind, feature in state.alarms)
    said = f"Moved: {moved}." if moved else "Nothing moved."
    listed = sorted(state.psi, key=lambda one: -one[2])
    table = [(feature, kind, short(value)) for kind, feature, value in listed]
    return Shown("", "", f"{said} Looked at {state.at}: {rows}.", table)


def _slis(slis: Sequence[tuple[str, int, int]]) -> Shown:
    rows = [(says, str(good), str(total), f"{good / total:.2%}") for says, good, total in slis]
    return Shown(
        summary="Counted by the process that made this page, since its start; dashboards add up "
        "all processes.",
        rows=rows,
    )


def _rows_text(rows: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} rows of the kind {kind}" for kind, count in rows)
