"""What an explanation in words looks like on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.strict_document import Document


class DecisionRule(Document):
    """What policy decided by: `name` where a score is at least `at_least`, else `otherwise`."""

    class_: Annotated[
        str | None, Field(alias="class", description="Whose probability; null: of the value.")
    ]
    at_least: float
    name: str
    otherwise: str | None


class Narrated(Document):
    """The answer to GET /explanations/{request_id}/narrative."""

    request_id: str
    audience: Literal["applicant", "agent", "engineer"]
    language: str
    paragraphs: Annotated[
        list[str],
        Field(description="Plain text. In quotation marks: text of the record, as JSON strings."),
    ]
    numbers: Annotated[
        list[tuple[str, str]],
        Field(
            description="Each numeral outside of quotation marks, in order, and the JSON pointer "
            "of the number it is rounded from: of the record, or of `decision_rule` here. A "
            "pointer to an entry of a list stands for its place, counted from one."
        ),
    ]
    caveat: str
    decision_rule: Annotated[
        DecisionRule | None,
        Field(description="Null where no decision was made, or for who may not see every column."),
    ]
