"""A uniform sample of explained requests, found from the evidence alone."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Connection, Select, select, tuple_

from service.evidence.events import microseconds
from service.evidence.listing import LISTED, ListedDecision, page_of
from service.evidence.tables import events
from service.uuid7 import first_id_at

Rank = Callable[[str], bytes]
"""The place of a request ID in the order of the sample; keyed, or clients could choose it."""

Place = tuple[int, str]
_PAGE = 1000
_EXPLAINED = ("decision", "explanation")
"""Each complete explanation stands in one event: its decision, or the final that came later."""


def explained(
    connect: Callable[[], Connection],
    tenant: str,
    model: str,
    period: tuple[datetime, datetime],
    stored_by: datetime | None = None,
) -> Iterator[tuple[str, str]]:
    """Request ID and event ID of every complete explanation received in [since, until), and made
    before stored_by if that is given, as its ID says.

    In pages: one long read would keep SQLite's log from being cut meanwhile.
    """
    for event_type in _EXPLAINED:
        after: Place | None = None
        while True:
            query = _select_names(tenant, model, event_type, period, after)
            if stored_by is not None:
                query = query.where(events.c.event_id < first_id_at(stored_by))
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
