"""The fast reading of a request body: accepts only what is right beyond doubt.

Everything refused here is read again by `schemas.definitive`, so the constraints may be tighter
than the contract but never looser.
"""

import math

from pydantic_core import SchemaValidator, core_schema
from pydantic_core.core_schema import CoreSchema

from schemas.definitive import MAX_SUBJECT_LENGTH
from schemas.model_schema import MAX_INTEGER, Column, Level, ModelSchema

QuickRow = tuple[dict[str, Level | None], None, set[str]]
"""Values in schema order, nothing, and the columns that were given."""


def quick_validator(schema: ModelSchema) -> SchemaValidator:
    """Validator of JSON bytes; gives a dict with instances (QuickRow) and maybe subjects."""
    row = core_schema.model_fields_schema(
        {f"c{index}": _field(column) for index, column in enumerate(schema.columns)},
        extra_behavior="forbid",
    )
    subject = core_schema.str_schema(strict=True, min_length=1, max_length=MAX_SUBJECT_LENGTH)
    subjects = core_schema.list_schema(
        core_schema.nullable_schema(subject), strict=True, fail_fast=True
    )
    instances = core_schema.list_schema(row, strict=True, min_length=1, fail_fast=True)
    members = {
        "instances": core_schema.typed_dict_field(instances, required=True),
        "subjects": core_schema.typed_dict_field(subjects, required=False),
    }
    return SchemaValidator(core_schema.typed_dict_schema(members, extra_behavior="forbid"))


def _field(column: Column) -> core_schema.ModelField:
    cell = _cell(column)
    if column.nullable:
        cell = core_schema.nullable_schema(cell)
    if not column.is_required:
        cell = core_schema.with_default_schema(cell, default=None)
    return core_schema.model_field(cell, validation_alias=column.name)


def _cell(column: Column) -> CoreSchema:
    kind = column.level_type or column.kind
    if kind == "boolean":
        return core_schema.bool_schema(strict=True)
    if kind == "integer":
        return _integer(column)
    if kind == "number":
        return _number(column)
    if column.levels is not None and column.unknown == "refuse":
        return core_schema.literal_schema(list(column.levels))
    return core_schema.str_schema(strict=True)


def _integer(column: Column) -> CoreSchema:
    low, high = column.minimum, column.maximum
    return core_schema.int_schema(
        strict=True,
        ge=-MAX_INTEGER if low is None else math.ceil(low),
        le=MAX_INTEGER if high is None else math.floor(high),
    )


def _number(column: Column) -> CoreSchema:
    # Exclusive: an integer literal just beyond 2^53 rounds to 2^53 before it is compared.
    return core_schema.float_schema(
        strict=True,
        allow_inf_nan=False,
        gt=-float(MAX_INTEGER),
        lt=float(MAX_INTEGER),
        ge=column.minimum,
        le=column.maximum,
    )
