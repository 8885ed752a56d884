import copy
import json
import math
from typing import Any

import pytest

from schemas.model_schema import Column, ModelSchema, SchemaError

DOCUMENT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Credit",
    "description": "Applications",
    "type": "object",
    "properties": {
        "status": {
            "type": "string",
            "enum": ["0DM", "<200", "no checking"],
            "x-unknown": "missing",
            "x-source": "artifact",
        },
        "age": {"type": "integer", "minimum": 18, "maximum": 120, "title": "Age in years"},
        "rate": {"type": ["number", "null"], "minimum": 0.5, "description": "Per year"},
        "foreign": {"type": ["null", "boolean"]},
        "rooms": {"type": ["integer", "null"], "enum": [1, 2, None], "x-unknown": "ignore"},
    },
    "required": ["age", "status", "foreign"],
    "additionalProperties": False,
}

COLUMNS = (
    Column(
        "status",
        "category",
        levels=("0DM", "<200", "no checking"),
        unknown="missing",
        source="artifact",
    ),
    Column("age", "integer", minimum=18, maximum=120, title="Age in years"),
    Column("rate", "number", nullable=True, minimum=0.5, description="Per year"),
    Column("foreign", "boolean", nullable=True, must_be_given=True),
    Column("rooms", "category", levels=(1, 2), nullable=True, unknown="ignore"),
)


def one_column(node: object, *, name: str = "x", required: tuple[str, ...] = ("x",)) -> bytes:
    return json.dumps(
        {"type": "object", "properties": {name: node}, "required": list(required)}
    ).encode()


def test_columns_come_in_the_order_of_the_properties() -> None:
    schema = ModelSchema.from_json(DOCUMENT)
    assert schema == ModelSchema(COLUMNS, title="Credit", description="Applications")
    assert schema.names == ("status", "age", "rate", "foreign", "rooms")


def test_bytes_and_parsed_documents_read_alike() -> None:
    assert ModelSchema.from_json(json.dumps(DOCUMENT).encode()) == ModelSchema.from_json(DOCUMENT)


def test_writing_and_reading_gives_the_same_schema_and_digest() -> None:
    schema = ModelSchema(COLUMNS)
    again = ModelSchema.from_json(schema.canonical_bytes())
    assert again == schema
    assert again.digest() == schema.digest()


def test_digest_changes_with_the_order_of_columns() -> None:
    schema, swapped = ModelSchema(COLUMNS), ModelSchema(COLUMNS[::-1])
    assert schema.digest() != swapped.digest()
    assert schema.feature_names_digest() != swapped.feature_names_digest()


def test_digest_of_names_ignores_everything_else() -> None:
    names = ModelSchema(tuple(Column(column.name, "number") for column in COLUMNS))
    assert names.feature_names_digest() == ModelSchema(COLUMNS).feature_names_digest()
    assert names.digest() != ModelSchema(COLUMNS).digest()


def test_digest_does_not_depend_on_how_a_bound_is_written() -> None:
    whole, fraction = (
        one_column({"type": "number", "minimum": 18}),
        one_column({"type": "number", "minimum": 18.0}),
    )
    assert ModelSchema.from_json(whole).digest() == ModelSchema.from_json(fraction).digest()


@pytest.mark.parametrize(
    "name",
    ["", " ", "self", "class", "model_config", "_x", "c1", 'a"b', "a/b~c", "é\u0301", "$ref", "\0"],
)
def test_any_text_names_a_column(name: str) -> None:
    schema = ModelSchema((Column(name, "number"), Column("c0", "boolean")))
    assert ModelSchema.from_json(schema.canonical_bytes()) == schema


@pytest.mark.parametrize(
    ("scalar", "enum", "levels"),
    [
        ("integer", [1.0, 2], (1, 2)),
        ("number", [1, 2.5], (1.0, 2.5)),
        ("boolean", [True, False], (True, False)),
        ("string", ["1", ""], ("1", "")),
    ],
)
def test_levels_take_the_type_of_their_column(
    scalar: str, enum: list[object], levels: tuple[object, ...]
) -> None:
    column = ModelSchema.from_json(one_column({"type": scalar, "enum": enum})).columns[0]
    assert column.levels == levels
    assert column.level_type == scalar
    assert [type(level) for level in column.levels or ()] == [type(level) for level in levels]


