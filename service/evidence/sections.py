"""A payload about several subjects, cut so that one of them can be erased and the others stay.

Section 0 is what the rows have in common: a line with the layout, then the payload with `null` in
every hole. A subject's section is the values of its holes, one a line, in their order, and empty
lines up to a multiple of 256 bytes: its size is told by the header, which stays. The last section,
if there is one more than subjects, is what all rows share a part in and nobody's alone: it goes
with the first subject that is erased.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import orjson

from service.evidence.errors import UnreadableSubjectsError
from service.evidence.events import Parts

HOLE = b"null"
SIZE_STEP = 256


class UncuttableError(ValueError):
    """The payload is not written as the service writes payloads; it can only be kept whole."""


class Filed(Protocol):
    """The columns of an event that tell whom it is about."""

    @property
    def event_id(self) -> str: ...
    @property
    def subjects(self) -> str | None: ...


class _Kind(Enum):
    COMMON = "says nothing about one row"
    ROWS = "an array of one value per instance"
    JOINT = "made of all rows together"


_Shape = _Kind | Mapping[str, "_Shape"]
_COMMON, _ROWS, _JOINT = _Kind

_EXPLANATION: _Shape = {
    **dict.fromkeys(
        (
            *("status", "lane", "method", "engine", "exact", "output_space", "link"),
            *("output_names", "feature_names", "background_digest", "model_evaluations"),
            *("duration_seconds", "caveat", "links"),
        ),
        _COMMON,
    ),
    "reason": _JOINT,
    **dict.fromkeys(("values", "base_values", "outputs", "standard_errors"), _ROWS),
    **dict.fromkeys(("additivity_error", "top", "seed", "reasons"), _ROWS),
    "interactions": dict.fromkeys(("values", "standard_errors"), _ROWS),
    "local_model": {
        **dict.fromkeys(("coefficients", "intercept", "r2"), _ROWS),
        **dict.fromkeys(("samples", "kernel_width", "ridge"), _COMMON),
    },
    "path": {
        **dict.fromkeys(("attributions", "completeness_gap"), _ROWS),
        **dict.fromkeys(("baseline", "steps"), _COMMON),
    },
}
_PROVENANCE: _Shape = {
    **dict.fromkeys(
        (
            *("model_digest", "artifact_digest", "schema_digest", "background_digest"),
            *("explainer_config_digest", "library_versions", "service_version", "worker"),
            *("attempt", "queue_seconds", "lane", "received_at", "completed_at", "principal"),
            "cpu_seconds",
        ),
        _COMMON,
    ),
    "seed": _ROWS,
}
_POLICY: _Shape = {
    **dict.fromkeys(("version", "asked", "u", "canary"), _COMMON),
    **dict.fromkeys(("rule", "allowed", "probability", "wants", "threshold", "reasons"), _JOINT),
    "decisions": _ROWS,
}
_PAYLOAD: _Shape = {
    "answer": {
        **dict.fromkeys(("schema_version", "request_id", "model"), _COMMON),
        "predictions": _ROWS,
        "warnings": _JOINT,
        "explanation": _EXPLANATION,
    },
    "explanation": _EXPLANATION,
    "provenance": _PROVENANCE,
    **dict.fromkeys(("instances", "fed", "outputs", "scores", "subjects"), _ROWS),
    **dict.fromkeys(("labels", "counterfactuals"), _ROWS),
    **dict.fromkeys(("fingerprint", "comment", "checks"), _JOINT),
    **dict.fromkeys(("ask", "rating"), _COMMON),
    "policy": _POLICY,
}
"""What is not named here is nobody's alone: it never gets into the common text. Nor does what any
row can change for the whole request: which rule held, why nothing was explained, what was checked,
how many warnings there were.
"""


def owners_of(subjects: str | None) -> tuple[int, ...] | None:
    """The section of each row, numbered from 1 as the subjects first appear; rows without one
    belong to a subject of their own. None where all rows have the same: nothing is to be cut.
    """
    if subjects is None:
        return None
    names = orjson.loads(subjects)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}
    return tuple(numbers[name] for name in names) if len(numbers) > 1 else None


def subjects_of(filed: Filed) -> list[str | None]:
    """The keyed subjects of an event's rows, none of one that is filed under nobody.

    Raises UnreadableSubjectsError. Cost: 1 us.
    """
    if filed.subjects is None:
        return []
    try:
        names = orjson.loads(filed.subjects)
    except orjson.JSONDecodeError:
        raise UnreadableSubjectsError(filed.event_id) from None
    if not isinstance(names, list) or not all(isinstance(name, str | None) for name in names):
        raise UnreadableSubjectsError(filed.event_id)
    return names


def is_about(filed: Filed, subject: str) -> bool:
    """An event's subjects have that one among them. Raises UnreadableSubjectsError."""
    return subject in subjects_of(filed)


