"""Request bodies other than a prediction's, strict JSON of one fixed shape; and answers, read."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.problem import InvalidContentError, Violation, json_pointer
from schemas.strict_json import loads

Document = TypeVar("Document", bound=BaseModel)


def read_document(kind: type[Document], body: bytes) -> Document:
    """The body as that document.

    Raises NotStrictJsonError, and InvalidContentError with what is wrong and where, never quoting
    what was sent.
    """
    content = loads(body)
    errors = []
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
    # Raised after the except block: a chained ValidationError would carry the content.
    raise InvalidContentError([_violation(item["loc"], item["type"]) for item in errors])


def read_answer(kind: type[Document], body: bytes) -> Document:
    """An answer of the service as that document, without members that a later release added.

    Raises InvalidContentError with what is wrong and where, never quoting it.
    """
    try:
        return kind.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
    raise InvalidContentError([_violation(item["loc"], item["type"]) for item in errors])


def _violation(location: tuple[int | str, ...], code: str) -> Violation:
    if code == "extra_forbidden":  # the name is the client's
        return Violation(json_pointer(*location[:-1]), "holds an unknown member", "unknown_member")
    return Violation(json_pointer(*location), "does not fit", code)
