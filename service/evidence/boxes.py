"""The payload column of an encrypted event: a box of ciphertext for each section."""

import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.evidence.errors import UnreadablePayloadError
from service.keyed_hash import keyed_hash
from service.keystore import REF_BYTES

ENCRYPTED = "aesgcm"
_LENGTH = struct.Struct(">I")
_NONCE = bytes(12)
_PURPOSE = b"explaind/1/aes-256-gcm/"


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


def encrypted(event_id: str, number: int, key: bytes, packed: bytes) -> bytes:
    """The box of one section."""
    bound = _bound_to(event_id, number)
    return _cipher(key, bound).encrypt(_NONCE, packed, bound)


def decrypted(event_id: str, number: int, key: bytes, box: bytes) -> bytes:
    """What `encrypted` was given. Raises InvalidTag."""
    bound = _bound_to(event_id, number)
    return _cipher(key, bound).decrypt(_NONCE, box, bound)


def _bound_to(event_id: str, number: int) -> bytes:
    return f"{event_id}/{number}".encode()


def _cipher(key: bytes, bound: bytes) -> AESGCM:
    """The record's key is what its commitment is under, so encryption has one derived from it, and
    from what is encrypted: even a key handed out twice never meets the fixed nonce again.
    """
    return AESGCM(keyed_hash(key, _PURPOSE + bound))
