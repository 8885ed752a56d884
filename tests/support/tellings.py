"""What is told of a decision later, as events."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeVar

import orjson

from service.evidence import DecisionEvent, RepeatableEvent, laid_out

Told = TypeVar("Told", bound=RepeatableEvent)


def told_later(
    about: DecisionEvent, kind: type[Told], said: Mapping[str, object], *, actor: str = "ann"
) -> Told:
    """The event, a day after the decision. said: by the name of the only part."""
    ((name, value),) = said.items()
    payload, parts = laid_out([b'{"%s":' % name.encode(), orjson.dumps(value), b"}"], [name])
    return kind(
        template=about.template,
        request_id=about.request_id,
        received_at=about.received_at,
        completed_at=about.received_at + timedelta(days=1),
        payload=payload,
        parts=parts,
        tenant=about.tenant,
        actor=actor,
        subjects=about.subjects,
    )
