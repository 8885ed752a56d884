"""Evidence events for tests of the store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import create_engine, text

from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    Ending,
    FinalEvent,
    FinalStatus,
    HeaderConstants,
    HeaderTemplate,
    Lane,
    Status,
    final_payload,
    laid_out,
)
from service.evidence.rails import rails_of
from service.uuid7 import uuid7

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA, BERT = "4d7e-anna", "9f21-bert"
STORED, CONFLICT = AppendOutcome.STORED, AppendOutcome.CONFLICT


CONSTANTS = HeaderConstants(
    service_version="0.1.0",
    git_revision=None,
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


def template(model: str = "credit") -> HeaderTemplate:
    return HeaderTemplate.of(replace(CONSTANTS, model=model), retention=timedelta(days=183))


TEMPLATE = template()


def decision(
    request_id: str | None = None,
    *,
    minute: int = 0,
    tenant: str = "default",
    model: HeaderTemplate = TEMPLATE,
    answer: bytes = b'{"values":[0.1]}',
    status: tuple[Status | None, Lane | None] = ("complete", "inline"),
) -> DecisionEvent:
    payload, parts = laid_out(
        [b'{"answer":', answer, b',"instances":', b'[{"age":33}]', b"}"], ["answer", "instances"]
    )
    received_at = START + timedelta(minutes=minute, microseconds=7)
    return DecisionEvent(
        template=model,
        request_id=request_id or uuid7(),
        received_at=received_at,
        completed_at=received_at + timedelta(milliseconds=3),
        status=status[0],
        lane=status[1],
        payload=payload,
        parts=parts,
        tenant=tenant,
    )


def about_two(request_id: str = "request-1") -> DecisionEvent:
    """A decision about Anna's two rows and Bert's: four sections."""
    pieces = [
        b'{"answer":',
        b'{"request_id":"r","predictions":[{"label":"anna-1"},{"label":"bert"},{"label":"anna-2"}]}',
        b',"instances":',
        b'[{"age":4711},{"age":33},{"age":4712}]',
        b',"fingerprint":',
        b'"f00"',
        b',"provenance":',
        b'{"seed":[47110,330,47120],"principal":"local"}',
        b"}",
    ]
    payload, parts = laid_out(pieces, ["answer", "instances", "fingerprint", "provenance"])
    subjects = orjson.dumps([ANNA, BERT, ANNA]).decode()
    return replace(decision(request_id), payload=payload, parts=parts, subjects=subjects)


def about_one(subject: str, request_id: str) -> DecisionEvent:
    """A decision about one subject, by keyed name."""
    return replace(decision(request_id), subjects=orjson.dumps([subject]).decode())


def pending(
    request_id: str | None = None,
    *,
    minute: int = 0,
    tenant: str = "default",
    model: HeaderTemplate = TEMPLATE,
    ask: bytes | None = None,
) -> DecisionEvent:
    """A decision whose explanation is queued."""
    queued = decision(
        request_id, minute=minute, tenant=tenant, model=model, status=("pending", "queued")
    )
    if ask is None:
        return queued
    payload, parts = laid_out([b'{"ask":', ask, b"}"], ["ask"])
    return replace(queued, payload=payload, parts=parts)


def final(
    event: DecisionEvent,
    *,
    explanation: bytes = b'{"values":[0.2]}',
    status: FinalStatus = "complete",
    outcome: Ending = "stored",
) -> FinalEvent:
    """The explanation that a pending decision got."""
    payload, parts = final_payload(explanation, b'{"worker":"w"}')
    return FinalEvent(
        template=event.template,
        tenant=event.tenant,
        request_id=event.request_id,
        parent_request_id=event.parent_request_id,
        actor="worker",
        auth_method="none",
        received_at=event.received_at,
        completed_at=event.received_at + timedelta(seconds=2),
        status=status,
        outcome=outcome,
        payload=payload,
        parts=parts,
    )


def change(url: str, statement: str) -> None:
    """Run one statement from outside."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def drop_rails(url: str) -> None:
    """As whoever means it would, before changing what is stored."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for name, table in rails_of(connection).items():
            of_table = "" if connection.dialect.name == "sqlite" else f" ON {table}"
            connection.execute(text(f"DROP TRIGGER {name}{of_table}"))
    engine.dispose()
