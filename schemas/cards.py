"""What a model card looks like on the wire, where it is asked for as JSON."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from schemas.strict_document import Document


class CardSection(Document):
    """What people wrote. written_for: the version it was last written or confirmed for."""

    name: str
    title: str
    required: bool
    status: Literal["current", "stale", "empty"]
    text: Annotated[str, Field(description="Markdown, as it was written.")]
    written_for: int | None
    reason: Annotated[str, Field(description="Why it is stale; empty otherwise.")]


class CardRollout(Document):
    """What was last tried beside the serving version."""

    mode: Literal["shadow", "canary"]
    version: int
    share: float
    started_at: AwareDatetime
    beside: int | None
    ended_at: AwareDatetime | None
    reason: str | None


class CardDrift(Document):
    """is_alarm: null where there are too few rows to say."""

    rows: int
    is_alarm: bool | None
    moved: list[str]


class CardMeasure(Document):
    """Measured on labels that came later."""

    value: float
    standard_error: float


class CardPerformance(Document):
    """measures: none where there are too few labels to say."""

    rows: int
    days: float
    measures: dict[str, CardMeasure]


class ModelCard(Document):
    """The answer to GET /models/{name}/card, as JSON."""

    name: str
    version: int
    digest: str
    status: Literal["unwritten", "incomplete", "current"]
    troubles: Annotated[
        list[str], Field(description="What is stale, and what is required and empty.")
    ]
    sections: list[CardSection]
    serving: int | None
    serving_since: AwareDatetime | None
    disabled: bool
    rollout: CardRollout | None
    drift: CardDrift | None
    performance: CardPerformance | None
    frozen: Annotated[str, Field(description="Markdown: what the version was registered with.")]
