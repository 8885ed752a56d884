"""Plots of one explanation as SVG text: pure functions of the stored numbers.

Each drawn number is written beside its bar to `drawing.DIGITS` significant digits and stands in
the bar's data-value with all of them.
"""

from collections.abc import Iterator, Sequence

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
from service.pages.steps import Path, Step

ROW = 31
TEXT_BASE = 11
BAR_TOP, BAR_HEIGHT = 15, 11
TIP = 5.0
LETTERS = 44
"""Of a label above a bar: what fits beside its number."""

FORCE_TOP, FORCE_HEIGHT = 44, 26
LISTED = 5
"""Columns that a force plot names on each side."""

LINE = 16


def waterfall(path: Path, *, key: str = "waterfall") -> str:
    """From the base value down to the output, one bar a column, the strongest first.

    The columns that are left are one bar together, which says how many they are.
    """
    rows: list[tuple[str, float, Step | None]] = [
        (step.text, step.contribution, step) for step in path.shown
    ]
    if path.rest:
        rows.append((path.rest_text, path.rest_sum, None))
    ends = [path.base]
    for _, contribution, _ in rows:
        ends.append(ends[-1] + contribution)
    scale = Scale.over([*ends, path.output])
    parts = [_mark("base value", path.base, scale, 0)]
    for number, (text, contribution, step) in enumerate(rows, 1):
        span = ends[number - 1], ends[number]
        parts.append(_bar(text, contribution, step, scale, span, number * ROW))
    bottom = (len(rows) + 1) * ROW
    parts.append(_mark(f"output {path.output_name}", path.output, scale, bottom))
    x, height = scale.x(path.base), bottom + ROW
    parts.insert(0, tag("line", x1=x, x2=x, y1=ROW - 8, y2=height - 6, class_="base"))
    parts += scale.axis(height, path.unit)
    return figure(key, _title("Waterfall", path), description(path), height + 36, parts)


def _title(kind: str, path: Path) -> str:
    return f"{kind} plot of {path.output_name}"


def description(path: Path) -> str:
    """The plot in words: both ends and the three strongest columns; then what was summed."""
    strongest = "; ".join(f"{step.text}: {signed(step.contribution)}" for step in path.steps[:3])
    text = (
        f"From the base value {short(path.base)} to the output {short(path.output)}, in "
        f"{path.unit}. The strongest columns: {strongest}."
    )
    if path.rest:
        text += f" Summed as {path.rest_text}: {path.rest_names}."
    return text + " All numbers are in the table of contributions."


def _mark(text: str, value: float, scale: Scale, top: float) -> str:
    """The base value or the output: a diamond on the scale."""
    x, y = scale.x(value), top + BAR_TOP + BAR_HEIGHT / 2
    diamond = f"{x - 5:.1f},{y} {x:.1f},{y - 5} {x + 5:.1f},{y} {x:.1f},{y + 5}"
    parts = (
        label(elided(text, LETTERS), MARGIN, top + TEXT_BASE, style="end"),
        label(short(value), WIDTH - MARGIN, top + TEXT_BASE, style="end", anchor="end"),
        tag("polygon", points=diamond, class_="mark"),
    )
    return tag("g", "".join(parts), data_end=text.partition(" ")[0], data_value=repr(value))


def _bar(
    text: str,
    contribution: float,
    step: Step | None,
    scale: Scale,
    span: tuple[float, float],
    top: float,
) -> str:
    start, stop = (scale.x(value) for value in span)
    named = text if step is None else f"{step.rank}. {text}"
    parts = (
        tag("title", escaped(f"{text}: {signed(contribution)}")),
        tag("line", x1=start, x2=start, y1=top - 5, y2=top + BAR_TOP, class_="join"),
        label(elided(named, LETTERS), MARGIN, top + TEXT_BASE),
        label(signed(contribution), WIDTH - MARGIN, top + TEXT_BASE, anchor="end"),
        tag("polygon", points=_arrow(start, stop, top + BAR_TOP), class_=direction(contribution)),
    )
    return tag(
        "g",
        "".join(parts),
        data_feature=None if step is None else step.name,
        data_rest=text if step is None else None,
        data_value=repr(contribution),
    )


def direction(contribution: float) -> str:
    """The style of what raises or lowers the output."""
    if contribution == 0:
        return "none"
    return "up" if contribution > 0 else "down"


def _arrow(start: float, stop: float, top: float, height: float = BAR_HEIGHT) -> str:
    """A bar that ends in a tip, so that its direction shows without colours; never thinner than a
    hair.
    """
    middle, bottom = top + height / 2, top + height
    if abs(stop - start) < 1.0:
        x0, x1 = min(start, stop) - 0.5, min(start, stop) + 0.5
        return f"{x0:.1f},{top} {x1:.1f},{top} {x1:.1f},{bottom} {x0:.1f},{bottom}"
    neck = stop - min(TIP, abs(stop - start)) * (1 if stop > start else -1)
    return (
        f"{start:.1f},{top} {neck:.1f},{top} {stop:.1f},{middle} "
        f"{neck:.1f},{bottom} {start:.1f},{bottom}"
    )


