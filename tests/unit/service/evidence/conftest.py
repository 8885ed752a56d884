from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from service.evidence import DecisionEvent, HeaderConstants, HeaderTemplate, payload_of

CONSTANTS = HeaderConstants(
    service_version="0.1.0",
    git_revision="c10f1c3",
    policy_version=None,
    retention_class="default",
    model="credit",
    version=3,
    model_digest="sha256:" + "0" * 64,
    artifact_digest="sha256:aa",
    artifact_format="ubj",
    schema_digest="sha256:bb",
    feature_names_digest="sha256:cc",
    category_maps_digest=None,
    trees_used=100,
    library_versions={"xgboost": "3.2.0"},
    method="tree_interventional",
    engine="table",
    config_digest="sha256:dd",
    background_digest="sha256:ee",
    output_space="log_odds",
    link="logit",
    exact=True,
)


@pytest.fixture
def constants() -> HeaderConstants:
    return CONSTANTS


@pytest.fixture
def decide() -> Callable[..., DecisionEvent]:
    template = HeaderTemplate.of(CONSTANTS, retention=timedelta(days=183))
    payload, parts = payload_of([("answer", b'{"values":[0.1]}'), ("instances", b'[{"age":33}]')])
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def make(request_id: str = "request-1", **changes: object) -> DecisionEvent:
        fields: dict[str, object] = {
            "template": template,
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
