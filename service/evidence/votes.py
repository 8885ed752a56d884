"""What people say of a stored record: how good its explanation was, and what turned out true.

A later vote of the same principal replaces his earlier one by being later; nothing is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.evidence.reading import StoredDecision, StoredRepeatable
from service.evidence.repeatable import RepeatableEvent, told_of
from service.evidence.store import EvidenceStore


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VoteEvent(RepeatableEvent):
    """One vote about a request; its payload holds what was said."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FeedbackEvent(VoteEvent):
    """A rating of an explanation. payload: `rating`, and `comment` where there is one."""

    event_type: ClassVar[str] = "feedback"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelEvent(VoteEvent):
    """What the predicted instances turned out to be. payload: `labels`, one per instance."""

    event_type: ClassVar[str] = "label"


def votes_of(store: EvidenceStore, decision: StoredDecision) -> Sequence[StoredRepeatable]:
    """Each principal's last feedback and last labels on that request, in the order in which they
    first voted; erased ones are left out. Raises as `told_of`.
    """
    told = told_of(store, decision, ("feedback", "label"))
    return list({("rating" in vote.parts, vote.actor): vote for vote in told}.values())
