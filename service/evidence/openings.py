"""Events as they are proven: the header's bytes, and what opens its commitment."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, and_, exists, literal_column, or_, select

from service.evidence.events import idempotency_key
from service.evidence.reading import erased_in
from service.evidence.sealing import Sealer
from service.evidence.tables import ALL_ERASED, SOMETHING_ERASED, events, holds
from service.evidence.unsealing import Section

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


_IS_IN_QUARANTINE = exists().where(
    holds.c.tenant == events.c.tenant,
    holds.c.request_id == events.c.request_id,
    holds.c.kind == literal_column("'quarantine'"),
)
_IS_PUT_BACK = and_(ALL_ERASED.element, events.c.event_type.in_(("decision", "explanation")))


def select_request(tenant: str, request_id: str) -> Select[tuple[object, ...]]:
    """The query for the events that there is one of about a request; a second answer that stands
    beside its record, and a shadow, are not among them: only an export has those.
    """
    keys = [idempotency_key(tenant, request_id, kind) for kind in REQUEST_EVENTS]
    is_withheld = or_(_IS_IN_QUARANTINE, _IS_PUT_BACK).label("is_withheld")
    return select(*_COLUMNS, SOMETHING_ERASED, is_withheld).where(
        events.c.idempotency_key.in_(keys)
    )


def select_events(event_ids: Sequence[str]) -> Select[tuple[object, ...]]:
    """The query for events by their IDs; also with what was put back into an erased record: whoever
    checks the log is to see it.
    """
    is_withheld = _IS_IN_QUARANTINE.label("is_withheld")
    return select(*_COLUMNS, SOMETHING_ERASED, is_withheld).where(events.c.event_id.in_(event_ids))


def proven_events(rows: Sequence[Row[tuple[object, ...]]], sealer: Sealer) -> list[ProvenEvent]:
    """The rows of these queries; those that are withheld are proven, and not opened.

    Raises StoreUnavailableError, and UnreadablePayloadError for payloads that cannot be opened.
    """
    return [
        ProvenEvent(
            row.event_id,
            row.event_type,
            row.actor,
            row.header,
            None if unsealed is None or row.is_withheld else unsealed.sections,
        )
        for row, unsealed in zip(rows, sealer.open(rows, erased=erased_in(rows)), strict=True)
    ]
