"""Holding, erasing and purging, for tests: orders, times, and what is left of a record."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
from decisions import START, decision
from sqlalchemy import select

from service.disposal import (
    PURGE_GRACE,
    Destruction,
    Order,
)
from service.evidence import (
    DecisionEvent,
    ErasedError,
    EvidenceStore,
)
from service.evidence.draining import _beside
from service.evidence.tables import events
from service.uuid7 import uuid7

EXPIRY = START + timedelta(days=183)
AGES = {
    "not expired": EXPIRY - timedelta(days=1),
    "expired within grace": EXPIRY + PURGE_GRACE - timedelta(minutes=1),
    "expired past grace": EXPIRY + PURGE_GRACE + timedelta(minutes=1),
}
ORDER = Order("cli:test", "case-7", datetime.now(UTC))
ERASURE = Destruction("erasure", Order("cli:test", "request", datetime.now(UTC)))
SUBJECT = "ab" * 32


def about(subject: str, request_id: str, **changes: object) -> DecisionEvent:
    return replace(decision(request_id), subjects=orjson.dumps([subject]).decode(), **changes)  # type: ignore[arg-type]


def add_beside(store: EvidenceStore, event: DecisionEvent, **changes: object) -> object:
    """Another answer to the same request, as it is stored once it comes out of a spool."""
    later = {"event_id": uuid7(), "received_at": event.received_at + timedelta(milliseconds=5)}
    twin = replace(event, **{**later, **changes})  # type: ignore[arg-type]
    (row,), _ = store.sealer.rows([store.sealer.seal(twin)])
    (outcome,) = store.insert([_beside(row)])
    return outcome


def is_gone(store: EvidenceStore, request_id: str) -> bool:
    try:
        assert store.record("default", request_id) is not None
    except ErasedError:
        return True
    return False


def types_of(store: EvidenceStore, request_id: str) -> list[str]:
    query = select(events.c.event_type).where(events.c.request_id == request_id)
    with store.reading() as connection:
        return list(connection.scalars(query.order_by(events.c.event_id)))


def contents(store: EvidenceStore, request_id: str) -> set[tuple[str, bool]]:
    """Types of the events about a request, and whether anything is left in each."""
    query = select(events).where(events.c.request_id == request_id)
    with store.reading() as connection:
        return {
            (row.event_type, row.payload is not None or row.record_key is not None)
            for row in connection.execute(query)
        }
