"""Payloads that are gone from an export before the tree it is proven in says why."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import orjson
from sqlalchemy import Connection, select, tuple_

from service.evidence import EvidenceStore, ProvenEvent
from service.evidence.events import idempotency_key, microseconds
from service.evidence.tables import events, log_entries
from service.ledger import EVIDENCE, proven_line
from service.verify import HIDING, Hiding, Json

Placed = Sequence[tuple[int, ProvenEvent]]
"""Events with their seqs."""


def is_lost_meanwhile(store: EvidenceStore, found: Placed, *, size: int) -> bool:
    """Of one of them a payload, or a section, is missing for a reason that has no place in the tree
    of that size, or none yet; a checkpoint that covers it will do. False also for what nothing ever
    explains: that is to be seen in the bundle.

    Raises StoreUnavailableError. Cost: a query where something is missing.
    """
    hidden = [(seq, event, orjson.loads(event.header)) for seq, event in found if _has_gap(event)]
    if not hidden:
        return False
    known = Hiding(size)
    for seq, event, header in hidden:
        known.take_payload(seq, header, proven_line(seq, event, ()), missing=1)
    later = []
    for place, fact in _facts(store, [header for _, _, header in hidden]):
        if place is not None and place < size:
            known.take_fact(place, fact)
        elif fact["event_type"] in HIDING:
            later.append(fact)
    unexplained = known.unexplained()
    for fact in later:
        known.take_fact(sys.maxsize, fact)
    is_explained_later = known.unexplained() != unexplained
    known.close()
    return is_explained_later


def _has_gap(event: ProvenEvent) -> bool:
    return event.opening is None or None in event.opening


def _facts(store: EvidenceStore, headers: Sequence[Json]) -> Iterator[tuple[int | None, Json]]:
    """What hides or frees the payloads of these requests, in the order of the log; then what has no
    place yet.
    """
    placed = (log_entries.c.event_id == events.c.event_id) & (log_entries.c.log == EVIDENCE.name)
    query = select(log_entries.c.seq, events.c.header)
    query = query.select_from(events.outerjoin(log_entries, placed))
    requests = {(each["tenant"], each["request_id"]) for each in headers}
    with store.reading() as connection:
        query = query.where(
            events.c.tenant.in_({tenant for tenant, _ in requests}),
            events.c.event_type.in_((*HIDING, "release")),
            events.c.received_us.in_(_times(connection, headers)),
            tuple_(events.c.tenant, events.c.request_id).in_(requests),
        )
        rows = connection.execute(query).all()
    for row in sorted(rows, key=lambda row: (row.seq is None, row.seq)):
        yield row.seq, orjson.loads(row.header)


def _times(connection: Connection, headers: Sequence[Json]) -> set[int]:
    """When these requests were received, which all their events tell but for what stands beside."""
    times = {microseconds(datetime.fromisoformat(each["received_at"])) for each in headers}
    beside = [
        idempotency_key(each["tenant"], each["request_id"])
        for each in headers
        if each.get("beside") is True
    ]
    if beside:
        own = select(events.c.received_us).where(events.c.idempotency_key.in_(beside))
        times |= set(connection.scalars(own))
    return times
