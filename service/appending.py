"""What is told of a stored record later, appended in the name of who tells it."""

from datetime import UTC, datetime

from service.auth import Caller
from service.errors import GoneError, StoreAwayError
from service.evidence import (
    AppendOutcome,
    EvidenceError,
    EvidenceLog,
    HeaderTemplate,
    Parts,
    RepeatableEvent,
    StoredDecision,
)


async def append_about(
    evidence: EvidenceLog,
    decision: StoredDecision,
    kind: type[RepeatableEvent],
    content: tuple[bytes, Parts],
    *,
    caller: Caller,
    template: HeaderTemplate,
) -> None:
    """Store payload and parts as an event about the request, durably before it returns.

    Raises StoreAwayError, GoneError for a record that was erased meanwhile, be it in part.
    """
    payload, parts = content
    event = kind(
        template=template,
        request_id=decision.request_id,
        received_at=decision.received_at,
        completed_at=datetime.now(UTC),
        payload=payload,
        parts=parts,
        tenant=decision.tenant,
        actor=caller.principal,
        auth_method=caller.auth_method,
        parent_request_id=decision.parent_request_id,
        subjects=decision.subjects,
    )
    try:
        outcome = await evidence.append(event)
    except EvidenceError:
        raise StoreAwayError from None
    if outcome is AppendOutcome.CONFLICT:
        raise GoneError("the record was erased, or somebody it is about was from it")
