"""What one value of a column must be: the definitive check, with the words of its refusals."""

import math
from collections.abc import Callable
from typing import LiteralString

from pydantic_core import PydanticCustomError

from schemas.model_schema import MAX_INTEGER, MAX_NUMBER, Column, Level

Check = Callable[[object], Level | None]
"""Gives the value as it is stored and scored, or raises PydanticCustomError(code, detail)."""


def cell_check(column: Column) -> Check:
    """The check for one column's JSON value, null included."""
    check = _check_by_kind(column)
    if column.nullable:
        return lambda value: None if value is None else check(value)

    def refuse_null(value: object) -> Level | None:
        if value is None:
            raise PydanticCustomError("missing_value", "must not be null")
        return check(value)

    return refuse_null


def _check_by_kind(column: Column) -> Check:
    if column.kind == "category":
        return _category(column)
    if column.kind == "boolean":
        return _boolean
    return _bounded(column, _integer if column.kind == "integer" else _number)


def _number(value: object) -> float:
    if type(value) is int:
        _limit(value, MAX_INTEGER, "an integer beyond 2^53 is not exact")
        return float(value)
    if type(value) is not float:
        raise PydanticCustomError("not_a_number", "must be a number")
    _refuse_infinity(value)
    _limit(value, MAX_NUMBER, "must be within the range of a 32-bit float")
    return value


def _integer(value: object) -> int:
    if type(value) is float:
        _refuse_infinity(value)
        if not value.is_integer():
            raise PydanticCustomError("not_an_integer", "must be a whole number")
        value = int(value)
    elif type(value) is not int:
        raise PydanticCustomError("not_an_integer", "must be a whole number")
    _limit(value, MAX_INTEGER, "an integer beyond 2^53 is not exact")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise PydanticCustomError("not_a_boolean", "must be true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("not_text", "must be text")
    return value


def _integer_if_whole(value: object) -> float:
    number = _number(value)
    return int(number) if number.is_integer() and abs(number) <= MAX_INTEGER else number


_OF_LEVEL_TYPE: dict[str | None, Callable[[object], Level]] = {
    "string": _text,
    "integer": _integer_if_whole,
    "number": _number,
    "boolean": _boolean,
}


def _category(column: Column) -> Check:
    of_level_type = _OF_LEVEL_TYPE[column.level_type]
    known = frozenset(column.levels or ())

    def check(value: object) -> Level:
        level = of_level_type(value)
        if level not in known and column.unknown == "refuse":
            raise PydanticCustomError("unknown_category", "is not one of the known categories")
        return level

    return check


def _bounded(column: Column, check: Callable[[object], float]) -> Check:
    minimum, maximum = column.minimum, column.maximum

    def check_bounds(value: object) -> float:
        number = check(value)
        if minimum is not None and number < minimum:
            raise PydanticCustomError("below_minimum", "is below the schema's minimum")
        if maximum is not None and number > maximum:
            raise PydanticCustomError("above_maximum", "is above the schema's maximum")
        return number

    return check if minimum is None and maximum is None else check_bounds


def _refuse_infinity(value: float) -> None:
    if math.isinf(value):
        raise PydanticCustomError("not_finite", "is beyond every finite number")


def _limit(value: float, limit: float, detail: LiteralString) -> None:
    if value > limit:
        raise PydanticCustomError("too_large", detail)
    if value < -limit:
        raise PydanticCustomError("too_small", detail)
