"""A decision, and the bytes that are stored of it: header, payload and the commitment between."""

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import orjson

from service.uuid7 import uuid7

Status = Literal["complete", "pending", "failed", "skipped"]
Lane = Literal["inline", "queued"]

Parts = Mapping[str, tuple[int, int]]
"""Name to (start, end) within the payload bytes; the ranges may nest and overlap."""

Row = tuple[str | int | bytes | None, ...]
"""The values of one event in the order of `tables.INSERTED_COLUMNS`."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADER_VERSION = "1"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderConstants:
    """What the headers of all decisions of one served model version have in common."""

    service_version: str
    git_revision: str | None
    policy_version: str | None
    retention_class: str
    model: str
    version: int
    model_digest: str
    artifact_digest: str
    artifact_format: str
    schema_digest: str
    feature_names_digest: str
    category_maps_digest: str | None
    trees_used: int | None
    library_versions: Mapping[str, str]
    method: str | None
    engine: str | None
    config_digest: str | None
    background_digest: str
    output_space: str
    link: str
    exact: bool | None


@dataclass(frozen=True, slots=True)
class HeaderTemplate:
    """Header constants, encoded once so that a decision only adds its own fields.

    constant: the fields of a JSON object without its opening brace.
    """

    model: str
    version: int
    retention: timedelta
    constant: bytes

    @classmethod
    def of(cls, constants: HeaderConstants, *, retention: timedelta) -> "HeaderTemplate":
        """Encode the constants of one model version; records expire `retention` after receipt."""
        return cls(constants.model, constants.version, retention, cls.encoded(constants))

    @staticmethod
    def encoded(constants: HeaderConstants) -> bytes:
        """The `constant` of a template."""
        return orjson.dumps(constants)[1:]

    def join(self, fields: Mapping[str, object]) -> bytes:
        """The header: one JSON object of the event's own fields, then the constant ones."""
        own = orjson.dumps(fields, option=orjson.OPT_UTC_Z)
        return own[:-1] + b"," + self.constant


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DecisionEvent:
    """One answered prediction, explained or not, as it is to be stored.

    payload: a JSON object, encoded once; parts: where in it the pieces are that are served later.
    status, lane: of the explanation; None when none was asked for.
    subjects: JSON text of keyed subject names, one per instance.
    Raises ValueError for a part outside the payload or a time that is not in `datetime.UTC`.
    """

    template: HeaderTemplate
    request_id: str
    received_at: datetime
    completed_at: datetime
    status: Status | None
    lane: Lane | None
    payload: bytes
    parts: Parts
    tenant: str = "default"
    actor: str = "local"
    auth_method: str = "none"
    parent_request_id: str | None = None
    subjects: str | None = None
    event_id: str = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        if self.received_at.tzinfo is not UTC or self.completed_at.tzinfo is not UTC:
            raise ValueError("received_at and completed_at must be in datetime.UTC")
        size = len(self.payload)
        for name, (start, end) in self.parts.items():
            if not 0 <= start < end <= size:
                raise ValueError(f"part {name}: ({start}, {end}) is not within {size} bytes")


def laid_out(
    pieces: Sequence[bytes], names: Sequence[str], *, start: int = 0
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Bytes of pieces that are fixed and named in turn, and where the named ones lie.

    start: where these bytes will begin in those the ranges are of. Raises ValueError unless there
    is one fixed piece more than names.
    """
    if len(pieces) != 2 * len(names) + 1:
        raise ValueError(f"{len(pieces)} pieces around {len(names)} names")
    ranges, end, i = {}, start, 0
    for name in names:
        begin = end + len(pieces[i])
        end = begin + len(pieces[i + 1])
        ranges[name] = (begin, end)
        i += 2
    return b"".join(pieces), ranges


def commitment(record_key: bytes, payload: bytes) -> str:
    """HMAC-SHA256 of the payload's JSON under the record's own key, in hexadecimal."""
    return hmac.digest(record_key, payload, "sha256").hex()


def idempotency_key(tenant: str, request_id: str) -> str:
    """What makes a decision unique; a request ID holds no slash, so no two pairs share a key."""
    return f"decision/{tenant}/{request_id}"


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (moment - EPOCH) // _MICROSECOND


def header_of(event: DecisionEvent, *, record_key: bytes) -> bytes:
    """The header bytes: no personal data, and the commitment that binds the payload."""
    return event.template.join(
        {
            "schema_version": HEADER_VERSION,
            "event_id": event.event_id,
            "event_type": "decision",
            "request_id": event.request_id,
            "parent_request_id": event.parent_request_id,
            "tenant": event.tenant,
            "actor": event.actor,
            "auth_method": event.auth_method,
            "received_at": event.received_at,
            "completed_at": event.completed_at,
            "clock_skewed": event.completed_at < event.received_at,
            "expires_at": event.received_at + event.template.retention,
            "status": event.status,
            "lane": event.lane,
            "payload": {
                "commitment": commitment(record_key, event.payload),
                "size": len(event.payload),
                "parts": event.parts,
            },
        }
    )


def seal(event: DecisionEvent) -> Row:
    """Give the event its record key and header: the row to insert. Cost: about 10 us."""
    record_key = os.urandom(32)
    return (
        event.event_id,
        idempotency_key(event.tenant, event.request_id),
        "decision",
        event.tenant,
        event.request_id,
        event.parent_request_id,
        event.actor,
        event.subjects,
        event.template.model,
        event.template.version,
        event.status,
        event.lane,
        microseconds(event.received_at),
        record_key,
        "json",
        header_of(event, record_key=record_key),
        event.payload,
    )
