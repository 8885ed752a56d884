from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from decisions import CONSTANTS, TEMPLATE

from service.evidence import DecisionEvent, HeaderConstants, laid_out


@pytest.fixture
def constants() -> HeaderConstants:
    return CONSTANTS


@pytest.fixture
def decide() -> Callable[..., DecisionEvent]:
    payload, parts = laid_out(
        [b'{"answer":', b'{"values":[0.1]}', b',"instances":', b'[{"age":33}]', b"}"],
        ["answer", "instances"],
    )
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def make(request_id: str = "request-1", **changes: object) -> DecisionEvent:
        fields: dict[str, object] = {
            "template": TEMPLATE,
            "request_id": request_id,
            "received_at": start,
            "completed_at": start + timedelta(milliseconds=3),
            "status": "complete",
            "lane": "inline",
            "payload": payload,
            "parts": parts,
        }
        return DecisionEvent(**{**fields, **changes})  # type: ignore[arg-type]  # fields by name

    return make
