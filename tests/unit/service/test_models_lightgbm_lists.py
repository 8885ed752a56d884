"""Level lists in LightGBM's text name no column: what is assumed and what is refused."""

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from explainers.base import FloatArray, Level
from service.models.errors import UnknownCategoriesError
from service.models.lightgbm import LightGBMModel, dump_lightgbm, load_lightgbm

ROWS = 600
LEVELS: dict[str, tuple[Level, ...]] = {"grade": (1, 2, 3, 4), "code": (0, 1, 2, 3)}
COMMON = {"n_estimators": 10, "num_leaves": 7, "n_jobs": 1, "verbose": -1}


@pytest.fixture(scope="module")
def codes() -> FloatArray:
    return np.random.default_rng(4).integers(0, 4, size=(ROWS, 2)).astype(np.float64)


def fitted(codes: FloatArray, *, ordered: bool, **options: Any) -> tuple[Any, pd.DataFrame]:
    """A regressor on a pandas category and a column of codes."""
    grades = pd.Categorical(codes[:, 0] + 1, categories=[1, 2, 3, 4], ordered=ordered)
    frame = pd.DataFrame({"grade": grades, "code": codes[:, 1]})
    model = lightgbm.LGBMRegressor(**COMMON)
    return model.fit(frame, codes[:, 0] + (codes[:, 1] % 2), **options), frame


def loaded(model: Any, **options: Any) -> LightGBMModel:
    return load_lightgbm(dump_lightgbm(model)[0], **options)


@pytest.mark.parametrize("name", ["grade", "code"])
def test_given_levels_fewer_than_the_codes_are_refused(codes: FloatArray, name: str) -> None:
    model = lightgbm.LGBMRegressor(**COMMON)
    model.fit(codes, codes.sum(axis=1), categorical_feature=[0, 1])
    short = LEVELS | {name: LEVELS[name][:3]}
    with pytest.raises(UnknownCategoriesError, match=f"'{name}': .* code 3, more than 3 levels"):
        loaded(model, names=tuple(LEVELS), categories=short)
    assert loaded(model, names=tuple(LEVELS), categories=LEVELS).columns.assumed == ()


def test_stored_list_is_assumed_until_the_caller_names_it(codes: FloatArray) -> None:
    model, _ = fitted(codes, ordered=False)
    assumed = loaded(model).columns.assumed
    assert [(entry.column, sorted(entry.codes)) for entry in assumed] == [("grade", [0, 1, 2, 3])]
    assert loaded(model, categories={"grade": (1, 2, 3, 4)}).columns.assumed == ()


def test_any_code_may_be_that_of_a_constant_column(codes: FloatArray) -> None:
    model, _ = fitted(codes * [0, 1], ordered=False, categorical_feature=["grade"])
    (assumed,) = loaded(model).columns.assumed
    assert 12345 in assumed.codes


def test_list_of_an_ordered_category_yields_to_the_callers_levels(codes: FloatArray) -> None:
    model, frame = fitted(codes, ordered=True, categorical_feature=["code"])
    assert [entry.column for entry in loaded(model).columns.assumed] == ["code"]
    served = loaded(model, categories=LEVELS)
    assert served.columns.raw.levels == tuple(LEVELS.values())
    np.testing.assert_array_equal(served.predict(codes).scores[:, 0], model.predict(frame))
    with pytest.raises(UnknownCategoriesError, match="ordered ones too"):
        loaded(model, categories={"code": (0, 1, 2, 3)})


def test_columns_tell_whose_names_they_have(codes: FloatArray) -> None:
    nameless = lightgbm.LGBMRegressor(**COMMON).fit(codes, codes[:, 0])
    assert loaded(nameless, names=tuple("wx")).columns.names_are_given
    assert not loaded(nameless).columns.names_are_given
    named, _ = fitted(codes, ordered=False)
    assert not loaded(named, names=tuple(LEVELS)).columns.names_are_given
