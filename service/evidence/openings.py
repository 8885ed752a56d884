"""Events as they are proven: the header's bytes, and what opens its commitment."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, exists, literal_column, select

from service.evidence.events import idempotency_key
from service.evidence.reading import erased_in
from service.evidence.sealing import Sealer, Section
from service.evidence.tables import SOMETHING_ERASED, events, holds

REQUEST_EVENTS = ("decision", "explanation", "outcome", "answer", "erasure", "purge")
"""Types of events about a request that there is at most one of."""


Opening = Sequence[Section | None]
"""The sections of a payload, None for each that was erased. HMAC-SHA256 of a section's text under
its key is its commitment in the header."""


@dataclass(frozen=True, slots=True)
class ProvenEvent:
    """An event without its meaning; opening: None without a payload, once all of it is erased, and
    in quarantine.
    """

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


_IN_QUARANTINE = (
    exists()
    .where(
        holds.c.tenant == events.c.tenant,
        holds.c.request_id == events.c.request_id,
        holds.c.kind == literal_column("'quarantine'"),
    )
    .label("in_quarantine")
)


def select_request(tenant: str, request_id: str) -> Select[tuple[object, ...]]:
    """The query for the events that there is one of about a request; a second answer that stands
    beside its record, and a shadow, are not among them: only an export has those.
    """
    keys = [idempotency_key(tenant, request_id, kind) for kind in REQUEST_EVENTS]
    return select(*_COLUMNS, SOMETHING_ERASED, _IN_QUARANTINE).where(
        events.c.idempotency_key.in_(keys)
    )


def select_events(event_ids: Sequence[str]) -> Select[tuple[object, ...]]:
    """The query for events by their IDs."""
    return select(*_COLUMNS, SOMETHING_ERASED, _IN_QUARANTINE).where(
        events.c.event_id.in_(event_ids)
    )


def proven_events(rows: Sequence[Row[tuple[object, ...]]], sealer: Sealer) -> list[ProvenEvent]:
    """The rows of these queries; those in quarantine are proven, and not opened.

    Raises StoreUnavailableError, and UnreadablePayloadError for payloads that cannot be opened.
    """
    return [
        ProvenEvent(
            row.event_id,
            row.event_type,
            row.actor,
            row.header,
            None if unsealed is None or row.in_quarantine else unsealed.sections,
        )
        for row, unsealed in zip(rows, sealer.open(rows, erased=erased_in(rows)), strict=True)
    ]
