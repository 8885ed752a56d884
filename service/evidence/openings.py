"""What opens stored payloads, for whoever shows that they are those the headers commit to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Row

from service.evidence.errors import UnreadablePayloadError


@dataclass(frozen=True, slots=True)
class Section:
    """A text and the key under which the header commits to it."""

    key: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """A payload's sections, None for those that were destroyed.

    is_cut: it is one about several subjects, each with a section of its own.
    """

    sections: tuple[Section | None, ...]
    is_cut: bool = False


Open = Callable[[Sequence[Row[tuple[object, ...]]]], list[Opening]]
"""The openings of rows of `tables.events`, in their order; UnreadablePayloadError for one that
cannot be read."""


def openings(rows: Sequence[Row[tuple[object, ...]]]) -> list[Opening]:
    """Of payloads whose keys stand beside them."""
    return [Opening((_section(row),)) for row in rows]


def _section(row: Row[tuple[object, ...]]) -> Section | None:
    if row.payload is None:
        return None
    if row.encoding != "json" or row.record_key is None:
        raise UnreadablePayloadError(f"this release cannot open the encoding {row.encoding!r}")
    return Section(row.record_key, row.payload)
