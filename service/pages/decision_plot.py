"""The decision plot of a model with several outputs, as SVG text."""

import math
from collections.abc import Sequence

from service.pages.drawing import (
    MARGIN,
    WIDTH,
    Scale,
    elided,
    escaped,
    figure,
    label,
    short,
    signed,
    tag,
)
from service.pages.steps import MOST_SHOWN, Path

GUTTER = 128
"""For the columns' names, left of the lines."""

LETTERS = 18
ROW = 24
TOP = 22
LINE = 17
MOST_LINES = 8
MARKS = ("circle", "square", "diamond", "triangle")
RADIUS = 3.6


def decision_plot(paths: Sequence[Path], *, key: str = "decision") -> str:
    """One line an output from its base value, at the top, to the output at the bottom; each row
    adds a column. Columns are in the order of their |contribution| summed over all outputs; those
    after the first MOST_SHOWN are one row. Of more than MOST_LINES outputs the largest are drawn.
    """
    drawn = sorted(paths, key=lambda path: -path.output)[:MOST_LINES]
    columns = ordered_columns(paths)
    most = MOST_SHOWN if len(columns) > MOST_SHOWN + 1 else MOST_SHOWN + 1
    shown, rest = columns[:most], columns[most:]
    names = [*shown, *([f"{len(rest)} other columns"] if rest else [])]
    steps = [_contributions(path, shown, rest) for path in drawn]
    lines = [_running(path.base, own) for path, own in zip(drawn, steps, strict=True)]
    scale = Scale.over([value for line in lines for value in line], left=GUTTER)
    bottom = TOP + ROW * len(names)
    parts = [*_rows(names), *scale.axis(bottom + 12, drawn[0].unit)]
    for number, (path, own, line) in enumerate(zip(drawn, steps, lines, strict=True)):
        parts.append(_line(number, path, dict(zip(names, own, strict=True)), line, scale))
    legend_top = bottom + 62
    parts += [_legend(n, path, legend_top + LINE * n) for n, path in enumerate(drawn)]
    height = legend_top + LINE * len(drawn)
    if len(paths) > len(drawn):
        text = f"{len(paths) - len(drawn)} outputs with smaller scores are not drawn"
        parts.append(label(text, MARGIN, height, style="muted"))
        height += LINE
    return figure(key, "Decision plot of all outputs", _description(drawn, rest), height, parts)


def ordered_columns(paths: Sequence[Path]) -> list[str]:
    """All columns, by |contribution| summed over the outputs; ties in the order of the first."""
    strength: dict[str, float] = {}
    for path in paths:
        for step in path.steps:
            strength[step.name] = strength.get(step.name, 0.0) + abs(step.contribution)
    return sorted(strength, key=lambda name: -strength[name])


def _contributions(path: Path, shown: Sequence[str], rest: Sequence[str]) -> list[float]:
    by_name = {step.name: step.contribution for step in path.steps}
    own = [by_name[name] for name in shown]
    return [*own, math.fsum(by_name[name] for name in rest)] if rest else own


def _running(base: float, contributions: Sequence[float]) -> list[float]:
    line = [base]
    for contribution in contributions:
        line.append(line[-1] + contribution)
    return line


def _rows(names: Sequence[str]) -> list[str]:
    parts = [label("base values", MARGIN, TOP + 4, style="end")]
    for number, name in enumerate(names, 1):
        y = TOP + ROW * number
        text = tag("title", escaped(name)) + escaped(elided(name, LETTERS))
        parts += [
            tag("line", x1=GUTTER, x2=WIDTH - MARGIN, y1=y, y2=y, class_="grid"),
            tag("text", text, x=MARGIN, y=y + 4),
        ]
    return parts


def _line(
    number: int, path: Path, own: dict[str, float], line: Sequence[float], scale: Scale
) -> str:
    at = [(scale.x(value), TOP + ROW * row) for row, value in enumerate(line)]
    points = " ".join(f"{x:.1f},{y}" for x, y in at)
    parts = [tag("polyline", points=points, class_=f"line c{number}")]
    parts += [mark(number, *at[0]), mark(number, *at[-1])]
    for (name, contribution), (x, y) in zip(own.items(), at[1:], strict=True):
        spoken = tag("title", escaped(f"{path.output_name}, {name}: {signed(contribution)}"))
        own_data = {"data_feature": name, "data_value": repr(contribution)}
        parts.append(tag("circle", spoken, cx=x, cy=y, r=2, class_=f"dot c{number}", **own_data))
    return tag(
        "g",
        "".join(parts),
        data_output=path.output_name,
        data_base=repr(path.base),
        data_value=repr(path.output),
    )


def mark(number: int, x: float, y: float) -> str:
    """The sign of a line's ends, which tells lines apart where colours do not."""
    r, style = RADIUS, f"dot c{number}"
    shape = MARKS[number % len(MARKS)]
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=r, class_=style)
    if shape == "square":
        return tag("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=style)
    corners = [(x, y - r - 1), (x + r + 1, y), (x, y + r + 1), (x - r - 1, y)]
    if shape == "triangle":
        corners = [(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)]
    return tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), class_=style)


def _legend(number: int, path: Path, y: float) -> str:
    parts = (
        tag("line", x1=MARGIN, x2=MARGIN + 28, y1=y - 4, y2=y - 4, class_=f"line c{number}"),
        mark(number, MARGIN + 14, y - 4),
        label(elided(path.output_name, 36), MARGIN + 36, y),
        label(short(path.output), WIDTH - MARGIN, y, anchor="end"),
    )
    return "".join(parts)


def _description(drawn: Sequence[Path], rest: Sequence[str]) -> str:
    ends = "; ".join(
        f"{path.output_name} from {short(path.base)} to {short(path.output)}" for path in drawn
    )
    text = f"Each output's line from its base value to its score, in {drawn[0].unit}: {ends}."
    if rest:
        text += f" Summed as {len(rest)} other columns: {', '.join(rest[:40])}."
    return text + " All numbers are in the table of contributions."
