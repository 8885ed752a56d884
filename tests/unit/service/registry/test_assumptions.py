"""Whose level list it is: the data decide, and where they do not, the caller must."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from explainers.base import Level, RawColumns
from service.errors import InvalidInputError
from service.models.base import AssumedLevels, InputColumns
from service.registry import Registration, Registry
from service.registry.assumptions import check_assumed
from service.registry.work import Options

ROWS = 600
ANY_CODE = range(2**31)
Columns = dict[str, tuple[list[Any], tuple[Level, ...]]]


def check(columns: Columns, **codes: range) -> None:
    """Check columns of cells and the lists they got; codes seen are all of the list's."""
    count = len(columns)
    levels = tuple(known for _, known in columns.values())
    check_assumed(
        pd.DataFrame({name: pd.Series(cells) for name, (cells, _) in columns.items()}),
        InputColumns(
            RawColumns(tuple(columns), levels),
            accepts_missing=(True,) * count,
            unknown=tuple("missing" for _ in columns),
            assumed=tuple(
                AssumedLevels(name, codes.get(name, range(len(known))))
                for name, (_, known) in columns.items()
            ),
        ),
    )


@pytest.mark.parametrize(
    "columns",
    [
        {"a": (["x", "y", "z"], ("x", "y", "z"))},
        {"a": ([1, 2, 3], (1, 2, 3))},
        {"a": (["1", "2", "3"], ("1", "2", "3"))},
        {"a": ([0, 1, 2], (0, 1, 2))},
        {"a": ([True, False], (False, True))},
        {"a": ([-4, 10, 10, 20, None], (-4, 10, 20))},
        {"a": ([1, 2, 3], (1, 2, 3)), "b": ([1, 2, 3, 4], (1, 2, 3, 4))},
        {"a": (["n", "y"], ("n", "y")), "b": (["n", "y", "z"], ("n", "y", "z"))},
        {"a": (["n", "y"], ("n", "y")), "b": (["n", "y"], ("y", "n"))},
        {"a": ([0, 1], (0, 1)), "b": (["n", "y"], ("n", "y")), "c": (["n"], ("n", "y"))},
        {"a": ([0, 1], (0, 1)), "b": ([0, 1, 2], (0, 1, 2))},
    ],
)
def test_lists_that_the_data_bear_out_pass(columns: Columns) -> None:
    check(columns)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"a": ([0, 1, 2, 3], (1, 2, 3, 4))}, "a"),
        ({"a": (["0", "1", "2"], ("1", "2", "3"))}, "a"),
        ({"a": ([0, 1, 2], ("low", "mid", "high"))}, "a"),
        ({"a": ([0, 1], (1, 0))}, "a"),
        ({"a": ([0, 1], (0, 1, 5))}, "a"),
        ({"a": ([0, 0, 1], (0, 1)), "b": ([5, 6], (5, 6)), "c": ([5, 6], (6, 5))}, "b"),
        ({"a": ([0, 0, 1], (0, 1)), "b": ([5, 6], (5, 6)), "c": ([5, 6, 7], (5, 6, 7))}, "b"),
    ],
)
def test_lists_that_may_be_of_another_column_are_refused(columns: Columns, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{name}': .* does not say .*--categories"):
        check(columns)


def test_rare_codes_that_training_left_out_do_not_mislead() -> None:
    cells = [1] * 50 + [2] * 40 + [3] * 30 + [0]
    with pytest.raises(InvalidInputError, match="'a'"):
        check({"a": (cells, (0, 2, 1, 3))}, a=range(1, 4))
    check({"a": ([10] * 50 + [20] * 40 + [5], (5, 10, 20))}, a=range(1, 3))


def test_constant_column_takes_no_list_that_its_code_would_fit() -> None:
    check({"a": (["q", "q"], ("q",))}, a=ANY_CODE)
    with pytest.raises(InvalidInputError, match="'a'"):
        check({"a": ([2, 2], (1, 2, 3))}, a=ANY_CODE)


def registered(
    folder: Path, model: Any, frame: pd.DataFrame, y: Any, **options: Any
) -> Registration:
    model.booster_.save_model(folder / "model.txt")
    frame.assign(y=y).to_csv(folder / "data.csv", index=False)
    return Registry(folder / "registry").register_file(
        "m", folder / "model.txt", folder / "data.csv", "y", options=Options(**options)
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "grade": rng.integers(1, 5, ROWS),
            "code": rng.integers(0, 4, ROWS),
            "flag": rng.integers(0, 2, ROWS),
            "size": rng.normal(size=ROWS),
        }
    )


@pytest.fixture(scope="module")
def target(table: pd.DataFrame) -> pd.Series:
    return (table["grade"] + table["code"].isin([0, 3]) * 2 + table["size"] > 3.5).astype(int)


def classifier() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=10, num_leaves=8, n_jobs=1, verbose=-1)


def test_list_of_an_ordered_category_is_not_put_on_a_column_of_codes(
    tmp_path: Path, table: pd.DataFrame, target: pd.Series
) -> None:
    grades = pd.Categorical(table["grade"], categories=[1, 2, 3, 4], ordered=True)
    frame = table.assign(grade=grades)
    model = classifier().fit(frame, target, categorical_feature=["code"])
    with pytest.raises(InvalidInputError, match=r"'code': .*--categories"):
        registered(tmp_path, model, table, target)
    categories = {"grade": (1, 2, 3, 4), "code": (0, 1, 2, 3)}
    made = registered(tmp_path, model, table, target, categories=categories).model
    rows = table.assign(grade=table["grade"] - 1).to_numpy(dtype=float)
    np.testing.assert_array_equal(made.native.predict(rows).scores, model.predict_proba(frame))
    assert made.schema.columns[0].levels == (1, 2, 3, 4)


@pytest.mark.parametrize("categories", [["grade"], ["code"], ["grade", "code", "flag"]])
def test_plain_category_training_needs_no_levels(
    tmp_path: Path, table: pd.DataFrame, target: pd.Series, categories: list[str]
) -> None:
    frame = table.astype(dict.fromkeys(categories, "category"))
    made = registered(tmp_path, classifier().fit(frame, target), table, target).model
    kinds = {column.name: column.kind for column in made.schema.columns}
    assert [name for name, kind in kinds.items() if kind == "category"] == categories
    assert made.manifest.warnings == ()
