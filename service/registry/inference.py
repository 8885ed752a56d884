"""What registration reads off the data: schema, background, sample."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray, Level
from schemas import Column, ModelSchema, SchemaError
from schemas.model_schema import MAX_INTEGER
from service.errors import InvalidInputError
from service.models.base import InputColumns, Unknown
from service.privacy import PersonalLevels

if TYPE_CHECKING:
    import pandas as pd

JsonValue = Level | None
NO_LEVEL = "other"
"""An example for a column that takes any text and has no level that could be shown."""


def infer_schema(columns: InputColumns, rows: FloatArray, frame: "pd.DataFrame") -> ModelSchema:
    """The input schema: the model's own categories, the data's types and missing values.

    A column may be missing only where the data had missing values and the model takes them. No
    minimum or maximum but where the model's own input ends: the range seen is a warning's business,
    any other bound is a person's decision.
    """
    check_missing(columns, rows)
    try:
        return ModelSchema(
            tuple(
                _column(
                    columns,
                    name,
                    frame[name],
                    levels=levels,
                    nullable=bool(np.isnan(rows[:, i]).any()),
                    unknown=columns.unknown[i],
                )
                for i, (name, levels) in enumerate(
                    zip(columns.raw.names, columns.raw.levels, strict=True)
                )
            )
        )
    except SchemaError as error:
        raise InvalidInputError(f"the model's columns have no JSON form: {error}") from error


def _column(
    columns: InputColumns,
    name: str,
    series: "pd.Series",
    *,
    levels: tuple[Level, ...] | None,
    nullable: bool,
    unknown: Unknown,
) -> Column:
    if levels is not None:
        return Column(name, "category", levels, nullable=nullable, unknown=unknown)
    kind = _number_kind(series, is_whole=name in columns.whole)
    low, high = (columns.whole.get(name) if kind == "integer" else None) or (None, None)
    return Column(name, kind, nullable=nullable, minimum=low, maximum=high, unknown=unknown)


def check_missing(columns: InputColumns, rows: FloatArray) -> None:
    """InvalidInputError where the data have missing values and the model takes none."""
    for name, accepts, column in zip(
        columns.raw.names, columns.accepts_missing, rows.T, strict=True
    ):
        if not accepts and bool(np.isnan(column).any()):
            raise InvalidInputError(
                f"column {name!r} has missing values in the data, but the model takes none there"
            )


def _number_kind(series: "pd.Series", *, is_whole: bool) -> Literal["boolean", "integer", "number"]:
    """By the column's own type, or as the model takes whole numbers only; whole numbers with gaps
    are integers that pandas made float.
    """
    import pandas as pd

    if pd.api.types.is_bool_dtype(series):
        return "boolean"
    values = series.dropna().to_numpy(dtype=np.float64)
    is_seen_whole = len(values) > 0 and bool(np.all(values == np.floor(values)))
    has_gaps = len(values) < len(series)
    is_integer = is_whole or pd.api.types.is_integer_dtype(series) or (is_seen_whole and has_gaps)
    if not is_integer:
        return "number"
    return "integer" if bool(np.all(np.abs(values) < MAX_INTEGER)) else "number"


def check_schema(schema: ModelSchema, columns: InputColumns) -> None:
    """An edited schema must still name the model's columns, in order, with its own levels."""
    if schema.names != columns.raw.names:
        raise InvalidInputError(
            "the schema's columns are not the model's, in the model's order: "
            + ", ".join(map(repr, columns.raw.names))
        )
    for column, levels, takes_missing, unknown in zip(
        schema.columns,
        columns.raw.levels,
        columns.accepts_missing,
        columns.unknown,
        strict=True,
    ):
        if _typed(column.levels) != _typed(levels):
            raise InvalidInputError(
                f"the schema's enum of {column.name!r} is not the model's list of levels, in order"
            )
        if column.nullable and not takes_missing:
            raise InvalidInputError(f"{column.name!r} is nullable, but the model takes no missing")
        if column.unknown not in {"refuse", unknown, "missing" if takes_missing else "refuse"}:
            raise InvalidInputError(
                f"x-unknown of {column.name!r} is {column.unknown!r}, "
                "but the model does not take unknown levels so"
            )