def sections_about(subjects: str, subject: str, n_sections: int) -> frozenset[int]:
    """The sections to destroy to erase that subject from an event of so many."""
    owners = owners_of(subjects)
    if owners is None or n_sections == 1:
        return frozenset(range(n_sections))
    about = {
        owner for owner, name in zip(owners, orjson.loads(subjects), strict=True) if name == subject
    }
    return frozenset(about | set(range(max(owners) + 1, n_sections)) if about else about)


def cut(payload: bytes, parts: Parts, owners: Sequence[int]) -> list[bytes]:
    """The texts of the sections; owners: the section of each row, from 1.

    Raises UncuttableError unless every byte of the payload is accounted for. Cost: as of reading
    and writing it as JSON.
    """
    cutter = _Cutter(owners)
    try:
        cutter.write(orjson.loads(payload), _PAYLOAD)
    except orjson.JSONDecodeError:
        raise UncuttableError("the payload is not JSON") from None
    texts = cutter.texts(parts)
    if joined(texts) != (payload, parts):  # whatever the reason: nothing may be lost or moved
        raise UncuttableError("the payload is written in another way than this service's")
    return texts


def joined(texts: Sequence[bytes | None]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The payload and its parts of the texts `cut` gave; None, and `null` in its place, for what
    was destroyed. The first text must be there.
    """
    assert texts[0] is not None
    head, _, common = texts[0].partition(b"\n")
    layout = orjson.loads(head)
    values = [None if text is None else iter(text.split(b"\n")) for text in texts]
    pieces: list[bytes] = []
    grown, end = [0], 0
    for offset, section in layout["holes"]:
        value = _next(values[section])
        pieces += (common[end:offset], value)
        grown.append(grown[-1] + len(value) - len(HOLE))
        end = offset + len(HOLE)
    offsets = [offset for offset, _ in layout["holes"]]
    parts = {
        name: (start + grown[bisect_left(offsets, start)], stop + grown[bisect_left(offsets, stop)])
        for name, (start, stop) in layout["parts"].items()
    }
    return b"".join([*pieces, common[end:]]), parts


def _padded(text: bytes) -> bytes:
    return text + b"\n" * (-len(text) % SIZE_STEP)


def _next(values: Iterator[bytes] | None) -> bytes:
    return HOLE if values is None else next(values)


class _Cutter:
    """Writes a document again, each piece with the section it belongs to."""

    def __init__(self, owners: Sequence[int]) -> None:
        self.pieces: list[tuple[bytes, int]] = []
        self._owners = owners
        self._joint = max(owners) + 1

    def write(self, value: Any, shape: _Shape) -> None:  # noqa: ANN401 - any JSON
        if isinstance(shape, Mapping) and isinstance(value, dict):
            self._write_object(value, shape)
        elif shape is _COMMON or (value is None and shape is not _JOINT):
            self._add(orjson.dumps(value), 0)
        elif isinstance(value, list) and (owners := self._owners_of(value, shape)) is not None:
            self._write_array(value, owners)
        else:
            self._add(orjson.dumps(value), self._joint)

    def texts(self, parts: Parts) -> list[bytes]:
        """What the sections say of the pieces so far."""
        found: list[list[bytes]] = [[] for _ in range(self._joint + 1)]
        holes: list[tuple[int, int]] = []
        starts: list[int] = []
        shrunk, end, stop = [0], 0, 0
        for piece, section in self.pieces:
            found[section].append(piece)
            if section:
                holes.append((end, section))
                starts.append(stop)
                shrunk.append(shrunk[-1] + len(piece) - len(HOLE))
                found[0].append(HOLE)
            end += len(HOLE) if section else len(piece)
            stop += len(piece)

        def moved(side: int) -> int:
            before = bisect_left(starts, side)
            place = side - shrunk[before]
            if before and place < holes[before - 1][0] + len(HOLE):
                raise UncuttableError("a part begins or ends inside a row")
            return place

        shifted = {name: [*map(moved, sides)] for name, sides in parts.items()}
        texts = [orjson.dumps({"parts": shifted, "holes": holes}) + b"\n" + b"".join(found[0])]
        texts += [_padded(b"\n".join(values)) for values in found[1:]]
        return texts if found[-1] else texts[:-1]

    def _write_object(self, value: dict[str, Any], shape: Mapping[str, _Shape]) -> None:
        before = b"{"
        for name, member in value.items():
            self._add(before + orjson.dumps(name) + b":", 0)
            self.write(member, shape.get(name, _JOINT))
            before = b","
        self._add(b"}" if value else b"{}", 0)

    def _write_array(self, value: list[Any], owners: Sequence[int]) -> None:
        before = b"["
        for element, owner in zip(value, owners, strict=True):
            self._add(before, 0)
            self._add(orjson.dumps(element), owner)
            before = b","
        self._add(b"]" if value else b"[]", 0)

    def _owners_of(self, value: list[Any], shape: _Shape) -> Sequence[int] | None:
        if shape is _ROWS and len(value) == len(self._owners):
            return self._owners
        return None

    def _add(self, text: bytes, section: int) -> None:
        self.pieces.append((text, section))
