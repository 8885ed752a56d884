"""What later events say about a decision: its current status, and what is still pending."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
    LargeBinary,
    Row,
    Select,
    Text,
    case,
    column,
    func,
    literal,
    literal_column,
    select,
    values,
)

from service.evidence.events import EPOCH, HeaderTemplate, microseconds
from service.evidence.tables import IS_PENDING, events

Priority = Literal["high", "low"]

_later = events.alias("later")


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A decision whose explanation is still to come, with what its job needs.

    timed_out: it has been counted as too late.
    """

    tenant: str
    request_id: str
    parent_request_id: str | None
    model: str
    version: int
    model_digest: str
    received_at: datetime
    priority: Priority
    method: str | None
    timed_out: bool
    template: HeaderTemplate


def _status_of(event_type: str) -> ColumnElement[str]:
    """The status of the decision's later event of that type, NULL without one.

    A scalar subquery, because it is looked up by the unique key row by row on any planner: as a
    join it may become a scan of all events.
    """
    key = literal(f"{event_type}/") + events.c.tenant + literal("/") + events.c.request_id
    found = select(_later.c.status).where(_later.c.idempotency_key == key)
    return found.correlate(events).scalar_subquery()


def current_status() -> ColumnElement[str]:
    """The status column of decisions, as it is by now."""
    by_now = func.coalesce(_status_of("explanation"), literal_column("'pending'"))
    return case((IS_PENDING, by_now), else_=events.c.status).label("status")


def select_pending(*, since: datetime, until: datetime, limit: int) -> Select[tuple[object, ...]]:
    """The query for decisions without their final event, received in [since, until), oldest first.

    Cost: one entry of two indexes per decision in that time that was ever pending.
    """
    received = events.c.received_us
    return (
        select(
            events.c.event_id,
            events.c.tenant,
            events.c.request_id,
            events.c.parent_request_id,
            events.c.model,
            events.c.version,
            received,
            events.c.header,
            _status_of("outcome").label("outcome"),
        )
        .where(
            IS_PENDING,
            received >= microseconds(since),
            received < microseconds(until),
            _status_of("explanation").is_(None),
        )
        .order_by(received)
        .limit(limit)
    )


def select_asks(rows: Sequence[Row[tuple[object, ...]]]) -> Select[tuple[object, ...]] | None:
    """The query for event IDs and `ask` parts of `select_pending`' rows, None if none has one.

    Cut out of the payloads by the database: those may be large, and only this piece is needed.
    """
    places = []
    for row in rows:
        place = orjson.loads(row.header)["payload"]["parts"].get("ask")
        if place is not None:
            start, end = place
            places.append((row.event_id, start + 1, end - start))
    if not places:
        return None
    names = column("event_id", Text), column("start", Integer), column("size", Integer)
    cuts = values(*names, name="cuts").data(places).cte("cuts")
    piece = func.substr(events.c.payload, cuts.c.start, cuts.c.size, type_=LargeBinary).label("ask")
    return select(events.c.event_id, piece).join(cuts, cuts.c.event_id == events.c.event_id)


def pending_of(
    rows: Sequence[Row[tuple[object, ...]]], asks: Sequence[Row[tuple[object, ...]]]
) -> list[PendingRequest]:
    """The rows of `select_pending` with those of `select_asks`."""
    asked = {row.event_id: orjson.loads(row.ask) for row in asks}
    return [_pending(row, asked.get(row.event_id, {})) for row in rows]


def _pending(row: Row[tuple[object, ...]], ask: dict[str, object]) -> PendingRequest:
    method = ask.get("method")
    return PendingRequest(
        tenant=row.tenant,
        request_id=row.request_id,
        parent_request_id=row.parent_request_id,
        model=row.model,
        version=row.version,
        model_digest=orjson.loads(row.header)["model_digest"],
        received_at=EPOCH + timedelta(microseconds=row.received_us),
        priority="low" if ask.get("priority") == "low" else "high",
        method=None if method is None else str(method),
        timed_out=row.outcome is not None,
        template=HeaderTemplate.from_header(row.header),
    )
