"""What people say of a stored record: how good its explanation was, and what turned out true.

A later vote of the same principal replaces his earlier one by being later; nothing is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Select, select

from service.evidence.events import Event, Lane, idempotency_key, microseconds
from service.evidence.reading import StoredDecision, StoredVote, erased_in, stored_vote
from service.evidence.store import EvidenceStore
from service.evidence.tables import SOMETHING_ERASED, events


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VoteEvent(Event):
    """One vote about a request; its payload holds what was said. received_at: the request's, by
    which the votes about it are found.
    """

    has_brief_header: ClassVar[bool] = True

    status: str | None = None
    lane: Lane | None = None

    @property
    def unique_key(self) -> str:
        """One for each event: a second vote is another event, the same event again is not."""
        own = f"{self.request_id}/{self.event_id}"
        return idempotency_key(self.tenant, own, self.event_type)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FeedbackEvent(VoteEvent):
    """A rating of an explanation. payload: `rating`, and `comment` where there is one."""

    event_type: ClassVar[str] = "feedback"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelEvent(VoteEvent):
    """What the predicted instances turned out to be. payload: `labels`, one per instance."""

    event_type: ClassVar[str] = "label"


def select_votes(decision: StoredDecision) -> Select[tuple[object, ...]]:
    """The query for all votes about a request, oldest first. Cost: an index entry for each vote
    about a request of the same microsecond.
    """
    found: Select[tuple[object, ...]] = select(events, SOMETHING_ERASED)
    return found.where(
        events.c.tenant == decision.tenant,
        events.c.event_type.in_(("feedback", "label")),
        events.c.received_us == microseconds(decision.received_at),
        events.c.request_id == decision.request_id,
    ).order_by(events.c.event_id)


def votes_of(store: EvidenceStore, decision: StoredDecision) -> Sequence[StoredVote]:
    """Each principal's last feedback and last labels on that request, in the order in which they
    first voted; erased ones are left out. Raises StoreUnavailableError, UnreadablePayloadError.
    """
    with store.reading() as connection:
        found = connection.execute(select_votes(decision)).all()
    rows = list({(row.event_type, row.actor): row for row in found}.values())
    opened = zip(rows, store.sealer.open(rows, erased=erased_in(rows)), strict=True)
    return [stored_vote(row, unsealed) for row, unsealed in opened if unsealed is not None]
