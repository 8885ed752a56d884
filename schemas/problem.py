"""What the API says when it refuses: RFC 9457 problems and the violations they list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

MAX_VIOLATIONS = 100
"""A problem lists at most this many."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request's content; never quotes what the client sent."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    pointer: str
    """RFC 6901 pointer into the request body."""

    detail: str
    code: str
    """Stable word for machines, such as missing_column or not_a_number."""


class InvalidContentError(Exception):
    """Strict JSON whose content the model cannot take; errors says what and where."""

    def __init__(self, errors: Sequence[Violation]) -> None:
        super().__init__(f"{len(errors)} violations")
        self.errors = tuple(errors)


class Problem(BaseModel):
    """RFC 9457 problem details, `application/problem+json`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[Violation]
    record_status: Annotated[
        str | None, Field(description="410: `erased`, `expired` or `erasing until <date>`.")
    ] = None
    erased_at: Annotated[str | None, Field(description="410: when, in UTC.")] = None
    header: Annotated[
        dict[str, Any] | None, Field(description="410: the record's header, which is left.")
    ] = None


def json_pointer(*tokens: str | int) -> str:
    """RFC 6901 pointer through these member names and indices."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)
