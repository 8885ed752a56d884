"""What clients say of a past prediction, and what was said so far."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from schemas.messages import Scalar

MAX_COMMENT_LENGTH = 2000
EXAMPLE_TIME = "2026-11-21T09:30:00Z"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def whole(number: object) -> object:
    """JSON has one kind of number: 4.0 is the integer 4."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Rating = Annotated[int, Field(ge=1, le=5), BeforeValidator(whole)]


class Feedback(_Document):
    """How good an explanation was; personal data in the comment are blacked out."""

    rating: Rating
    comment: Annotated[str, Field(min_length=1, max_length=MAX_COMMENT_LENGTH)] | None = None


class Labels(_Document):
    """What the predicted instances turned out to be, one each; null where it is not known yet."""

    labels: Annotated[list[Scalar | None], Field(min_length=1)]


class GivenFeedback(Feedback):
    """A principal's last rating."""

    principal: str
    given_at: AwareDatetime


class GivenLabels(Labels):
    """A principal's last labels."""

    principal: str
    given_at: AwareDatetime


class Votes(_Document):
    """What was said of one record."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "feedback": [
                    {
                        "rating": 4,
                        "comment": "age stands too high",
                        "principal": "front-desk",
                        "given_at": EXAMPLE_TIME,
                    }
                ],
                "labels": [
                    {"labels": ["good"], "principal": "collections", "given_at": EXAMPLE_TIME}
                ],
            }
        }
    )

    feedback: list[GivenFeedback]
    labels: list[GivenLabels]