def with_sources(schema: ModelSchema, sources: Mapping[str, str]) -> ModelSchema:
    """The same with the `x-source` of these columns; InvalidInputError for one it does not have."""
    strange = sorted({*sources} - {*schema.names})
    if strange:
        raise InvalidInputError(f"there is no column {strange[0]!r} to name the source of")
    try:
        columns = tuple(
            replace(column, source=sources.get(column.name, column.source))
            for column in schema.columns
        )
    except SchemaError as error:
        raise InvalidInputError(str(error)) from error
    return replace(schema, columns=columns)


def _typed(levels: tuple[Level, ...] | None) -> list[tuple[bool, Level]] | None:
    # True == 1 in Python, but not in JSON.
    return None if levels is None else [(type(v) in (str, bool), v) for v in levels]


def admitted_rows(schema: ModelSchema, rows: FloatArray) -> NDArray[np.bool_]:
    """(N,) whether the row could be a request: no level, gap or number the schema refuses."""
    admitted = np.ones(len(rows), dtype=np.bool_)
    for column, values in zip(schema.columns, rows.T, strict=True):
        is_missing = np.isnan(values)
        fits = is_missing if column.nullable else np.zeros_like(is_missing)
        admitted &= fits | (~is_missing & _fits(column, values))
    return admitted


def _fits(column: Column, values: FloatArray) -> NDArray[np.bool_]:
    if column.kind == "category":
        return values >= 0
    if column.kind == "boolean":
        return np.isin(values, (0.0, 1.0))
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    within: NDArray[np.bool_] = (values >= low) & (values <= high)
    return within & (values == np.floor(values)) if column.kind == "integer" else within


def draw_rows(total: int, count: int, seed: int) -> IntArray:
    """`count` distinct row numbers drawn with the recorded seed; all when there are no more."""
    if count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=count, replace=False))


def instances_of(schema: ModelSchema, rows: FloatArray) -> list[dict[str, JsonValue]]:
    """Coded rows as the JSON instances an application would send."""
    return [
        {
            column.name: _decode(column, value)
            for column, value in zip(schema.columns, row, strict=True)
        }
        for row in rows.tolist()
    ]


def _decode(column: Column, value: float) -> JsonValue:
    if np.isnan(value):
        return None
    if column.levels is not None:
        if value < 0:
            raise ValueError(f"a level of {column.name!r} outside the schema has no JSON form")
        return column.levels[int(value)]
    if column.kind == "boolean":
        return bool(value)
    return int(value) if column.kind == "integer" else value


def rows_of(schema: ModelSchema, instances: list[dict[str, JsonValue]]) -> FloatArray:
    """The inverse of `instances_of`, for stored instances."""
    coders = [
        {(type(level), level): float(i) for i, level in enumerate(column.levels)}
        if column.levels is not None
        else None
        for column in schema.columns
    ]
    rows = np.empty((len(instances), len(schema.columns)))
    for r, instance in enumerate(instances):
        for c, (column, coder) in enumerate(zip(schema.columns, coders, strict=True)):
            value = instance[column.name]
            if value is None:
                rows[r, c] = np.nan
            else:
                rows[r, c] = float(value) if coder is None else coder[(type(value), value)]
    return rows


def synthetic_sample(
    schema: ModelSchema, rows: FloatArray, personal: PersonalLevels = MappingProxyType({})
) -> dict[str, JsonValue]:
    """Medians and most frequent levels: a request that works and is nobody's row."""
    sample: dict[str, JsonValue] = {}
    for column, values in zip(schema.columns, rows.T, strict=True):
        known = values[~np.isnan(values)]
        if personal.get(column.name):
            sample[column.name] = _harmless(column, known, personal[column.name])
        elif not len(known):
            sample[column.name] = None
        elif column.levels is not None or column.kind == "boolean":
            levels, counts = np.unique(known[known >= 0], return_counts=True)
            sample[column.name] = _decode(column, float(levels[np.argmax(counts)]))
        else:
            sample[column.name] = _middle(column, known)
    return sample


def _harmless(column: Column, known: FloatArray, personal: frozenset[str]) -> JsonValue:
    """The most frequent level that is no personal data, else what the column takes instead."""
    codes = [code for code, level in enumerate(column.levels or ()) if str(level) not in personal]
    if codes:
        return _decode(column, max(codes, key=lambda code: int(np.sum(known == code))))
    return None if column.nullable else NO_LEVEL


def _middle(column: Column, known: FloatArray) -> float:
    middle = float(np.median(known))
    if column.kind == "integer":
        return round(middle)
    short = float(f"{middle:.6g}")
    return short if _fits(column, np.array([short]))[0] else middle
