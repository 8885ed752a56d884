"""Line plots over time as SVG, by hand: a figure is a few kilobytes and needs no library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 820, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 34, 34
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#e08e0b", "#6a4c93", "#4f5d75")
TICKS = 4
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)

SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
    'font-family="sans-serif" font-size="11">'
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """Lines over seconds; spans are shaded and named."""

    title: str
    unit: str
    lines: Mapping[str, Points]
    spans: Mapping[str, tuple[float, float]]

    def svg(self) -> str:
        points = [point for line in self.lines.values() for point in line] or [(0.0, 0.0)]
        axes = _Axes(
            max([x for x, _ in points] + [stop for _, stop in self.spans.values()] + [1.0]),
            _rounded_up(max(y for _, y in points)),
        )
        heading = f"{escape(self.title)}, {escape(self.unit)}"
        spans, lines = enumerate(self.spans.items()), enumerate(self.lines.values())
        parts = [
            SVG,
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="18" font-size="13">{heading}</text>',
            *(axes.span(name, *span, shaded=i % 2 == 0) for i, (name, span) in spans),
            *axes.ticks(),
            *(axes.line(points, COLOURS[i % len(COLOURS)]) for i, points in lines),
            *(_legend(i, name) for i, name in enumerate(self.lines)),
            "</svg>",
        ]
        return "\n".join(parts)


@dataclass(frozen=True)
class _Axes:
    longest: float
    highest: float

    def x(self, seconds: float) -> float:
        return LEFT + seconds / self.longest * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.highest * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Points, colour: str) -> str:
        listed = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline points="{listed}" fill="none" stroke="{colour}" stroke-width="1.6"/>'

    def span(self, name: str, start: float, stop: float, *, shaded: bool) -> str:
        left, width = self.x(start), self.x(stop) - self.x(start)
        fill = "#f0f2f5" if shaded else "#fff"
        height = HEIGHT - TOP - BOTTOM
        return (
            f'<rect x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{height}" fill="{fill}"/>'
            f'<text x="{left + 3:.1f}" y="{TOP + 11}" fill="#777">{escape(name)}</text>'
        )

    def ticks(self) -> list[str]:
        parts = []
        for value in np.linspace(0.0, self.highest, TICKS + 1):
            y = self.y(float(value))
            parts += [
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>',
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>',
            ]
        for second in np.arange(0.0, self.longest, _rounded_up(self.longest / 10)):
            x = self.x(float(second))
            place = f'x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
            parts.append(f"<text {place}>{second:g} s</text>")
        return parts


def _legend(index: int, name: str) -> str:
    y, left = TOP + 14 + 18 * index, WIDTH - RIGHT + 12
    colour = COLOURS[index % len(COLOURS)]
    return (
        f'<line x1="{left}" x2="{left + 18}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" '
        f'stroke-width="3"/><text x="{left + 24}" y="{y}">{escape(name)}</text>'
    )


def _rounded_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * nice for nice in NICE if power * nice >= value * (1 - 1e-9)))
