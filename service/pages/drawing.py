"""What plots are drawn with: numbers as text, names that fit, a scale from values to pixels."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

WIDTH = 400
"""Of a plot in its own units: on a phone these are about pixels."""

DIGITS = 4
"""Significant ones of a number beside a bar; data-value has all of them."""

MARGIN = 8
PADDING = 6
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
MINUS = "\N{MINUS SIGN}"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def short(value: float) -> str:
    """A number to DIGITS significant digits."""
    return f"{value:.{DIGITS}g}".replace("-", MINUS)


def signed(value: float) -> str:
    """Likewise, with its sign."""
    return f"{value:+.{DIGITS}g}".replace("-", MINUS) if value else "0"


def exact(value: object) -> str:
    """A cell as it is stored: numbers with all their digits, what is not there as `missing`."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def elided(text: str, most: int) -> str:
    """The text, cut where it is longer than so many Latin letters.

    Cost: by `most`, however long the text is.
    """
    text = text[: most + 1]  # no letter is narrower than 1
    widths = [2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text]
    if sum(widths) <= most:
        return text
    kept, used = 0, 1
    while used + widths[kept] <= most:
        used += widths[kept]
        kept += 1
    return text[:kept] + "…"


def escaped(text: str) -> str:
    """Text as markup; what XML has no way to write is U+FFFD."""
    return escape(_NOT_XML.sub("\ufffd", text))


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An SVG element; content is markup, attributes are text (`data_value` becomes data-value)."""
    listed = "".join(
        f' {key.strip("_").replace("_", "-")}="{escaped(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{listed}>{content}</{name}>" if content else f"<{name}{listed}/>"


def _attribute(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def label(text: str, x: float, y: float, *, style: str = "", anchor: str | None = None) -> str:
    """A line of text."""
    content = escaped(text)
    return tag("text", content, x=x, y=y, class_=style or None, text_anchor=anchor)


def figure(key: str, title: str, description: str, height: float, parts: Iterable[str]) -> str:
    """The whole plot, named and described for who cannot see it. key: unique in a page."""
    named = tag("title", escaped(title), id=f"{key}-title")
    described = tag("desc", escaped(description), id=f"{key}-desc")
    return tag(
        "svg",
        named + described + "".join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 {-PADDING} {WIDTH} {height + PADDING:.0f}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="plot",
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Values [low, high] over pixels [left, right]."""

    low: float
    high: float
    left: float = MARGIN
    right: float = WIDTH - MARGIN

    @classmethod
    def over(cls, values: Sequence[float], *, left: float = MARGIN) -> Self:
        """One that all these values fit on; never empty."""
        low, high = min(values), max(values)
        if low == high:
            room = max(abs(low), 1.0) / 2
            low, high = low - room, high + room
        return cls(low, high, left)

    def x(self, value: float) -> float:
        """Where a value is."""
        unit = max(abs(self.low), abs(self.high))  # differences of huge values overflow
        low, high = self.low / unit, self.high / unit
        share = (value / unit - low) / (high - low)
        return self.left + share * (self.right - self.left)

    def ticks(self) -> list[float]:
        """Three to seven round values on it."""
        span = self.high / 5 - self.low / 5
        if not (math.isfinite(span) and span > 0):
            return []
        power = 10.0 ** math.floor(math.log10(span))
        step = next((nice * power for nice in NICE if nice * power >= span), 0.0)
        if step == 0.0 or max(abs(self.low), abs(self.high)) / step > 1e6:
            return []
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{number * step:.6g}") for number in range(first, last + 1)]

    def axis(self, y: float, unit: str) -> list[str]:
        """The axis below a plot, with its unit."""
        parts = [tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="axis")]
        for value in self.ticks():
            x = self.x(value)
            parts.append(tag("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis"))
            near_edge = "start" if x < self.left + 12 else "end" if x > WIDTH - 20 else "middle"
            parts.append(label(short(value), x, y + 15, style="muted", anchor=near_edge))
        middle = (self.left + self.right) / 2
        return [*parts, label(unit, middle, y + 30, style="muted", anchor="middle")]
