"""What later events say about a decision: its current status, and what is still pending."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import orjson
from sqlalchemy import (
    JSON,
    ColumnElement,
    FromClause,
    LargeBinary,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.evidence.events import EPOCH, HeaderTemplate, microseconds
from service.evidence.tables import IS_PENDING, events

Priority = Literal["high", "low"]

_later = events.alias("later")


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A decision whose explanation is still to come, with what its job needs.

    timed_out: it has been counted as too late; was_counted: that it is wanted has been counted.
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
    trace_id: str | None
    was_counted: bool
    timed_out: bool
    header: bytes

    @property
    def template(self) -> HeaderTemplate:
        """For the headers of later events about the request."""
        return HeaderTemplate.from_header(self.header)


def key_about(filed: FromClause, event_type: str) -> ColumnElement[str]:
    """The idempotency key of the event of that type about the request that a row is about."""
    return literal(f"{event_type}/") + filed.c.tenant + literal("/") + filed.c.request_id


def _status_of(event_type: str) -> ColumnElement[str]:
    """The status of the decision's later event of that type, NULL without one.

    A scalar subquery, because it is looked up by the unique key row by row on any planner: as a
    join it may become a scan of all events.
    """
    key = key_about(events, event_type)
    found = select(_later.c.status).where(_later.c.idempotency_key == key)
    return found.correlate(events).scalar_subquery()


def current_status() -> ColumnElement[str]:
    """The status column of decisions, as it is by now."""
    by_now = func.coalesce(_status_of("explanation"), literal_column("'pending'"))
    return case(
        (events.c.payload.is_(None), literal_column("'erased'")),
        (IS_PENDING, by_now),
        else_=events.c.status,
    ).label("status")


class _HeaderJson(FunctionElement[object]):
    """A header's bytes as JSON inside the database."""

    type = JSON()
    inherit_cache = True


@compiles(_HeaderJson, "sqlite")
def _for_sqlite(element: _HeaderJson, compiler: SQLCompiler, **options: object) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"


@compiles(_HeaderJson, "postgresql")
def _for_postgresql(element: _HeaderJson, compiler: SQLCompiler, **options: object) -> str:
    return f"CAST(convert_from({compiler.process(element.clauses, **options)}, 'UTF8') AS JSON)"


_header = type_coerce(_HeaderJson(events.c.header), JSON)


def was_unasked(decisions: FromClause) -> ColumnElement[bool]:
    """Of decisions: policy had the explanation made of a prediction that came without one. So
    counts what explains another request and does not say in its header who asked, as until version
    2 of the database. Cost: reads headers of what explains another request only.
    """
    asked = type_coerce(_HeaderJson(decisions.c.header), JSON)["ask", "priority"].as_string()
    return and_(decisions.c.parent_request_id.is_not(None), func.coalesce(asked, "low") == "low")


def _ask() -> ColumnElement[bytes]:
    """The payload's part `ask` where the header does not say it, as until version 2 of the
    database; NULL without one. The payload itself may be large.
    """
    start, end = (_header["payload", "parts", "ask", side].as_integer() for side in (0, 1))
    part = func.substr(events.c.payload, start + 1, end - start, type_=LargeBinary)
    return case((events.c.encoding == literal_column("'json'"), part))


def select_pending(*, since: datetime, until: datetime, limit: int) -> Select[tuple[object, ...]]:
    """The query for decisions without their final event, received in [since, until), oldest first.

    Cost: one entry of two indexes per decision in that time that was ever pending.
    """
    received = events.c.received_us
    return (
        select(
            events.c.tenant,
            events.c.request_id,
            events.c.parent_request_id,
            events.c.model,
            events.c.version,
            received,
            events.c.header,
            _header["model_digest"].as_string().label("model_digest"),
            _ask().label("ask"),
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


def pending_of(row: Row[tuple[object, ...]]) -> PendingRequest:
    """A row of `select_pending`."""
    ask = orjson.loads(row.header).get("ask") or orjson.loads(row.ask or b"{}")
    return PendingRequest(
        tenant=row.tenant,
        request_id=row.request_id,
        parent_request_id=row.parent_request_id,
        model=row.model,
        version=row.version,
        model_digest=row.model_digest,
        received_at=EPOCH + timedelta(microseconds=row.received_us),
        priority="low" if ask.get("priority") == "low" else "high",
        method=ask.get("method"),
        trace_id=ask.get("trace_id"),
        was_counted=ask.get("is_counted", True),
        timed_out=row.outcome is not None,
        header=row.header,
    )
