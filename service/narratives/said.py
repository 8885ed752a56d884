"""Pieces of text that know which numbers of the record they hold, in the order they stand in."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.narratives.numerals import plain

Document = Mapping[str, Any]
"""A parsed record."""

Key = str | int
Style = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Said:
    """A text; numbers: each numeral outside of quotation marks, as it stands there, with the JSON
    pointer of the record's number.
    """

    text: str
    numbers: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)


Piece = str | Said
NOTHING = Said("")
UNTOLD = Said("Whether there are reasons may not be shown here.")


def said(*pieces: Piece) -> Said:
    """The pieces one after the other; a str has no numeral in it but within quotation marks."""
    parts = [piece if isinstance(piece, Said) else Said(piece) for piece in pieces]
    return Said(
        "".join(part.text for part in parts),
        tuple(number for part in parts for number in part.numbers),
    )


def sentences(*pieces: Piece) -> Said:
    """Those that say anything, a space between them."""
    spaced = [part for piece in pieces if piece for part in (" ", piece)]
    return said(*spaced[1:])


def listed(pieces: Sequence[Piece]) -> Said:
    """`a`, `a and b`, `a, b and c`."""
    between = [", "] * (len(pieces) - 2) + [" and "] if len(pieces) > 1 else []
    joined: list[Piece] = []
    for place, piece in enumerate(pieces):
        joined += [between[place - 1], piece] if place else [piece]
    return said(*joined)


def quoted(text: object) -> str:
    """Text of the record, as a JSON string: its digits are no numerals."""
    return json.dumps(str(text), ensure_ascii=False)


def number(document: Document, *path: Key, style: Style = plain) -> Said:
    """The number that lies there."""
    found: Any = document
    for key in path:
        found = found[key]
    text = style(found)
    return Said(text, ((text, pointer(*path)),))


def place(*path: Key) -> Said:
    """Which entry of a list it is, counted from one: the pointer is the entry's own."""
    text = str(int(path[-1]) + 1)
    return Said(text, ((text, pointer(*path)),))


def pointer(*path: Key) -> str:
    """RFC 6901."""
    keys = (str(key).replace("~", "~0").replace("/", "~1") for key in path)
    return "".join(f"/{key}" for key in keys)
