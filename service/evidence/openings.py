"""Events as they are proven: the header's bytes, and what opens its commitment."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, select

from service.evidence.errors import UnreadablePayloadError
from service.evidence.events import idempotency_key
from service.evidence.tables import events

REQUEST_EVENTS = ("decision", "explanation", "outcome", "answer", "erasure", "purge")
"""Types of events about a request that there is at most one of."""


@dataclass(frozen=True, slots=True)
class Opening:
    """HMAC-SHA256 of the payload under the key is the header's commitment."""

    payload: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class ProvenEvent:
    """An event without its meaning; opening: None once it is erased."""

    event_id: str
    event_type: str
    actor: str
    header: bytes
    opening: Opening | None


_COLUMNS = tuple(
    events.c[name]
    for name in (
        *("event_id", "event_type", "actor", "header"),
        *("payload", "record_key", "encoding"),
    )
)


def select_request(tenant: str, request_id: str) -> Select[tuple[object, ...]]:
    """The query for all events about one request."""
    keys = [idempotency_key(tenant, request_id, kind) for kind in REQUEST_EVENTS]
    return select(*_COLUMNS).where(events.c.idempotency_key.in_(keys))


def select_events(event_ids: Sequence[str]) -> Select[tuple[object, ...]]:
    """The query for events by their IDs."""
    return select(*_COLUMNS).where(events.c.event_id.in_(event_ids))


def proven_event(row: Row[tuple[object, ...]]) -> ProvenEvent:
    """A row of these queries. Raises UnreadablePayloadError for an encoding of the future."""
    opening = None
    if row.payload is not None and row.record_key is not None:
        if row.encoding != "json":
            raise UnreadablePayloadError(f"this release cannot open the encoding {row.encoding!r}")
        opening = Opening(row.payload, row.record_key)
    return ProvenEvent(row.event_id, row.event_type, row.actor, row.header, opening)
