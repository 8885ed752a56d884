"""Pages of decisions, newest first, each with the status it has by now."""

import base64
import binascii
import struct
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import orjson
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    not_,
    or_,
    select,
    tuple_,
    union_all,
)

from service.evidence.errors import BadCursorError
from service.evidence.events import EPOCH, FinalStatus, Lane, Status, microseconds
from service.evidence.following import current_status, key_about, was_unasked
from service.evidence.tables import IS_ERASED, events

_CURSOR = struct.Struct(">Q16s")
_CURSOR_CHARACTERS = 32
_LAST_MICROSECOND = microseconds(datetime.max.replace(tzinfo=UTC))

LISTED = (
    events.c.event_id,
    events.c.request_id,
    events.c.received_us,
    events.c.model,
    events.c.version,
    events.c.lane,
    events.c.header,
)
_NEWEST_FIRST = (events.c.received_us.desc(), events.c.event_id.desc())
_finals = events.alias("finals")


ListedStatus = Status | Literal["erased"]


@dataclass(frozen=True, slots=True)
class ListedDecision:
    """One line of a listing."""

    request_id: str
    received_at: datetime
    model: str
    version: int
    model_digest: str
    status: ListedStatus | None  # by now
    lane: Lane | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions to list: received in [since, until), all of the others by default.

    status: the one they have by now; parent: the request they explain again. unasked_of: the only
    models whose explanations that nobody asked for are listed, None for all.
    """

    model: str | None = None
    parent: str | None = None
    status: ListedStatus | None = None
    since: datetime | None = None
    until: datetime | None = None
    unasked_of: Collection[str] | None = None


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


def select_page(
    tenant: str, *, matching: DecisionFilter, limit: int, cursor: str | None
) -> Select[tuple[object, ...]]:
    """The query for one page and one row more, which tells whether another page follows."""
    place = None if cursor is None else decode_cursor(cursor)
    status = matching.status
    shown: Select[tuple[object, ...]] = select(*LISTED, current_status())
    page = _narrowed(shown, events, tenant, matching, place)
    if status == "erased":
        page = page.where(IS_ERASED)
    elif status == "pending":
        page = page.where(current_status() == status)
    elif status is not None:
        page = page.where(events.c.status == status, events.c.payload.is_not(None))
    page = page.where(events.c.event_type == "decision").order_by(*_NEWEST_FIRST).limit(limit + 1)
    if status not in get_args(FinalStatus):
        return page
    either = union_all(
        select(page.subquery()),
        select(_ended(tenant, matching, place).limit(limit + 1).subquery()),
    ).subquery()
    newest_first = either.c.received_us.desc(), either.c.event_id.desc()
    return select(either).order_by(*newest_first).limit(limit + 1)


def _ended(
    tenant: str, matching: DecisionFilter, place: tuple[int, str] | None
) -> Select[tuple[object, ...]]:
    """The decisions that got this status later, found by their finals: looking each decision's
    final up instead would take a second per 200,000 that ended otherwise.
    """
    decision = key_about(_finals, "decision")
    listed: Select[tuple[object, ...]] = select(*LISTED, _finals.c.status)
    joined = listed.join(_finals, events.c.idempotency_key == decision)
    ended = _narrowed(joined, _finals, tenant, matching, place).where(
        _finals.c.event_type == "explanation",
        _finals.c.status == matching.status,
        events.c.payload.is_not(None),
    )
    if place is not None:  # of the final's own columns, for the index
        ended = ended.where(_finals.c.received_us <= place[0])
    return ended.order_by(_finals.c.received_us.desc(), events.c.event_id.desc())


def _narrowed(
    page: Select[tuple[object, ...]],
    filed: FromClause,
    tenant: str,
    matching: DecisionFilter,
    place: tuple[int, str] | None,
) -> Select[tuple[object, ...]]:
    """The rows that match by what a decision and its final are both filed under."""
    wanted: list[ColumnElement[bool]] = [filed.c.tenant == tenant]
    if matching.model is not None:
        wanted.append(filed.c.model == matching.model)
    if matching.parent is not None:
        wanted.append(filed.c.parent_request_id == matching.parent)
    if matching.since is not None:
        wanted.append(filed.c.received_us >= microseconds(matching.since))
    if matching.until is not None:
        wanted.append(filed.c.received_us < microseconds(matching.until))
    if matching.unasked_of is not None:
        is_told = events.c.model.in_(matching.unasked_of)
        wanted.append(or_(is_told, not_(was_unasked(events))))
    if place is not None:
        wanted.append(tuple_(events.c.received_us, events.c.event_id) < tuple_(*place))
    return page.where(*wanted)


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
