"""What would have to change for another decision: the question, and what is answered."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field

from schemas.documents import read_document
from schemas.messages import REQUEST_ID_PATTERN, ModelReference, Prediction, Scalar
from schemas.openapi import document_schema
from schemas.strict_document import Document
from schemas.strict_json import loads
from schemas.votes import whole

SearchStatus = Literal["found", "none_found", "not_needed"]
ConstraintKind = Literal[
    "immutable", "direction", "range", "levels", "missing", "changes", "rows", "model"
]
EXAMPLE: dict[str, Any] = {
    "request_id": "019aa0c2-0000-7000-8000-000000000000",
    "instance": 0,
    "model": {"name": "german_credit", "version": 3, "digest": "sha256:4d23f91e"},
    "target": "accept",
    "margin": 0.05,
    "threshold": {"class": "bad", "at_least": 0.5, "name": "decline", "otherwise": "accept"},
    "most_changes": 4,
    "rules": [
        {
            "feature": "duration_months",
            "direction": "down",
            "cost": 0.1,
            "low": 4.0,
            "high": 60.0,
            "step": 1.0,
            "levels": None,
        }
    ],
    "status": "found",
    "counterfactuals": [
        {
            "changes": [{"feature": "duration_months", "from": 42, "to": 24}],
            "cost": 1.8,
            "score": 0.31,
            "prediction": {
                "label": "good",
                "probabilities": {"good": 0.69, "bad": 0.31},
                "decision": "accept",
            },
            "decision": "accept",
        }
    ],
    "constraints": [],
    "is_exhaustive": False,
    "model_evaluations": 11234,
    "policy_version": "sha256:9f2b41c0",
    "duration_seconds": 0.04,
    "caveat": "What this version of the model would have answered; no cause and no promise.",
}


class PastInstance(Document):
    """The body of POST /counterfactuals about a past request; instance: which one of it, from 0."""

    request_id: Annotated[str, Field(pattern=REQUEST_ID_PATTERN)]
    instance: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 0


class NewInstance(Document):
    """The same about an instance that is predicted and recorded first."""

    model: Annotated[str | None, Field(description="Absent: the default model.")] = None
    instances: Annotated[list[dict[str, Scalar | None]], Field(min_length=1, max_length=1)]
    subjects: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)] | None] | None,
        Field(min_length=1, max_length=1),
    ] = None


def read_recourse_request(body: bytes) -> PastInstance | NewInstance:
    """Which of both the body is, by whether it has instances. Raises as `read_document`."""
    content = loads(body)
    is_new = isinstance(content, dict) and "instances" in content
    return read_document(NewInstance, body) if is_new else read_document(PastInstance, body)


def recourse_request_schema(models: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """JSON Schema of the body; models: that of one instance of each, by name."""
    schemas = [document_schema(PastInstance)]
    for name, instance in models.items():
        schema = document_schema(NewInstance)
        properties = cast("dict[str, dict[str, object]]", schema["properties"])
        properties["model"] = {"const": name}
        properties["instances"]["items"] = instance
        schemas.append(schema | {"required": ["model", "instances"]})
    return {"oneOf": schemas}


class Change(Document):
    """One column's way from what it is to what it would have to be."""

    feature: str
    from_: Annotated[Scalar | None, Field(alias="from")]
    to: Scalar


class CounterfactualBody(Document):
    """One answer, as this version of the model predicts it. score: the number that is decided by:
    the probability of the decision's class, or of the target where there is no decision; of a
    regression the value.
    """

    model_config = ConfigDict(title="Counterfactual")

    changes: Annotated[list[Change], Field(min_length=1)]
    cost: float
    score: float
    prediction: Prediction
    decision: str | None


class ThresholdBody(Document):
    """The decision is `name` where the probability of the class (of a regression the value) is
    `at_least` so much, else `otherwise`.
    """

    model_config = ConfigDict(title="Threshold")

    class_: Annotated[str | None, Field(alias="class")]
    at_least: float
    name: str
    otherwise: str | None


class RuleBody(Document):
    """What was allowed to become of a column: a number between low and high, a whole multiple of
    step, or one of the levels; of the others these are null. cost: of a unit by which a number
    moves, or of any other level.
    """

    model_config = ConfigDict(title="ColumnRule")

    feature: str
    direction: Literal["up", "down", "both"]
    cost: float
    low: float | None
    high: float | None
    step: float | None
    levels: list[Scalar] | None


class ConstraintBody(Document):
    """What stands in the way. feature: null for the number of `changes`, the budget of `rows`, and
    the `model`, whom nothing that was tried moved. suffices: without it alone the target was
    reached.
    """

    model_config = ConfigDict(title="Constraint")

    kind: ConstraintKind
    feature: str | None
    suffices: bool


class Counterfactuals(Document):
    """The answer to POST /counterfactuals: cheapest first, each of other columns.

    threshold: what decides, null where the most probable class does. most_changes: columns that one
    answer could change; rules: of the columns that could, all others could not. is_exhaustive:
    every allowed combination was tried. policy_version: of the file that these come from.
    """

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    request_id: str
    instance: int
    model: ModelReference
    target: str
    margin: float
    threshold: ThresholdBody | None
    most_changes: int
    rules: list[RuleBody]
    status: SearchStatus
    counterfactuals: list[CounterfactualBody]
    constraints: list[ConstraintBody]
    is_exhaustive: bool
    model_evaluations: int
    policy_version: str
    duration_seconds: float
    caveat: str


class ToldCounterfactuals(Counterfactuals):
    """One search as it is stored: who asked for it, and when."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": EXAMPLE | {"principal": "front-desk", "told_at": "2026-11-21T09:30:00Z"}
        }
    )

    principal: str
    told_at: AwareDatetime


class CounterfactualList(Document):
    """The answer to GET /explanations/{request_id}/counterfactuals: the last 100, oldest
    first.
    """

    items: Annotated[list[ToldCounterfactuals], Field(max_length=100)]
