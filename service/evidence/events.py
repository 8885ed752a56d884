"""Events, and the bytes that are stored of them: header, payload and the commitment between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Protocol, Self

import orjson

from service.keyed_hash import keyed_hash
from service.uuid7 import random_bytes, uuid7

Status = Literal["complete", "pending", "failed", "skipped"]
Lane = Literal["inline", "queued"]
FinalStatus = Literal["complete", "failed"]
Ending = Literal["stored", "failed", "rejected", "dead"]
"""How the wish for a queued explanation ended, as coverage counts it."""

Answered = Literal["final", "pending"]
"""What the first answer to the client carried of a queued explanation."""

Parts = Mapping[str, tuple[int, int]]
"""Name to (start, end) within the payload bytes; the ranges may nest and overlap."""

Row = tuple[str | int | bytes | None, ...]
"""The values of one event in the order of `tables.INSERTED_COLUMNS`."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADER_VERSION = "1"
_ASKED = ("priority", "method", "is_counted", "trace_id")
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
    def of(cls, constants: HeaderConstants, *, retention: timedelta) -> Self:
        """Encode the constants of one model version; records expire `retention` after receipt."""
        return cls.of_json(orjson.dumps(constants), retention=retention)

    @classmethod
    def of_json(cls, constants: bytes, *, retention: timedelta) -> Self:
        """That of HeaderConstants encoded by orjson, perhaps in another process."""
        found = orjson.loads(constants)
        return cls(found["model"], found["version"], retention, constants[1:])

    @classmethod
    def from_header(cls, header: bytes, **changes: str | bool | None) -> Self:
        """That of an event stored before, but for some constants: for a later one about the same
        request, by who need not have its model. Cost: 10 us.
        """
        found = orjson.loads(header)
        expires_at, received_at = (
            datetime.fromisoformat(found[name]) for name in ("expires_at", "received_at")
        )
        constants = {name: found[name] for name in _CONSTANT} | changes
        return cls.of_json(orjson.dumps(constants), retention=expires_at - received_at)

    @property
    def brief(self) -> bytes:
        """The constants a note needs, about a request whose other events have them all."""
        found = orjson.loads(b"{" + self.constant)
        return orjson.dumps({name: found[name] for name in _BRIEF if name in found})[1:]

    def join(self, own: Mapping[str, object], *, is_brief: bool) -> bytes:
        """The header: one JSON object of the event's own fields, then the constant ones."""
        encoded = orjson.dumps(own, option=orjson.OPT_UTC_Z)
        return encoded[:-1] + b"," + (self.brief if is_brief else self.constant)


_CONSTANT = tuple(constant.name for constant in fields(HeaderConstants))
_BRIEF = (
    "service_version",
    "git_revision",
    "policy_version",
    "retention_class",
    "model",
    "version",
    "model_digest",
)


