"""Reasons of adverse decisions, as explanations hold them."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.strict_document import Document


class ReasonItem(Document):
    """A code, and the columns under it that contributed to the adverse decision.

    contribution: of all columns under the code, in the units of output_space, above 0.
    """

    code: str
    text: str
    features: list[str]
    contribution: float


class DecisionReasons(Document):
    """Why an adverse decision was taken, strongest first; relative to the cohort of that digest,
    or to the background. decision is null for callers who may not see every column.
    """

    decision: str | None
    status: Literal["given", "withheld"]
    reason: Annotated[str | None, Field(description="Why there are none.")]
    items: list[ReasonItem]
    cohort_digest: str | None
