"""What a plot says: the numbers in its marks, and where they stand."""

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree as ET

NAMESPACE = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"[+\N{MINUS SIGN}]?\d+(?:\.\d+)?(?:e[+\N{MINUS SIGN}]?\d+)?$")


class Mark(NamedTuple):
    """A bar or an end of a plot. shown: the number beside it; span: its leftmost and rightmost x.

    points: of its outline, in order.
    """

    name: str
    value: float
    shown: str
    span: tuple[float, float]
    points: list[tuple[float, float]]
    style: str


def parsed(svg: str) -> ET.Element:
    """The plot as XML; anything that is not well formed raises."""
    return ET.fromstring(svg)  # noqa: S314 (our own)


def marks(svg: str) -> list[Mark]:
    """Of a waterfall, a force plot or bars, in the order they are drawn."""
    return [
        _mark(group) for group in parsed(svg).iter(f"{NAMESPACE}g") if "data-value" in group.attrib
    ]


def _mark(group: ET.Element) -> Mark:
    own = group.attrib
    name = own.get("data-feature") or own.get("data-rest") or own.get("data-end") or ""
    texts = ["".join(text.itertext()) for text in group.iter(f"{NAMESPACE}text")]
    shown = next((text for text in reversed(texts) if NUMBER.search(text)), "")
    shape = next(_shapes(group))
    points = _points(shape)
    xs = [x for x, _ in points]
    return Mark(
        name, float(own["data-value"]), shown, (min(xs), max(xs)), points, shape.get("class", "")
    )


def _shapes(group: ET.Element) -> Iterator[ET.Element]:
    for kind in ("polygon", "rect", "polyline", "line"):
        yield from group.iter(NAMESPACE + kind)


def _points(shape: ET.Element) -> list[tuple[float, float]]:
    if "points" in shape.attrib:
        pairs = (pair.split(",") for pair in shape.attrib["points"].split())
        return [(float(x), float(y)) for x, y in pairs]
    if "width" in shape.attrib:
        x, y = float(shape.attrib["x"]), float(shape.attrib["y"])
        return [(x, y), (x + float(shape.attrib["width"]), y)]
    return [(float(shape.attrib[f"x{n}"]), float(shape.attrib[f"y{n}"])) for n in (1, 2)]


def number(text: str) -> float:
    """A number as plots write it, at the end of a text."""
    found = NUMBER.search(text)
    assert found is not None, text
    return float(found[0].replace("\N{MINUS SIGN}", "-"))


def lines(svg: str) -> dict[str, tuple[float, float, dict[str, float]]]:
    """Of a decision plot: each output's base value, score and contributions by row."""
    return {
        group.attrib["data-output"]: (
            float(group.attrib["data-base"]),
            float(group.attrib["data-value"]),
            {
                dot.attrib["data-feature"]: float(dot.attrib["data-value"])
                for dot in group.iter(f"{NAMESPACE}circle")
                if "data-feature" in dot.attrib
            },
        )
        for group in parsed(svg).iter(f"{NAMESPACE}g")
        if "data-output" in group.attrib
    }