def test_whole_and_fractional_levels_become_numbers_of_one_type() -> None:
    assert Column("x", "category", levels=(1, 2.5)).level_type == "number"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"type": "array"}, "/type"),
        ({"additionalProperties": True}, "/additionalProperties"),
        ({"additionalProperties": 0}, "/additionalProperties"),
        ({"patternProperties": {}}, "/patternProperties"),
        ({"$defs": {}}, "/$defs"),
        ({"properties": {}, "required": []}, "/properties"),
        ({"properties": []}, "/properties"),
        ({"properties": None}, "/properties"),
        ({"required": "age"}, "/required"),
        ({"required": ["age", "status", "nobody"]}, "/required/2"),
        ({"required": ["age", "status", 1]}, "/required/2"),
        ({"required": ["age", "status", "age"]}, "/required"),
        ({"required": ["status"]}, "/required"),
        ({"title": 1}, "/title"),
        ({"description": ["x"]}, "/description"),
    ],
)
def test_documents_outside_the_subset_are_refused_where_they_are(
    change: dict[str, object], pointer: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        ModelSchema.from_json(copy.deepcopy(DOCUMENT) | change)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("node", "keyword"),
    [
        ("number", None),
        (True, None),
        ({"$ref": "#/properties/y"}, "$ref"),
        ({"type": "number", "const": 1}, "const"),
        ({"type": "number", "default": 1}, "default"),
        ({"type": "number", "exclusiveMinimum": 1}, "exclusiveMinimum"),
        ({"anyOf": [{"type": "number"}]}, "anyOf"),
        ({"type": "string", "pattern": "a"}, "pattern"),
        ({}, "type"),
        ({"enum": ["a"]}, "type"),
        ({"type": "object"}, "type"),
        ({"type": "null"}, "type"),
        ({"type": []}, "type"),
        ({"type": ["number", "string"]}, "type"),
        ({"type": ["number", "null", "null"]}, "type"),
        ({"type": ["null", "null"]}, "type"),
        ({"type": [["number"], "null"]}, "type"),
        ({"type": {}}, "type"),
        ({"type": "string"}, "enum"),
        ({"type": "string", "enum": []}, "enum"),
        ({"type": "string", "enum": "ab"}, "enum"),
        ({"type": "string", "enum": ["a", "a"]}, "enum"),
        ({"type": "string", "enum": ["a", 1]}, "enum"),
        ({"type": "string", "enum": ["a", ["b"]]}, "enum"),
        ({"type": "string", "enum": ["a", None]}, "enum"),
        ({"type": ["string", "null"], "enum": ["a"]}, "enum"),
        ({"type": ["string", "null"], "enum": ["a", None, None]}, "enum"),
        ({"type": ["string", "null"], "enum": [None]}, "enum"),
        ({"type": "integer", "enum": [1, 1.0]}, "enum"),
        ({"type": "integer", "enum": [1, True]}, "enum"),
        ({"type": "integer", "enum": [1.5]}, "enum"),
        ({"type": "integer", "enum": [2**53 + 1]}, "enum"),
        ({"type": "number", "enum": [1, True]}, "enum"),
        ({"type": "number", "minimum": 2, "maximum": 1}, "minimum"),
        ({"type": "number", "minimum": "1"}, "minimum"),
        ({"type": "number", "minimum": None}, "minimum"),
        ({"type": "number", "maximum": True}, "maximum"),
        ({"type": "number", "maximum": 1e39}, "maximum"),
        ({"type": "integer", "minimum": -(2**53) - 1}, "minimum"),
        ({"type": "boolean", "minimum": 0}, "minimum"),
        ({"type": "integer", "enum": [1], "maximum": 3}, "maximum"),
        ({"type": "number", "x-unknown": "ignore"}, "x-unknown"),
        ({"type": "string", "enum": ["a"], "x-unknown": "drop"}, "x-unknown"),
        ({"type": "string", "enum": ["a"], "x-unknown": ["ignore"]}, "x-unknown"),
        ({"type": "number", "title": 1}, "title"),
        ({"type": "number", "description": None}, "description"),
        ({"type": "number", "x-source": {}}, "x-source"),
    ],
)
def test_columns_outside_the_subset_are_refused_where_they_are(
    node: object, keyword: str | None
) -> None:
    with pytest.raises(SchemaError) as caught:
        ModelSchema.from_json(one_column(node))
    assert caught.value.pointer == "/properties/x" + (f"/{keyword}" if keyword else "")


def test_a_type_list_of_one_is_that_type() -> None:
    schema = ModelSchema.from_json(one_column({"type": ["number"]}))
    assert schema.columns == (Column("x", "number"),)


def test_pointers_escape_the_column_name() -> None:
    with pytest.raises(SchemaError, match="/properties/a~1b~0/type"):
        ModelSchema.from_json(one_column({"type": 1}, name="a/b~", required=("a/b~",)))


@pytest.mark.parametrize("document", [b"[]", b"{", b'{"type": "object", "type": "object"}', b"NaN"])
def test_a_document_that_is_no_strict_json_object_is_refused(document: bytes) -> None:
    with pytest.raises(SchemaError) as caught:
        ModelSchema.from_json(document)
    assert caught.value.pointer == ""


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "category"},
        {"kind": "number", "levels": ("a",)},
        {"kind": "category", "levels": (math.nan,)},
        {"kind": "category", "levels": (None,)},
        {"kind": "category", "levels": ("\ud800",)},
        {"kind": "number", "minimum": math.nan},
        {"kind": "number", "maximum": math.inf},
        {"kind": "number", "name": "\udfff"},
        {"kind": "number", "name": 1},
        {"kind": "number", "description": "\udfff"},
    ],
)
def test_a_column_that_contradicts_itself_cannot_be_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        Column(**{"name": "x"} | arguments)


def test_a_name_stands_once() -> None:
    with pytest.raises(SchemaError, match="twice"):
        ModelSchema((Column("x", "number"), Column("x", "boolean")))
