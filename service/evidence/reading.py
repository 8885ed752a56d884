"""What comes back from the evidence store: one decision, and pages of many."""

import base64
import binascii
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import Row, Select, select, tuple_

from service.evidence.errors import BadCursorError, UnreadablePayloadError
from service.evidence.events import EPOCH, Lane, Parts, Status, idempotency_key, microseconds
from service.evidence.tables import events

_CURSOR = struct.Struct(">Q16s")
_CURSOR_CHARACTERS = 32
_LAST_MICROSECOND = microseconds(datetime.max.replace(tzinfo=UTC))

_LISTED = (
    events.c.event_id,
    events.c.request_id,
    events.c.received_us,
    events.c.model,
    events.c.version,
    events.c.status,
    events.c.lane,
    events.c.header,
)


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision as it was stored: the bytes themselves and the columns they were filed under."""

    event_id: str
    tenant: str
    request_id: str
    parent_request_id: str | None
    actor: str
    subjects: str | None
    model: str
    version: int
    status: Status | None
    lane: Lane | None
    received_at: datetime
    record_key: bytes
    header: bytes
    payload: bytes
    parts: Parts

    def part(self, name: str) -> bytes:
        """The exact bytes stored under that name; KeyError if the decision has no such part."""
        start, end = self.parts[name]
        return self.payload[start:end]


@dataclass(frozen=True, slots=True)
class ListedDecision:
    """One line of a listing."""

    request_id: str
    received_at: datetime
    model: str
    version: int
    model_digest: str
    status: Status | None
    lane: Lane | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions to list: received in [since, until), all of the others by default."""

    model: str | None = None
    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERY_DECISION = DecisionFilter()


@dataclass(frozen=True, slots=True)
class Page:
    """Decisions, newest first; next_cursor is None on the last page."""

    items: tuple[ListedDecision, ...]
    next_cursor: str | None


def encode_cursor(received_us: int, event_id: str) -> str:
    """The place after that decision, opaque and safe in a URL."""
    packed = _CURSOR.pack(received_us, uuid.UUID(event_id).bytes)
    return base64.urlsafe_b64encode(packed).decode()


def decode_cursor(cursor: str) -> tuple[int, str]:
    """The (received_us, event_id) a page starts after; BadCursorError for anything not ours."""
    if len(cursor) != _CURSOR_CHARACTERS:
        raise BadCursorError("the cursor has the wrong length")
    try:
        packed = base64.b64decode(cursor, altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadCursorError("the cursor has characters it cannot have") from None
    received_us, event_bytes = _CURSOR.unpack(packed)
    event_id = uuid.UUID(bytes=event_bytes)
    if event_id.version != 7 or received_us > _LAST_MICROSECOND:
        raise BadCursorError("the cursor names no place in the listing")
    return received_us, str(event_id)


def select_decision(tenant: str, request_id: str) -> Select[tuple[object, ...]]:
    """The query for one decision, all columns."""
    return select(events).where(events.c.idempotency_key == idempotency_key(tenant, request_id))


def select_page(
    tenant: str, *, matching: DecisionFilter, limit: int, cursor: str | None
) -> Select[tuple[object, ...]]:
    """The query for one page and one row more, which tells whether another page follows."""
    wanted = [events.c.tenant == tenant, events.c.event_type == "decision"]
    if matching.model is not None:
        wanted.append(events.c.model == matching.model)
    if matching.status is not None:
        wanted.append(events.c.status == matching.status)
    if matching.since is not None:
        wanted.append(events.c.received_us >= microseconds(matching.since))
    if matching.until is not None:
        wanted.append(events.c.received_us < microseconds(matching.until))
    place = tuple_(events.c.received_us, events.c.event_id)
    if cursor is not None:
        wanted.append(place < tuple_(*decode_cursor(cursor)))
    newest_first = (events.c.received_us.desc(), events.c.event_id.desc())
    return select(*_LISTED).where(*wanted).order_by(*newest_first).limit(limit + 1)


def stored_decision(row: Row[tuple[object, ...]]) -> StoredDecision:
    """A row of `select_decision`. Raises UnreadablePayloadError for an encoding of the future."""
    if row.encoding != "json":
        raise UnreadablePayloadError(f"this release cannot open the encoding {row.encoding!r}")
    ranges = orjson.loads(row.header)["payload"]["parts"]
    return StoredDecision(
        event_id=row.event_id,
        tenant=row.tenant,
        request_id=row.request_id,
        parent_request_id=row.parent_request_id,
        actor=row.actor,
        subjects=row.subjects,
        model=row.model,
        version=row.version,
        status=row.status,
        lane=row.lane,
        received_at=EPOCH + timedelta(microseconds=row.received_us),
        record_key=row.record_key,
        header=row.header,
        payload=row.payload,
        parts={name: (start, end) for name, (start, end) in ranges.items()},
    )


def page_of(rows: Sequence[Row[tuple[object, ...]]], *, limit: int) -> Page:
    """The page of the up to limit + 1 rows that `select_page` gave."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(
        items=tuple(
            ListedDecision(
                row.request_id,
                EPOCH + timedelta(microseconds=row.received_us),
                row.model,
                row.version,
                orjson.loads(row.header)["model_digest"],
                row.status,
                row.lane,
            )
            for row in shown
        ),
        next_cursor=encode_cursor(shown[-1].received_us, shown[-1].event_id) if more else None,
    )
