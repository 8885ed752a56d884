"""A uniform sample of explained requests, found from the evidence alone."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    exists,
    not_,
    or_,
    select,
    tuple_,
)

from service.evidence.events import microseconds
from service.evidence.following import key_about, was_unasked
from service.evidence.listing import LISTED, ListedDecision, page_of
from service.evidence.tables import events
from service.uuid7 import first_id_at

Rank = Callable[[str], bytes]
"""The place of a request ID in the order of the sample; keyed, or clients could choose it."""

Place = tuple[int, str]
_PAGE = 1000
_decisions = events.alias("decisions")
_EXPLAINED = ("decision", "explanation")
"""Each complete explanation stands in one event: its decision, or the final that came later."""


@dataclass(frozen=True, slots=True)
class Among:
    """Which explanations of a time a sample is drawn from. stored_by: those made before it, as
    their IDs say. with_unasked: also those that policy had made of predictions that came without.
    """

    stored_by: datetime | None = None
    with_unasked: bool = True


ALL_EXPLAINED = Among()


def explained(
    connect: Callable[[], Connection],
    tenant: str,
    model: str,
    period: tuple[datetime, datetime],
    among: Among = ALL_EXPLAINED,
) -> Iterator[tuple[str, str]]:
    """Request ID and event ID of every complete explanation received in [since, until).

    In pages: one long read would keep SQLite's log from being cut meanwhile.
    """
    for event_type in _EXPLAINED:
        after: Place | None = None
        while True:
            query = _select_names(tenant, model, event_type, period, after)
            if among.stored_by is not None:
                query = query.where(events.c.event_id < first_id_at(among.stored_by))
            if not among.with_unasked:
                query = query.where(_was_asked())
            with connect() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield row.request_id, row.event_id
                after = row.received_us, row.event_id
            if len(rows) < _PAGE:
                break


def lowest(found: Iterator[tuple[str, str]], *, size: int, rank: Rank) -> list[str]:
    """The event IDs of the `size` lowest ranks, lowest first."""
    ranked = ((rank(request_id), event_id) for request_id, event_id in found)
    return [event_id for _, event_id in heapq.nsmallest(size, ranked)]


def listed(connection: Connection, event_ids: Sequence[str]) -> list[ListedDecision]:
    """What a listing shows of these events, in their order."""
    shown: Select[tuple[object, ...]] = select(*LISTED, events.c.status)
    items: dict[str, ListedDecision] = {}
    for start in range(0, len(event_ids), _PAGE):
        some = event_ids[start : start + _PAGE]
        rows = connection.execute(shown.where(events.c.event_id.in_(some))).all()
        page = page_of(rows, limit=len(some))
        items.update(zip((row.event_id for row in rows), page.items, strict=True))
    return [items[event_id] for event_id in event_ids]


def _was_asked() -> ColumnElement[bool]:
    """The decision says so: what came later does not."""
    key = key_about(events, "decision")
    asked = exists().where(_decisions.c.idempotency_key == key, not_(was_unasked(_decisions)))
    return or_(events.c.parent_request_id.is_(None), asked.correlate(events))


def _select_names(
    tenant: str,
    model: str,
    event_type: str,
    period: tuple[datetime, datetime],
    after: Place | None,
) -> Select[tuple[object, ...]]:
    since, until = map(microseconds, period)
    names: Select[tuple[object, ...]] = select(
        events.c.received_us, events.c.event_id, events.c.request_id
    )
    query = names.where(
        events.c.tenant == tenant,
        events.c.event_type == event_type,
        events.c.model == model,
        events.c.status == "complete",
        events.c.payload.is_not(None),
        events.c.received_us >= since,
        events.c.received_us < until,
    )
    if after is not None:
        query = query.where(tuple_(events.c.received_us, events.c.event_id) > tuple_(*after))
    return query.order_by(events.c.received_us, events.c.event_id).limit(_PAGE)
