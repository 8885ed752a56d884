"""What registration reads off the data: schema, background, reference statistics, sample."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from explainers.base import FloatArray, Level
from schemas import Column, ModelSchema
from service.errors import InvalidInputError
from service.models.base import InputColumns

if TYPE_CHECKING:
    import pandas as pd

JsonValue = Level | None
BASELINE_BINS = 10


def infer_schema(columns: InputColumns, rows: FloatArray, frame: "pd.DataFrame") -> ModelSchema:
    """The input schema: the model's own categories, the data's types and missing values.

    A column may be missing only where the data had missing values and the model takes them. No
    minimum or maximum: the range seen is a warning's business, a bound is a person's decision.
    """
    missing = [bool(np.isnan(column).any()) for column in rows.T]
    made = []
    for i, (name, levels) in enumerate(zip(columns.raw.names, columns.raw.levels, strict=True)):
        if missing[i] and not columns.accepts_missing[i]:
            raise InvalidInputError(
                f"column {name!r} has missing values in the data, but the model takes none there"
            )
        made.append(
            Column(
                name=name,
                kind="category" if levels is not None else _number_kind(frame[name], rows[:, i]),
                levels=levels,
                nullable=missing[i],
                unknown=columns.unknown[i],
            )
        )
    return ModelSchema(columns=tuple(made))


def _number_kind(
    series: "pd.Series", values: FloatArray
) -> Literal["boolean", "integer", "number"]:
    import pandas as pd

    if pd.api.types.is_bool_dtype(series):
        return "boolean"
    known = values[~np.isnan(values)]
    whole = len(known) > 0 and bool(np.all(known == np.floor(known)))
    return "integer" if whole and bool(np.all(np.abs(known) < 2**53)) else "number"


def check_schema(schema: ModelSchema, columns: InputColumns) -> None:
    """An edited schema must still name the model's columns, in order, with its own levels."""
    names = tuple(column.name for column in schema.columns)
    if names != columns.raw.names:
        raise InvalidInputError(
            "the schema's columns are not the model's, in the model's order: "
            + ", ".join(map(repr, columns.raw.names))
        )
    for column, levels, takes_missing in zip(
        schema.columns, columns.raw.levels, columns.accepts_missing, strict=True
    ):
        if (column.levels is None) != (levels is None) or (
            levels is not None and tuple(column.levels or ()) != tuple(levels)
        ):
            raise InvalidInputError(
                f"the schema's enum of {column.name!r} is not the model's list of levels, in order"
            )
        if column.nullable and not takes_missing:
            raise InvalidInputError(f"{column.name!r} is nullable, but the model takes no missing")


def draw_background(rows: FloatArray, count: int, seed: int) -> FloatArray:
    """`count` distinct rows drawn with the recorded seed; all rows when there are no more."""
    if count >= len(rows):
        return rows.copy()
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return rows[np.sort(chosen)]


def known_rows(schema: ModelSchema, rows: FloatArray) -> FloatArray:
    """The rows without levels outside the schema: those that can be stored as instances."""
    categories = [i for i, column in enumerate(schema.columns) if column.levels is not None]
    return rows[~(rows[:, categories] < 0).any(axis=1)]


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


def baseline_of(schema: ModelSchema, rows: FloatArray, scores: FloatArray) -> dict[str, object]:
    """Per column: share missing and either decile edges with their shares or level shares."""
    columns = {
        column.name: _statistics(column, rows[:, i]) for i, column in enumerate(schema.columns)
    }
    return {
        "rows": len(rows),
        "columns": columns,
        "scores": [_histogram(scores[:, k]) for k in range(scores.shape[1])],
    }


def _statistics(column: Column, values: FloatArray) -> dict[str, object]:
    known = values[~np.isnan(values)]
    entry: dict[str, object] = {"missing_share": 1.0 - len(known) / len(values)}
    levels = 2 if column.kind == "boolean" else len(column.levels or ())
    if levels:
        counts = np.bincount(known[known >= 0].astype(np.int64), minlength=levels)
        entry["level_shares"] = (counts / max(len(values), 1)).tolist()
    elif len(known):
        entry |= {"minimum": float(known.min()), "maximum": float(known.max())}
        entry |= _histogram(known)
    return entry


def _histogram(values: FloatArray) -> dict[str, object]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BASELINE_BINS + 1)[1:-1]))
    shares = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (shares / len(values)).tolist()}


def synthetic_sample(schema: ModelSchema, rows: FloatArray) -> dict[str, JsonValue]:
    """Medians and most frequent levels: a request that works and is nobody's row."""
    sample: dict[str, JsonValue] = {}
    for column, values in zip(schema.columns, rows.T, strict=True):
        known = values[~np.isnan(values)]
        if not len(known):
            sample[column.name] = None
        elif column.levels is not None or column.kind == "boolean":
            levels, counts = np.unique(known[known >= 0], return_counts=True)
            sample[column.name] = _decode(column, float(levels[np.argmax(counts)]))
        else:
            middle = float(np.median(known))
            sample[column.name] = round(middle) if column.kind == "integer" else round(middle, 6)
    return sample
