"""JSON Schemas for the OpenAPI document, self-contained so that they stand anywhere in it."""

from typing import cast

from pydantic import BaseModel

from schemas.definitive import MAX_SUBJECT_LENGTH
from schemas.messages import Answer
from schemas.model_schema import ModelSchema
from schemas.row_types import row_type

_DEFINITION = "#/$defs/"


def predict_request_schema(schema: ModelSchema, example: dict[str, object]) -> dict[str, object]:
    """JSON Schema of a predict request with the model's own columns; example is a whole body."""
    subject = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_SUBJECT_LENGTH}
    return {
        "title": "PredictRequest",
        "type": "object",
        "properties": {
            "instances": {
                "description": "Rows of raw input columns; column order is irrelevant.",
                "type": "array",
                "minItems": 1,
                "items": document_schema(row_type(schema)),
            },
            "subjects": {
                "description": "Whom each row is about, one per instance; stored keyed.",
                "type": "array",
                "items": subject,
            },
        },
        "required": ["instances"],
        "additionalProperties": False,
        "examples": [example],
    }


def answer_schema() -> dict[str, object]:
    """JSON Schema of the answer to a predict request."""
    return document_schema(Answer)


def document_schema(model: type[BaseModel]) -> dict[str, object]:
    """JSON Schema of a non-recursive model, by alias, its references replaced by what they name."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    return cast("dict[str, object]", _inlined(schema, definitions))


def _inlined(node: object, definitions: dict[str, object]) -> object:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        return _inlined(definitions[reference.removeprefix(_DEFINITION)], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}
