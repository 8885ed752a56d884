"""The numbers of one instance's explanation, ordered for plots and for the table beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.pages.drawing import elided, exact
from service.pages.steps import Path
from service.pages.wording import SPACE_TEXTS

Json = dict[str, Any]
Matrix = Sequence[Sequence[float]]

MOST_ROWS = 100
"""Of the table; weaker columns are summed."""

MOST_OUTPUTS = 6
"""Beside each other in the table; of more, only the one that is shown."""

LETTERS = 500
"""Of a raw value in a table: a column may hold any text."""

OTHER_KINDS = {
    "local_model": ("coefficients", "Coefficients of a local linear model (LIME)"),
    "path": ("attributions", "Integrated gradients"),
}


@dataclass(frozen=True, slots=True)
class Contributions:
    """All outputs of one instance. shown: the one that is looked at, by its place; path: that one
    as it is plotted, None of numbers that are no Shapley values: these do not add up and are only
    listed. values, errors: (F, C).
    """

    names: Sequence[str]
    cells: Sequence[object]
    outputs: Sequence[str]
    shown: int
    values: Matrix
    errors: Matrix | None
    paths: Sequence[Path]
    path: Path | None
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One column: its rank for the shown output, its raw value, and a cell an output."""

    rank: str
    name: str
    value: str
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """All contributions, strongest first; ends: base values and outputs."""

    caption: str
    note: str
    outputs: Sequence[str]
    rows: Sequence[Row]
    ends: Sequence[tuple[str, Sequence[str]]]


def contributions_of(
    explanation: Json | None,
    instance: Json | None,
    place: int,
    output: str | None,
    *,
    predicted: str | None,
) -> Contributions | None:
    """The numbers of the instance at that place of a record; None where there are none to see.

    output: what is shown; None for the predicted one, or the only one. Raises KeyError for a name
    that is no output's.
    """
    if explanation is None or instance is None:
        return None
    names, outputs = explanation["feature_names"], explanation["output_names"]
    shown = _shown(outputs, output, predicted)
    cells = [instance.get(name) for name in names]
    values = (explanation["values"] or [None] * (place + 1))[place]
    if values is None:
        return _listed(explanation, place, names, cells, outputs, shown)
    listed = explanation["standard_errors"]
    errors = None if listed is None else listed[place]
    paths = [
        Path.of(
            names,
            cells,
            [row[c] for row in values],
            None if errors is None else [row[c] for row in errors],
            ends=(explanation["base_values"][place][c], explanation["outputs"][place][c]),
            output_name=name,
            unit=SPACE_TEXTS[explanation["output_space"]],
        )
        for c, name in enumerate(outputs)
    ]
    return Contributions(
        names, cells, outputs, shown, values, errors, paths, paths[shown], "Contributions"
    )


def _shown(outputs: Sequence[str], output: str | None, predicted: str | None) -> int:
    if output is not None:
        if output not in outputs:
            raise KeyError(output)
        return outputs.index(output)
    return outputs.index(predicted) if len(outputs) > 1 and predicted in outputs else 0


def _listed(
    explanation: Json,
    place: int,
    names: list[str],
    cells: list[object],
    outputs: list[str],
    shown: int,
) -> Contributions | None:
    """Of the kinds that are no Shapley values."""
    for name, (member, title) in OTHER_KINDS.items():
        found = explanation.get(name)
        if found is not None and found[member][place] is not None:
            values = found[member][place]
            return Contributions(names, cells, outputs, shown, values, None, (), None, title)
    return None


def table_of(found: Contributions) -> Table:
    """All numbers as they are stored."""
    shown = found.shown
    columns = [shown, *(c for c in range(len(found.outputs)) if c != shown)]
    if len(columns) > MOST_OUTPUTS:
        columns = [shown]
    order = sorted(range(len(found.names)), key=lambda row: -abs(found.values[row][shown]))
    most = len(order) if len(order) <= MOST_ROWS + 1 else MOST_ROWS
    rows = [_row(found, rank, row, columns) for rank, row in enumerate(order[:most], 1)]
    if rest := order[most:]:
        sums = [math.fsum(found.values[row][c] for row in rest) for c in columns]
        rows.append(Row("", f"{len(rest)} other columns, summed", "", list(map(exact, sums))))
    drawn = [found.paths[c] for c in columns] if found.paths else []
    ends = [
        ("base value", [exact(each.base) for each in drawn]),
        ("output", [exact(each.output) for each in drawn]),
    ]
    caption = f"{found.title}, strongest first for “{found.outputs[shown]}”"
    names = [found.outputs[c] for c in columns]
    return Table(caption, _note(found, columns), names, rows, ends if drawn else [])


def cell_text(cell: object) -> str:
    """A raw value as tables show it; the record as JSON has the whole."""
    return elided(exact(cell), LETTERS)


def _row(found: Contributions, rank: int, row: int, columns: Sequence[int]) -> Row:
    cells = [_cell(found, row, column) for column in columns]
    return Row(str(rank), found.names[row], cell_text(found.cells[row]), cells)


def _cell(found: Contributions, row: int, column: int) -> str:
    text = exact(found.values[row][column])
    return text if found.errors is None else f"{text} ± {exact(found.errors[row][column])}"


def _note(found: Contributions, columns: Sequence[int]) -> str:
    notes = []
    if found.errors is not None:
        notes.append("Estimates; behind ± is the standard error.")
    if found.path is None:
        notes.append("These are no Shapley values: they do not add up to the output.")
    if len(columns) < len(found.outputs):
        notes.append(f"One of {len(found.outputs)} outputs; the links above show the others.")
    return " ".join(notes)
