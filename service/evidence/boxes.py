"""The payload column of an encrypted event: a box of ciphertext for each section."""

import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

from service.evidence.errors import UnreadablePayloadError
from service.keystore import REF_BYTES

ENCRYPTED = "aesgcm"
_LENGTH = struct.Struct(">I")


class StoredRow(Protocol):
    """The columns of an event that reading its payload needs."""

    @property
    def event_id(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def record_key(self) -> bytes | None: ...
    @property
    def header(self) -> bytes: ...
    @property
    def payload(self) -> bytes | None: ...


def boxed(boxes: Sequence[bytes]) -> bytes:
    """The payload column of encrypted sections: their lengths, then they themselves; a destroyed
    one has none.
    """
    return b"".join([*(_LENGTH.pack(len(box)) for box in boxes), *boxes])


def unboxed(stored: bytes, n_sections: int) -> list[bytes]:
    """What `boxed` was given. Raises UnreadablePayloadError where the lengths do not add up."""
    start = _LENGTH.size * n_sections
    boxes = []
    if len(stored) >= start:
        for (length,) in _LENGTH.iter_unpack(stored[:start]):
            boxes.append(stored[start : start + length])
            start += length
    if start != len(stored):
        raise UnreadablePayloadError("an encrypted payload was cut short")
    return boxes


def without(row: StoredRow, sections: Iterable[int]) -> bytes | None:
    """The payload column without the ciphertext of these sections; None when none is left."""
    refs = refs_of(row)
    if row.payload is None or not refs:
        return None
    gone = frozenset(sections)
    boxes = unboxed(row.payload, len(refs))
    left = [b"" if number in gone else box for number, box in enumerate(boxes)]
    return boxed(left) if any(left) else None


def refs_of(row: StoredRow) -> list[bytes]:
    """The references of a row's keys, one a section; none of a row that is not encrypted."""
    if row.encoding != ENCRYPTED or row.record_key is None:
        return []
    joint = bytes(row.record_key)
    return [joint[start : start + REF_BYTES] for start in range(0, len(joint), REF_BYTES)]
