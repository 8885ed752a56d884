"""What would have to change for another decision: the question, and what is answered."""

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas.messages import REQUEST_ID_PATTERN, ModelReference, Prediction, Scalar

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


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RecourseRequest(_Document):
    """The body of POST /counterfactuals: a past request, or an instance that is predicted first.

    instance: which one of the past request's, from 0.
    """

    request_id: Annotated[str | None, Field(pattern=REQUEST_ID_PATTERN)] = None
    instance: Annotated[int, Field(ge=0)] = 0
    model: Annotated[str | None, Field(description="Absent: the default model.")] = None
    instances: Annotated[
        list[dict[str, Scalar | None]] | None, Field(min_length=1, max_length=1)
    ] = None
    subjects: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)] | None] | None,
        Field(min_length=1, max_length=1),
    ] = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.request_id is None) == (self.instances is None):
            raise ValueError("give either request_id or instances")
        if self.instances is None:
            wrong = {"model", "subjects"} & self.model_fields_set
        else:
            wrong = {"instance"} & self.model_fields_set
        if wrong:
            raise ValueError("model and subjects go with instances, instance with request_id")
        return self


class Change(_Document):
    """One column's way from what it is to what it would have to be."""

    feature: str
    from_: Annotated[Scalar | None, Field(alias="from")]
    to: Scalar


class CounterfactualBody(_Document):
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


class ConstraintBody(_Document):
    """What stands in the way. feature: null for the number of `changes`, the budget of `rows`, and
    the `model`, whom nothing that was tried moved. suffices: without it alone the target was
    reached.
    """

    model_config = ConfigDict(title="Constraint")

    kind: ConstraintKind
    feature: str | None
    suffices: bool


class Counterfactuals(_Document):
    """The answer to POST /counterfactuals: cheapest first, each of other columns.

    is_exhaustive: every allowed combination was tried. policy_version: of the rules it keeps to.
    """

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    request_id: str
    instance: int
    model: ModelReference
    target: str
    margin: float
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


class CounterfactualList(_Document):
    """The answer to GET /explanations/{request_id}/counterfactuals, oldest first."""

    items: list[ToldCounterfactuals]