def force(path: Path, *, key: str = "force") -> str:
    """All columns in one line: what raises the output pushes from the left, what lowers it from
    the right, and both meet at the output. Numbers in it are ranks, which are named below.
    """
    raising = [step for step in path.steps if step.contribution > 0]
    lowering = [step for step in path.steps if step.contribution < 0]
    left = path.output - sum(step.contribution for step in raising)
    right = path.output - sum(step.contribution for step in lowering)
    scale = Scale.over([left, right, path.base, path.output])
    parts = [*_pushes(raising, path.output, scale), *_pushes(lowering, path.output, scale)]
    parts += _force_ends(path, scale)
    axis_y = FORCE_TOP + FORCE_HEIGHT + 8
    parts += scale.axis(axis_y, path.unit)
    top = axis_y + 56
    parts += _side("Raise it", raising, top)
    height = top + LINE * (_n_lines(raising) + 1)
    parts += _side("Lower it", lowering, height)
    height += LINE * _n_lines(lowering)
    return figure(key, _title("Force", path), description(path), height, parts)


def _pushes(steps: Sequence[Step], output: float, scale: Scale) -> Iterator[str]:
    """Segments from the output outwards, the strongest first."""
    end = output
    for step in steps:
        start = end - step.contribution
        x0, x1 = scale.x(start), scale.x(end)
        parts = [
            tag("title", escaped(f"{step.text}: {signed(step.contribution)}")),
            tag(
                "polygon",
                points=_arrow(x0, x1, FORCE_TOP, FORCE_HEIGHT),
                class_=f"{direction(step.contribution)} push",
            ),
        ]
        if abs(x1 - x0) > 9 + 7 * len(str(step.rank)):
            middle = (x0 + x1) / 2 - (2 if step.contribution > 0 else -2)
            y = FORCE_TOP + FORCE_HEIGHT / 2 + 4
            parts.append(label(str(step.rank), middle, y, style="on", anchor="middle"))
        yield tag("g", "".join(parts), data_feature=step.name, data_value=repr(step.contribution))
        end = start


def _force_ends(path: Path, scale: Scale) -> Iterator[str]:
    """Base value and output, above the bar; on two lines, so that they never meet."""
    for text, value, y, style, through in (
        ("base value", path.base, 12, "muted", -1),
        ("output", path.output, 28, "end", FORCE_HEIGHT + 4),
    ):
        x = scale.x(value)
        anchor = "start" if x < WIDTH / 3 else "end" if x > 2 * WIDTH / 3 else "middle"
        parts = (
            tag("line", x1=x, x2=x, y1=y + 3, y2=FORCE_TOP + through, class_=style),
            label(f"{text} {short(value)}", x, y, style=style, anchor=anchor),
        )
        yield tag("g", "".join(parts), data_end=text.partition(" ")[0], data_value=repr(value))


def _n_lines(steps: Sequence[Step]) -> int:
    return 1 + max(1, min(len(steps), LISTED + 1))


def _side(title: str, steps: Sequence[Step], y: float) -> Iterator[str]:
    """The strongest columns of one side by rank, _n_lines of them with the title."""
    yield label(title, MARGIN, y, style="end")
    if not steps:
        yield label("no column", MARGIN, y + LINE, style="muted")
    for number, step in enumerate(steps[:LISTED], 1):
        line = y + number * LINE
        yield label(elided(f"{step.rank}. {step.text}", LETTERS), MARGIN, line)
        yield label(signed(step.contribution), WIDTH - MARGIN, line, anchor="end")
    if len(steps) > LISTED:
        more = len(steps) - LISTED
        yield label(f"and {more} weaker", MARGIN, y + (LISTED + 1) * LINE, style="muted")


def bars(title: str, unit: str, items: Sequence[tuple[str, float]], *, key: str = "bars") -> str:
    """Numbers that are not negative as bars from 0, in the order they come."""
    scale = Scale.over([0.0, *(value for _, value in items)])
    parts = []
    for number, (name, value) in enumerate(items):
        top = number * ROW
        width = max(scale.x(value) - scale.x(0.0), 1.0)
        content = (
            tag("title", escaped(f"{name}: {short(value)}")),
            label(elided(name, LETTERS), MARGIN, top + TEXT_BASE),
            label(short(value), WIDTH - MARGIN, top + TEXT_BASE, anchor="end"),
            tag(
                "rect",
                x=scale.x(0.0),
                y=top + BAR_TOP,
                width=width,
                height=BAR_HEIGHT,
                class_="plain",
            ),
        )
        parts.append(tag("g", "".join(content), data_feature=name, data_value=repr(value)))
    height = len(items) * ROW + 4
    parts += scale.axis(height, unit)
    text = "; ".join(f"{name}: {short(value)}" for name, value in items[:3])
    text = f"The largest: {text}. All numbers are in the table."
    return figure(key, title, text, height + 36, parts)


def message(text: str) -> str:
    """In place of a plot: why there is none."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) > LETTERS:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    lines.append(line)
    parts = [label(elided(one, LETTERS + 8), MARGIN, 20 + 18 * n) for n, one in enumerate(lines)]
    return figure("message", "No plot", text, 20 + 18 * len(lines), parts)
