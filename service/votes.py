"""Feedback on explanations and labels that came to be known: stored as later events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from schemas import Feedback, Labels, Level, Violation
from service.appending import append_about
from service.auth import Caller
from service.errors import InvalidRequestError, StoreAwayError
from service.evidence import (
    EvidenceError,
    FeedbackEvent,
    LabelEvent,
    Parts,
    StoredDecision,
    StoredRepeatable,
    VoteEvent,
    laid_out,
)
from service.masking import masked_vote
from service.metrics import Metrics
from service.privacy import PrivacyCounts
from service.registry.naming import class_text
from service.views import Views
from service.watching import Watch

MAX_INTEGER = 2**53


@dataclass(slots=True, eq=False)
class VoteBox:
    """Takes and shows votes; one per process."""

    watch: Watch
    views: Views
    metrics: Metrics
    privacy: PrivacyCounts = field(init=False)

    def __post_init__(self) -> None:
        self.privacy = PrivacyCounts(self.metrics, "comment")

    async def rate(self, caller: Caller, request_id: str, feedback: Feedback) -> None:
        """Store a rating, durably before it returns; personal data in its comment are blacked out.

        Raises NotFoundError for a record the caller's tenant does not have, StoreAwayError.
        """
        record = await self.watch.known(caller, request_id)
        said: dict[str, object] = {"rating": feedback.rating}
        if feedback.comment is not None:
            said["comment"] = self.privacy.blacked_out(feedback.comment)
        await self._append(FeedbackEvent, record.decision, caller, said)
        self.metrics.feedback_rating.labels(record.decision.model).observe(feedback.rating)

    async def label(self, caller: Caller, request_id: str, labels: Labels) -> None:
        """Store what the instances turned out to be, durably before it returns.

        Raises NotFoundError, StoreAwayError, InvalidRequestError for what the model cannot have
        predicted.
        """
        record = await self.watch.known(caller, request_id)
        predictions = orjson.loads(record.decision.part("predictions"))
        violations = _misfits(labels.labels, predictions)
        if violations:
            raise InvalidRequestError("see errors", errors=violations)
        await self._append(LabelEvent, record.decision, caller, {"labels": labels.labels})
        told = sum(label is not None for label in labels.labels)
        self.metrics.labels.labels(record.decision.model).inc(told)

    async def shown_to(self, caller: Caller, request_id: str) -> dict[str, object]:
        """Everybody's last votes on a record the caller may read; masked as it is for him.

        Raises NotFoundError, StoreAwayError.
        """
        record = await self.watch.find(caller, request_id)
        try:
            votes = await self.watch.evidence.votes(record.decision)
        except EvidenceError:
            raise StoreAwayError from None
        given = [_given(vote) for vote in votes]
        if not self.views.sees_all(caller, record):
            is_regression = _is_regression(orjson.loads(record.decision.part("predictions")))
            given = [masked_vote(vote, is_regression=is_regression) for vote in given]
        return {
            "feedback": [vote for vote in given if "rating" in vote],
            "labels": [vote for vote in given if "labels" in vote],
        }

    async def _append(
        self,
        kind: type[VoteEvent],
        decision: StoredDecision,
        caller: Caller,
        said: Mapping[str, object],
    ) -> None:
        await append_about(
            self.watch.evidence,
            decision,
            kind,
            _payload(said),
            caller=caller,
            template=decision.template,
        )


def _payload(said: Mapping[str, object]) -> tuple[bytes, Parts]:
    pieces: list[bytes] = []
    lead = b'{"'
    for name, value in said.items():
        pieces += (lead + name.encode() + b'":', orjson.dumps(value))
        lead = b',"'
    return laid_out([*pieces, b"}"], list(said))


def _given(vote: StoredRepeatable) -> dict[str, object]:
    said = {name: orjson.loads(vote.part(name)) for name in vote.parts}
    given_at = orjson.loads(vote.header)["completed_at"]
    return said | {"principal": vote.actor, "given_at": given_at}


def _misfits(
    labels: Sequence[Level | None], predictions: Sequence[dict[str, object] | None]
) -> list[Violation]:
    """What is wrong with the labels of these predictions; an empty list if nothing is."""
    if len(labels) != len(predictions):
        detail = "must have one entry per instance"  # how many, who may not read it is not told
        return [Violation("/labels", detail, "wrong_length")]
    return [
        Violation(f"/labels/{i}", "is nothing this model predicts", "unknown_class")
        for i, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
        if label is not None and not _is_possible(label, prediction)
    ]


def _is_regression(predictions: Sequence[dict[str, object] | None]) -> bool:
    """None of what is left of them is a class."""
    return not any(prediction and "label" in prediction for prediction in predictions)


def _is_possible(label: Level, prediction: dict[str, object] | None) -> bool:
    """A number for a regression; else one of the classes, of their JSON type; nothing for an
    instance that was erased.
    """
    if prediction is None:
        return False
    if not isinstance(label, str) and not abs(label) <= MAX_INTEGER:
        return False
    if "value" in prediction:
        return isinstance(label, int | float) and not isinstance(label, bool)
    classes, predicted = prediction["probabilities"], prediction["label"]
    assert isinstance(classes, dict)
    return type(label) is type(predicted) and class_text(label) in classes
