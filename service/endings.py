"""The end of a pending explanation without a result: cancelled, failed, or given up."""

from dataclasses import asdict
from datetime import UTC, datetime

import orjson

from service import reasons
from service.evidence import (
    Ending,
    FinalEvent,
    HeaderTemplate,
    Record,
    StoredDecision,
    UnreadableRecord,
    final_payload,
)
from service.policy import Reasons
from service.provenance import Taken

CANCELLED = "cancelled by "
"""How the reason of an explanation begins that somebody called off."""


def failed_final(
    record: Record,
    reason: str,
    *,
    outcome: Ending,
    actor: str,
    auth_method: str = "none",
    taken: Taken | None = None,
) -> FinalEvent:
    """The final event that says why there is no explanation, made of the record's own pieces, so
    that its model need not be there. taken: the worker that gave it up.
    """
    decision, completed_at = record.decision, datetime.now(UTC)
    explanation = orjson.loads(decision.part("explanation")) | {
        "status": "failed",
        "reason": reason,
        **reasons.withheld(reasons_of(decision), "failed", reason),
    }
    provenance = orjson.loads(decision.part("provenance")) | {"completed_at": completed_at}
    provenance |= {} if taken is None else asdict(taken)
    payload, parts = final_payload(
        orjson.dumps(explanation), orjson.dumps(provenance, option=orjson.OPT_UTC_Z)
    )
    return FinalEvent(
        template=HeaderTemplate.from_header(decision.header),
        tenant=decision.tenant,
        request_id=decision.request_id,
        parent_request_id=decision.parent_request_id,
        subjects=decision.subjects,
        actor=actor,
        auth_method=auth_method,
        received_at=decision.received_at,
        completed_at=completed_at,
        status="failed",
        outcome=outcome,
        payload=payload,
        parts=parts,
    )


def reasons_of(decision: StoredDecision) -> Reasons | None:
    """Those that a record's adverse decisions are to have."""
    if "policy" not in decision.parts:
        return None
    return Reasons.of_policy(orjson.loads(decision.part("policy")))


def unreadable_final(found: UnreadableRecord, *, actor: str) -> FinalEvent:
    """As `failed_final`, of a request whose record cannot be opened: made of its header."""
    completed_at = datetime.now(UTC)
    reason = f"the record cannot be read: {found.reason}"
    payload, parts = final_payload(
        orjson.dumps({"status": "failed", "reason": reason, "lane": "queued", "values": None}),
        orjson.dumps({"completed_at": completed_at}, option=orjson.OPT_UTC_Z),
    )
    return FinalEvent(
        template=HeaderTemplate.from_header(found.header),
        tenant=found.tenant,
        request_id=found.request_id,
        parent_request_id=found.parent_request_id,
        subjects=found.subjects,
        actor=actor,
        received_at=found.received_at,
        completed_at=completed_at,
        status="failed",
        outcome="failed",
        payload=payload,
        parts=parts,
    )
