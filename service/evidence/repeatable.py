"""Events of which there is any number about a request."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Select, select

from service.evidence.events import Event, Lane, idempotency_key, microseconds
from service.evidence.reading import StoredDecision, StoredRepeatable, erased_in, stored_repeatable
from service.evidence.store import EvidenceStore
from service.evidence.tables import SOMETHING_ERASED, events


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RepeatableEvent(Event):
    """Something told of a request later, perhaps not for the first time. received_at: the
    request's, by which all that is told of it is found.
    """

    has_brief_header: ClassVar[bool] = True

    status: str | None = None
    lane: Lane | None = None

    @property
    def unique_key(self) -> str:
        """One for each event: told again is another event, the same event again is not."""
        own = f"{self.request_id}/{self.event_id}"
        return idempotency_key(self.tenant, own, self.event_type)


def told_of(
    store: EvidenceStore,
    decision: StoredDecision,
    types: Collection[str],
    *,
    newest: int | None = None,
) -> Sequence[StoredRepeatable]:
    """The newest so many events of these types about a request, None for all, oldest first; erased
    ones are left out. Cost: an index entry for each about a request of the same microsecond.

    Raises StoreUnavailableError, UnreadablePayloadError.
    """
    found: Select[tuple[object, ...]] = select(events, SOMETHING_ERASED)
    query = found.where(
        events.c.tenant == decision.tenant,
        events.c.event_type.in_(types),
        events.c.received_us == microseconds(decision.received_at),
        events.c.request_id == decision.request_id,
    ).order_by(events.c.event_id.desc())
    with store.reading() as connection:
        rows = connection.execute(query.limit(newest)).all()[::-1]
    opened = zip(rows, store.sealer.open(rows, erased=erased_in(rows)), strict=True)
    return [stored_repeatable(row, unsealed) for row, unsealed in opened if unsealed is not None]
