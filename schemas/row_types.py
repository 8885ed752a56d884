"""The pydantic type of one instance, made from a model's schema."""

from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, create_model

from schemas.cells import cell_check
from schemas.model_schema import MAX_INTEGER, MAX_NUMBER, Column, Level, ModelSchema


def row_type(schema: ModelSchema) -> type[BaseModel]:
    """Strict type of one instance: fields c0, c1, ... in schema order, aliased to the columns.

    Any text is a legal column name, so the names are aliases and never attributes.
    """
    fields = {f"c{index}": _field(column) for index, column in enumerate(schema.columns)}
    config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)
    # create_model is typed for literal keywords only.
    made = create_model("Instance", __config__=config, **fields)  # type: ignore[call-overload]
    return cast("type[BaseModel]", made)


def wire_schema(column: Column) -> dict[str, object]:
    """JSON Schema of what a request may hold in this column.

    Beside the model's schema it shows the limits of the wire, and lists the known categories as
    examples where others are accepted too.
    """
    members = column.to_json()
    if column.unknown != "refuse":
        members["examples"] = members.pop("enum")
    limits = {"integer": MAX_INTEGER, "number": MAX_NUMBER}
    if column.kind in limits:
        limit = limits[column.kind]
        members = {"minimum": -limit, "maximum": limit} | members
    return members


def _field(column: Column) -> tuple[object, object]:
    cell = Annotated[
        Level | None, PlainValidator(cell_check(column)), WithJsonSchema(wire_schema(column))
    ]
    default = ... if column.is_required else None
    return cell, Field(default, alias=column.name, title=column.title or column.name)
