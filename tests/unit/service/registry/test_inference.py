from collections.abc import Callable
from dataclasses import replace

import numpy as np
import orjson
import pandas as pd
import pytest

from explainers.base import RawColumns
from schemas import Column, ModelSchema, RowCodec
from service.errors import InvalidInputError
from service.models.base import InputColumns
from service.registry.inference import (
    admitted_rows,
    check_schema,
    draw_rows,
    infer_schema,
    instances_of,
    rows_of,
    synthetic_sample,
)
from service.registry.tables import encode_frame

LEVELS = ("low", "high")


def columns_of(frame: pd.DataFrame, *, accepts_missing: bool = True) -> InputColumns:
    levels = tuple(LEVELS if name == "grade" else None for name in frame)
    return InputColumns(
        raw=RawColumns(tuple(frame.columns), levels),
        accepts_missing=(accepts_missing,) * len(levels),
        unknown=tuple("missing" if known else "refuse" for known in levels),
    )


def inferred(frame: pd.DataFrame, *, accepts_missing: bool = True) -> ModelSchema:
    columns = columns_of(frame, accepts_missing=accepts_missing)
    rows = encode_frame(frame, columns.raw, unknown={})
    return infer_schema(columns, rows, frame)


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("values", "kind", "nullable"),
    [
        (pd.Series([1, 2]), "integer", False),
        (pd.Series([1.0, 2.0]), "number", False),
        (pd.Series([1.0, None]), "integer", True),
        (pd.Series([1.5, None]), "number", True),
        (pd.Series([1, None], dtype="Int64"), "integer", True),
        (pd.Series([True, False]), "boolean", False),
        (pd.Series([True, None], dtype="boolean"), "boolean", True),
        (pd.Series([2**53, 1]), "number", False),
        (pd.Series([np.nan, np.nan]), "number", True),
    ],
)
def test_kind_is_the_columns_own_and_missing_is_allowed_where_seen(
    values: pd.Series, kind: str, *, nullable: bool
) -> None:
    column = inferred(pd.DataFrame({"c": values})).columns[0]
    assert (column.kind, column.nullable) == (kind, nullable)
    assert column.minimum is None
    assert column.maximum is None


def test_categories_are_the_models_with_its_way_to_meet_unknown_levels() -> None:
    column = inferred(table(grade=["high", None, "low"])).columns[0]
    assert column == Column("grade", "category", LEVELS, nullable=True, unknown="missing")


def test_missing_values_where_the_model_takes_none_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'c' has missing values in the data"):
        inferred(table(c=[1.0, None]), accepts_missing=False)


def test_levels_without_a_json_form_are_refused() -> None:
    columns = InputColumns(RawColumns(("c",), (("a", 1),)), (True,), ("refuse",))
    with pytest.raises(InvalidInputError, match="no JSON form"):
        infer_schema(columns, np.zeros((2, 1)), table(c=["a", "a"]))


BASE = table(count=[1, 2], grade=["high", "low"])

Edit = Callable[[tuple[Column, ...]], tuple[Column, ...]]


def edited(edit: Edit, *, accepts_missing: bool = True) -> None:
    schema = ModelSchema(edit(inferred(BASE).columns))
    check_schema(
        ModelSchema.from_json(orjson.dumps(schema.to_json())),
        columns_of(BASE, accepts_missing=accepts_missing),
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c,
        lambda c: (replace(c[0], minimum=0, maximum=9), c[1]),
        lambda c: (replace(c[0], kind="number"), c[1]),
        lambda c: (replace(c[0], nullable=True), replace(c[1], nullable=True)),
        lambda c: (c[0], replace(c[1], unknown="refuse", title="Grade")),
    ],
)
def test_schema_may_be_bounded_relaxed_and_annotated(edit: Edit) -> None:
    edited(edit)


@pytest.mark.parametrize(
    ("edit", "refusal"),
    [
        (lambda c: c[::-1], "in the model's order: 'count', 'grade'"),
        (lambda c: c[:1], "not the model's"),
        (lambda c: (replace(c[0], name="counts"), c[1]), "not the model's"),
        (lambda c: (c[0], replace(c[1], levels=LEVELS[::-1])), "enum of 'grade'"),
        (lambda c: (c[0], replace(c[1], levels=("low",))), "enum of 'grade'"),
        (lambda c: (replace(c[0], kind="category", levels=(1, 2)), c[1]), "enum of 'count'"),
        (lambda c: (c[0], replace(c[1], unknown="ignore")), "x-unknown of 'grade'"),
    ],
)
def test_schema_that_changes_what_the_model_reads_is_refused(edit: Edit, refusal: str) -> None:
    with pytest.raises(InvalidInputError, match=refusal):
        edited(edit)