class KnownRequest(Protocol):
    """What a later event needs to know of the request it is about."""

    @property
    def template(self) -> HeaderTemplate: ...
    @property
    def tenant(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def received_at(self) -> datetime: ...
    @property
    def parent_request_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Event:
    """What all events have in common; those stored are of the classes below.

    received_at: of the request, whatever the event says about it.
    payload: a JSON object, encoded once; parts: where in it the pieces are that are served later.
    subjects: JSON text of keyed subject names, one per instance.
    Raises ValueError for a part outside the payload or a time that is not in `datetime.UTC`.
    """

    event_type: ClassVar[str]
    has_brief_header: ClassVar[bool] = False

    template: HeaderTemplate
    request_id: str
    received_at: datetime
    completed_at: datetime
    status: str | None
    lane: Lane | None
    payload: bytes
    parts: Parts
    tenant: str = "default"
    actor: str = "local"
    auth_method: str = "none"
    parent_request_id: str | None = None
    subjects: str | None = None
    event_id: str = field(default_factory=uuid7)

    @property
    def unique_key(self) -> str:
        """The store takes one event of each: one of a kind about a request."""
        return idempotency_key(self.tenant, self.request_id, self.event_type)

    def __post_init__(self) -> None:
        if self.received_at.tzinfo is not UTC or self.completed_at.tzinfo is not UTC:
            raise ValueError("received_at and completed_at must be in datetime.UTC")
        size = len(self.payload)
        for name, (start, end) in self.parts.items():
            if not 0 <= start < end <= size:
                raise ValueError(f"part {name}: ({start}, {end}) is not within {size} bytes")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DecisionEvent(Event):
    """One answered prediction, explained or not.

    status, lane: of the explanation; None when none was asked for. A queued one is `pending` for
    good: what became of it is a later event.
    """

    event_type: ClassVar[str] = "decision"

    status: Status | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ShadowEvent(Event):
    """What another version would have answered to a decided request: no decision of anybody's. It
    shares the request's fate: expiry, holds, erasure.
    """

    event_type: ClassVar[str] = "shadow"

    @classmethod
    def of(cls, event: DecisionEvent) -> Self:
        """What the other version made of the request, as if it had decided."""
        made = {each.name: getattr(event, each.name) for each in fields(event)}
        return cls(**made | {"actor": "service:shadow"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FinalEvent(Event):
    """The explanation of a decision that was stored as `pending`; the store takes only one.

    received_at: the decision's, because listings find both by it. payload: with the parts
    `explanation` and `provenance`. template: of what computed it, so that a method other than the
    version's own stands in the header. outcome: stored with it as an event of its own, unless the
    request was counted before.
    """

    event_type: ClassVar[str] = "explanation"

    status: FinalStatus
    lane: Lane | None = "queued"
    outcome: Ending
    outcome_event_id: str = field(default_factory=uuid7)

    def counted(self) -> "OutcomeEvent":
        """The outcome's event, the same at each call."""
        return OutcomeEvent.about(
            self,
            self.outcome,
            actor=self.actor,
            completed_at=self.completed_at,
            event_id=self.outcome_event_id,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NoteEvent(Event):
    """One fact about a request, without content of its own."""

    has_brief_header: ClassVar[bool] = True

    lane: Lane | None = None
    payload: bytes = b"{}"
    parts: Parts = field(default_factory=dict)

    @classmethod
    def about(
        cls,
        request: KnownRequest,
        status: str | None,
        *,
        actor: str,
        completed_at: datetime,
        event_id: str | None = None,
    ) -> Self:
        """The fact as an event that is true since completed_at."""
        return cls(
            template=request.template,
            request_id=request.request_id,
            received_at=request.received_at,
            completed_at=completed_at,
            status=status,
            tenant=request.tenant,
            actor=actor,
            parent_request_id=request.parent_request_id,
            event_id=event_id or uuid7(),
        )


class OutcomeEvent(NoteEvent):
    """How the wish for an explanation ended: an Ending, or `timeout` while it is pending."""

    __slots__ = ()
    event_type: ClassVar[str] = "outcome"


class AnswerEvent(NoteEvent):
    """What the first answer to the client carried: status None for the final explanation, else
    `pending`.
    """

    __slots__ = ()
    event_type: ClassVar[str] = "answer"


def laid_out(
    pieces: Sequence[bytes], names: Sequence[str], *, start: int = 0
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Bytes of pieces that are fixed and named in turn, and where the named ones lie.

    start: where these bytes will begin in those the ranges are of. Raises ValueError unless there
    is one fixed piece more than names.
    """
    if len(pieces) != 2 * len(names) + 1:
        raise ValueError(f"{len(pieces)} pieces around {len(names)} names")
    ranges: dict[str, tuple[int, int]] = {}
    for name, fixed, named in zip(names, pieces[::2], pieces[1::2], strict=False):
        begin = start + len(fixed)
        start = begin + len(named)
        ranges[name] = (begin, start)
    return b"".join(pieces), ranges


def final_payload(
    explanation: bytes, provenance: bytes, checks: bytes | None = None
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Payload and parts of a FinalEvent, of its encoded pieces.

    checks: what the invariants said; None where nothing was computed.
    """
    pieces = [b'{"explanation":', explanation, b',"provenance":', provenance, b"}"]
    names = ["explanation", "provenance"]
    if checks is not None:
        pieces[-1:] = (b',"checks":', checks, b"}")
        names.append("checks")
    return laid_out(pieces, names)


def commitment(record_key: bytes, payload: bytes) -> str:
    """HMAC-SHA256 of the payload's JSON under the record's own key, in hexadecimal."""
    return keyed_hash(record_key, payload).hex()


def idempotency_key(tenant: str, request_id: str, event_type: str = "decision") -> str:
    """What makes an event unique; a request ID holds no slash, so no two pairs share a key."""
    return f"{event_type}/{tenant}/{request_id}"


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (moment - EPOCH) // _MICROSECOND


def whole_payload(event: Event, record_key: bytes) -> dict[str, object]:
    """What the header says of a payload in one section."""
    return {
        "commitment": commitment(record_key, event.payload),
        "size": len(event.payload),
        "parts": event.parts,
    }


def header_of(event: Event, *, record_key: bytes) -> bytes:
    """The header bytes: no personal data, and the commitment that binds the payload."""
    return header_about(event, whole_payload(event, record_key))


def header_about(event: Event, payload: Mapping[str, object]) -> bytes:
    """The header bytes of an event with what is to be said of its payload."""
    own: dict[str, object] = {
        "schema_version": HEADER_VERSION,
        "event_id": event.event_id,
        "event_type": event.event_type,
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
        "payload": payload,
    }
    if "ask" in event.parts:  # for the outbox, which opens no payloads
        asked = orjson.loads(event.payload[slice(*event.parts["ask"])])
        own["ask"] = {name: asked[name] for name in _ASKED if name in asked}
    return event.template.join(own, is_brief=event.has_brief_header)


def row_of(event: Event, record_key: bytes, encoding: str, header: bytes, payload: bytes) -> Row:
    """The row to insert."""
    return (
        event.event_id,
        event.unique_key,
        event.event_type,
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
        microseconds(event.received_at + event.template.retention),
        record_key,
        encoding,
        header,
        payload,
    )


def seal(event: Event) -> Row:
    """The row of an event that stays JSON, beside the key of its commitment. Cost: about 10 us."""
    record_key = random_bytes(32)
    header = header_of(event, record_key=record_key)
    return row_of(event, record_key, "json", header, event.payload)
