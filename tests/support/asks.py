"""What a version is asked, and what it makes of it, in this process."""

from datetime import UTC, datetime
from typing import Any

from schemas import DecodedBody
from service.auth import LOCAL
from service.planning import INLINE, Plan
from service.preparing import Ask, Prepared, run
from service.served import ServedModel


def ask_of(served: ServedModel, body: DecodedBody, plan: Plan = INLINE, **others: Any) -> Ask:
    """An explanation of these rows, unless others, by the names of Ask, say something else."""
    facts = {"request_id": "request-1", "explain": True, "top": 4, "subjects": None} | others
    return Ask(
        caller=LOCAL,
        received_at=datetime.now(UTC),
        body=body,
        instances=served.model.codec.instances_json(body.rows),
        fingerprint="f" * 64,
        plan=plan,
        **facts,
    )


def prepared_of(served: ServedModel, ask: Ask) -> Prepared:
    """The answer with the event that records it."""
    (prepared,) = run(served, [ask])
    assert isinstance(prepared, Prepared)
    return prepared
