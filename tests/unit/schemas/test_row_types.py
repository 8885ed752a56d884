import pytest
from pydantic import ValidationError

from schemas.model_schema import Column, ModelSchema
from schemas.row_types import row_type

SCHEMA = ModelSchema(
    (
        Column("age", "integer", minimum=18, title="Age in years", description="At application"),
        Column("", "number", nullable=True),
        Column("status", "category", levels=("a", "b"), nullable=True),
        Column("city", "category", levels=("Ulm",), unknown="ignore"),
        Column("model_config", "boolean"),
    )
)
GOOD = {"age": 30, "city": "Rom", "model_config": True}


def test_values_are_read_by_column_name() -> None:
    row = row_type(SCHEMA).model_validate(GOOD)
    assert row.model_dump(by_alias=True) == {**GOOD, "": None, "status": None}


@pytest.mark.parametrize("change", [{"age": 17}, {"c0": 1}, {"x": 1}, {"city": 1}, {"age": None}])
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        row_type(SCHEMA).model_validate(GOOD | change)


def test_its_json_schema_shows_the_columns_and_the_limits_of_the_wire() -> None:
    schema = row_type(SCHEMA).model_json_schema(by_alias=True)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["age", "city", "model_config"]
    properties = schema["properties"]
    assert list(properties) == list(SCHEMA.names)
    assert properties["age"] == {
        "type": "integer",
        "minimum": 18,
        "maximum": 2**53,
        "title": "Age in years",
        "description": "At application",
    }
    assert properties[""]["type"] == ["number", "null"]
    assert properties["status"]["enum"] == ["a", "b", None]
    assert "enum" not in properties["city"]
    assert properties["city"]["examples"] == ["Ulm"]
