"""What was stored of an event's payload, decrypted and put together again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import zstandard
from cryptography.exceptions import InvalidTag

from service.evidence.boxes import ENCRYPTED, StoredRow, decrypted, refs_of, unboxed
from service.evidence.errors import UnreadablePayloadError
from service.evidence.events import Parts
from service.evidence.sections import joined

PLAIN = "json"


class Section(NamedTuple):
    """A section that is left: the key its commitment in the header is under, and its text."""

    key: bytes
    text: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Unsealed:
    """What is left of a payload: None for each section that was destroyed."""

    sections: tuple[Section | None, ...]
    payload: bytes
    parts: Parts

    @property
    def record_key(self) -> bytes:
        """That of the only section; empty where there are several."""
        first = self.sections[0]
        return b"" if first is None or len(self.sections) > 1 else first.key


def unsealed(
    row: StoredRow, keys: Mapping[bytes, bytes | None], *, may_lack_keys: bool
) -> Unsealed | None:
    """What is left of a row's payload, None of one that was erased as a whole.

    Raises UnreadablePayloadError, also for a key that is missing unless may_lack_keys.
    """
    if row.encoding not in (PLAIN, ENCRYPTED):
        raise UnreadablePayloadError(f"this release cannot open the encoding {row.encoding!r}")
    if row.payload is None or row.record_key is None:
        return None
    if row.encoding == PLAIN:
        sections: tuple[Section | None, ...] = (Section(row.record_key, row.payload),)
    else:
        sections = _decrypted(row, keys)
        if not may_lack_keys:
            _check_keys(row, keys)
    first, *others = sections
    if first is None or (others and not any(others)):
        return None
    if others:
        payload, parts = joined([None if one is None else one.text for one in sections])
        return Unsealed(sections, payload, parts)
    ranges = orjson.loads(row.header)["payload"]["parts"]
    parts = {name: (start, end) for name, (start, end) in ranges.items()}
    return Unsealed(sections, first.text, parts)


def _decrypted(row: StoredRow, keys: Mapping[bytes, bytes | None]) -> tuple[Section | None, ...]:
    refs = refs_of(row)
    assert row.payload is not None
    return tuple(
        _decrypted_one(row.event_id, number, keys[ref], box) if box and ref in keys else None
        for number, (ref, box) in enumerate(zip(refs, unboxed(row.payload, len(refs)), strict=True))
    )


def _check_keys(row: StoredRow, keys: Mapping[bytes, bytes | None]) -> None:
    """What was erased has no ciphertext any more, or the store knows of it."""
    refs = refs_of(row)
    assert row.payload is not None
    for ref, box in zip(refs, unboxed(row.payload, len(refs)), strict=True):
        if box and ref not in keys:
            raise UnreadablePayloadError(
                f"key missing: that of event {row.event_id} is not in the key store, and nobody "
                "erased the record"
            )


def _decrypted_one(event_id: str, number: int, key: bytes | None, box: bytes) -> Section:
    if key is None:
        raise UnreadablePayloadError(f"key damaged: that of event {event_id} does not open")
    try:
        packed = decrypted(event_id, number, key, box)
        return Section(key, zstandard.ZstdDecompressor().decompress(packed))
    except (InvalidTag, zstandard.ZstdError):
        raise UnreadablePayloadError(
            f"the payload of event {event_id} was changed: it does not open under its key"
        ) from None
