"""What somebody was told he could change: stored about the request it was told of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.evidence.reading import StoredDecision, StoredRepeatable
from service.evidence.repeatable import RepeatableEvent, told_of
from service.evidence.store import EvidenceStore


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CounterfactualEvent(RepeatableEvent):
    """Changes that would lead to another decision on one instance of a request, or that none were
    found. payload: `counterfactuals`, one per instance, null for those that were not asked about;
    so each belongs to its instance's subject, and is erased with him.
    """

    event_type: ClassVar[str] = "counterfactual"


MOST_LISTED = 100


def counterfactuals_of(
    store: EvidenceStore, decision: StoredDecision
) -> Sequence[StoredRepeatable]:
    """The last MOST_LISTED that were told of that request, oldest first. Raises as `told_of`."""
    return told_of(store, decision, (CounterfactualEvent.event_type,), newest=MOST_LISTED)
