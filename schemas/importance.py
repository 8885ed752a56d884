"""How important a model's columns were, over many stored explanations."""

from datetime import date

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from schemas.messages import ModelReference, OutputSpace

EXAMPLE: JsonDict = {
    "model": {"name": "german_credit", "version": 3, "digest": "sha256:4d23f91e"},
    "since": "2026-11-14",
    "until": "2026-11-21",
    "output_space": "log_odds",
    "people": 1830,
    "days": 6,
    "withheld_days": 1,
    "importance": {"status": 0.6127, "duration_months": 0.3811},
    "reason": None,
    "k": 20,
    "epsilon": 1.0,
}


class ColumnImportance(BaseModel):
    """Mean |contribution| by column, over people, summed over outputs; Laplace noise included.

    importance is null, with the reason, where no day of the window had k people. withheld_days:
    of fewer people, or not over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": EXAMPLE})

    model: ModelReference
    since: date
    until: date
    output_space: OutputSpace
    people: int
    days: int
    withheld_days: int
    importance: dict[str, float] | None
    reason: str | None
    k: int
    epsilon: float
