"""Two JSON documents that should be the same: where they differ, and by how much."""

from collections.abc import Iterator
from typing import NamedTuple

import orjson

MOST_OTHERS = 10
NAMES = ("feature", "output")
"""What the entries of a ranking are about: numbers of two columns or outputs have no gap."""


class Gap(NamedTuple):
    """How far two numbers at one place lie apart; relative: to the larger of them."""

    pointer: str
    absolute: float
    relative: float


class Comparison(NamedTuple):
    """What became of a document.

    largest_gap: of all numbers that are no integers, by its absolute size. others: pointers to the
    first places that differ otherwise: text, integers, lengths, null on one side; "", the whole
    document, where it says the same in other bytes.
    """

    equal: bool
    largest_gap: Gap | None
    others: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As reports have it."""
        gap = None if self.largest_gap is None else self.largest_gap._asdict()
        return {"equal": self.equal, "largest_gap": gap, "others": self.others}


WRITTEN_OTHERWISE = Comparison(equal=False, largest_gap=None, others=("",))
"""The same numbers and texts in other bytes."""


def compare(recorded: bytes, running: bytes) -> Comparison:
    """Equal means the same bytes; what differs is looked for only where they are not."""
    if recorded == running:
        return Comparison(equal=True, largest_gap=None, others=())
    largest: Gap | None = None
    others: list[str] = []
    for pointer, gap in _differences(orjson.loads(recorded), orjson.loads(running), ""):
        if gap is None:
            others.append(pointer)
        elif largest is None or gap.absolute > largest.absolute:
            largest = gap
    if largest is None and not others:
        return WRITTEN_OTHERWISE
    return Comparison(equal=False, largest_gap=largest, others=tuple(others[:MOST_OTHERS]))


def _differences(one: object, other: object, pointer: str) -> Iterator[tuple[str, Gap | None]]:
    """Every place that differs, with its gap where both have a number that is no integer."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in _renamed(one, other) or sorted(one.keys() | other.keys()):
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if name in one and name in other:
                yield from _differences(one[name], other[name], place)
            else:
                yield place, None
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{pointer}/{i}")
    elif repr(one) != repr(other):
        yield pointer, _gap(one, other, pointer)


def _renamed(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Which names say that the two are about different things."""
    return [
        name for name in NAMES if isinstance(one.get(name), str) and one[name] != other.get(name)
    ]


def _gap(one: object, other: object, pointer: str) -> Gap | None:
    if not (isinstance(one, float) and isinstance(other, float)):
        return None
    absolute, size = abs(one - other), max(abs(one), abs(other))
    return Gap(pointer, absolute, absolute / size if size else 0.0)
