"""Answers whose record is not in the store: spooled, or kept nowhere."""

import orjson

from service import answers, reasons
from service.answers import Fragments
from service.evidence import AppendOutcome, Event
from service.policy import Reasons
from service.preparing import Prepared
from service.served import ServedModel

NOT_KEPT = "its record could not be kept"


def unstored_answer(served: ServedModel, prepared: Prepared, outcome: AppendOutcome) -> bytes:
    """The answer's bytes, and what is counted of it beside.

    A queued explanation whose record is spooled is pending: it is queued once the record is in the
    store, where workers find it. One whose record is nowhere has failed.
    """
    if outcome is not AppendOutcome.NOT_KEPT or prepared.plan.lane != "queued":
        return prepared.answer
    served.metrics.explanations["queued", "failed"].inc()
    event = prepared.event
    said = Reasons.of_policy(orjson.loads(_part(event, "policy"))) if served.policy else None
    explanation = answers.encode_unexplained(
        *(served.model, "failed", NOT_KEPT),
        lane="queued",
        request_id=event.request_id,
        beside=reasons.withheld(said, "failed", NOT_KEPT),
    )
    fragments = Fragments(_part(event, "predictions"), explanation, _part(event, "warnings"))
    answer, _ = answers.encode_answer(served.templates.model, event.request_id, fragments)
    return answer


def _part(event: Event, name: str) -> bytes:
    start, end = event.parts[name]
    return event.payload[start:end]