def test_schema_may_not_allow_missing_where_the_model_takes_none() -> None:
    with pytest.raises(InvalidInputError, match="'count' is nullable"):
        edited(lambda c: (replace(c[0], nullable=True), c[1]), accepts_missing=False)


def test_true_and_one_are_different_levels() -> None:
    columns = InputColumns(RawColumns(("c",), ((False, True),)), (True,), ("refuse",))
    schema = ModelSchema((Column("c", "category", (0, 1)),))
    with pytest.raises(InvalidInputError, match="enum of 'c'"):
        check_schema(schema, columns)


@pytest.mark.parametrize(
    ("column", "fits", "does_not"),
    [
        (Column("c", "number", minimum=0, maximum=2), [0, 2, 0.5], [-0.1, 2.1, np.nan]),
        (Column("c", "integer", nullable=True), [3, np.nan], [0.5]),
        (Column("c", "boolean"), [0, 1], [2, 0.5, np.nan]),
        (Column("c", "category", LEVELS), [0, 1], [-1, np.nan]),
    ],
)
def test_rows_the_schema_refuses_are_not_admitted(
    column: Column, fits: list[float], does_not: list[float]
) -> None:
    rows = np.array([[cell] for cell in [*fits, *does_not]])
    expected = [True] * len(fits) + [False] * len(does_not)
    assert admitted_rows(ModelSchema((column,)), rows).tolist() == expected


def test_draw_is_seeded_distinct_and_all_rows_when_there_are_no_more() -> None:
    drawn = draw_rows(1000, 100, 7)
    assert drawn.tolist() == draw_rows(1000, 100, 7).tolist()
    assert drawn.tolist() != draw_rows(1000, 100, 8).tolist()
    assert len(set(drawn.tolist())) == 100
    assert draw_rows(5, 5, 7).tolist() == draw_rows(5, 100, 0).tolist() == [0, 1, 2, 3, 4]


MIXED = table(
    count=[1, 2, 4, 9],
    share=[1e-9, 2.25e-9, 3.123456789e-9, 5e-9],
    flag=[True, False, True, True],
    grade=["high", None, "high", "low"],
)


def test_instances_come_back_as_the_same_rows_through_json() -> None:
    schema = inferred(MIXED)
    rows = encode_frame(MIXED, columns_of(MIXED).raw, unknown={})
    instances = orjson.loads(orjson.dumps(instances_of(schema, rows)))
    np.testing.assert_array_equal(rows_of(schema, instances), rows)
    assert instances[1] == {"count": 2, "share": 2.25e-9, "flag": False, "grade": None}


def test_level_outside_the_schema_has_no_json_form() -> None:
    with pytest.raises(ValueError, match="outside the schema"):
        instances_of(inferred(MIXED), np.array([[1, 1, 1, -1.0]]))


def test_sample_is_medians_and_modes_and_the_service_accepts_it() -> None:
    schema = inferred(MIXED)
    rows = encode_frame(MIXED, columns_of(MIXED).raw, unknown={})
    sample = synthetic_sample(schema, rows)
    assert sample == {"count": 3, "share": 2.68673e-09, "flag": True, "grade": "high"}
    RowCodec(schema).decode(orjson.dumps({"instances": [sample]}), max_instances=1)


def test_sample_stays_inside_narrow_bounds() -> None:
    low = 0.12345678
    schema = ModelSchema((Column("c", "number", minimum=low, maximum=low),))
    sample = synthetic_sample(schema, np.full((3, 1), low))
    RowCodec(schema).decode(orjson.dumps({"instances": [sample]}), max_instances=1)


def test_column_that_is_always_missing_is_null_in_the_sample() -> None:
    frame = table(c=[np.nan, np.nan])
    assert synthetic_sample(inferred(frame), np.full((2, 1), np.nan)) == {"c": None}
