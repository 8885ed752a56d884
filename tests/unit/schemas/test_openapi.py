import json

from schemas.model_schema import Column, ModelSchema
from schemas.openapi import answer_schema, document_schema, predict_request_schema
from schemas.problem import Problem

SCHEMA = ModelSchema(
    (
        Column("$ref", "category", levels=("a", "b"), description="An awkward name"),
        Column("$defs", "number", nullable=True),
    )
)
EXAMPLE: dict[str, object] = {"instances": [{"$ref": "a"}]}


def test_the_request_schema_shows_the_models_own_columns_and_the_example() -> None:
    schema = json.loads(json.dumps(predict_request_schema(SCHEMA, EXAMPLE)))
    items = schema["properties"]["instances"]["items"]
    assert schema["required"] == ["instances"]
    assert schema["additionalProperties"] is False
    assert schema["examples"] == [EXAMPLE]
    assert items["properties"]["$ref"]["enum"] == ["a", "b"]
    assert items["properties"]["$ref"]["description"] == "An awkward name"
    assert items["properties"]["$defs"]["type"] == ["number", "null"]
    assert items["required"] == ["$ref"]


def test_document_schemas_stand_alone() -> None:
    for schema in (answer_schema(), document_schema(Problem)):
        assert "$ref" not in json.dumps(schema)
        assert "$defs" not in json.dumps(schema)


def test_the_answer_schema_describes_the_explanation_in_place() -> None:
    explanation = answer_schema()["properties"]["explanation"]["anyOf"][0]  # type: ignore[index]
    assert explanation["properties"]["links"]["required"] == ["self"]
    assert explanation["title"] == "Explanation"
