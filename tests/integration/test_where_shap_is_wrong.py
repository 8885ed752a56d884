"""Where shap is silently wrong or refuses, our values are brute force through the real model.

Each case is reproduced: shap's own gap is asserted too, on plain training rows, so that the list
stays true of the version that is installed.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import shap
import trap_tables as table
import xgboost
from catboost import CatBoostClassifier, CatBoostRegressor
from mixed_pipelines import labels, mixed_frame, preprocessing, stored_pipeline
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from stored_models import Stored, Truth, assert_exact, stored

from explainers.base import FloatArray
from explainers.exact import interventional_values
from service.models.formats import artifact_of_model, load_model
from service.registry import Registry
from service.registry.work import Options

XGBOOST = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1, "random_state": 0}
LIGHTGBM = {"n_estimators": 12, "num_leaves": 12, "min_child_samples": 5, "verbose": -1}
HISTOGRAM = {"max_iter": 12, "min_samples_leaf": 5, "random_state": 0}
CATBOOST = {"iterations": 10, "depth": 4, "verbose": False, "allow_writing_files": False}
FAR = 0.1
"""Of the largest value: shap is off by more."""

Rows = Callable[[FloatArray], Any]
Case = tuple[Any, Stored, Rows]
"""The fitted model, the same one stored, and coded rows as the library takes them."""


def xgboost_dart() -> Case:
    model = xgboost.XGBRegressor(booster="dart", rate_drop=0.5, **XGBOOST)
    return of_xgboost(model.fit(table.GAPPY, table.TARGET))


def xgboost_multiclass() -> Case:
    return of_xgboost(xgboost.XGBClassifier(**XGBOOST).fit(table.GAPPY, table.THREE))


def of_xgboost(model: Any) -> Case:
    library = stored(model, table.GAPPY, lambda X: model.predict(X, output_margin=True))
    return model, library, np.asarray


def lightgbm_zero_as_missing() -> Case:
    model = lightgbm.LGBMRegressor(zero_as_missing=True, **LIGHTGBM)
    return of_lightgbm(model.fit(table.ZEROS, table.TARGET), table.ZEROS)


def lightgbm_missing_at_prediction_only() -> Case:
    return of_lightgbm(lightgbm.LGBMRegressor(**LIGHTGBM).fit(table.FILLED, table.TARGET))


def of_lightgbm(model: Any, rows: FloatArray = table.GAPPY) -> Case:
    return model, stored(model, rows, lambda X: model.predict(X, raw_score=True)), np.asarray


def catboost_regressor() -> Case:
    model = CatBoostRegressor(**CATBOOST).fit(table.GAPPY, table.TARGET + 5)
    return model, stored(model, table.GAPPY, model.predict), np.asarray


def histogram_boosting_with_categories() -> Case:
    model = HistGradientBoostingRegressor(categorical_features=[1, 3], **HISTOGRAM)
    model.fit(table.CODED, table.CODED_TARGET)
    columns = load_model(artifact_of_model(model), names=table.NAMES).columns.raw

    def cells(X: FloatArray) -> FloatArray:
        known = X.copy()
        for column, levels in enumerate(columns.levels):
            if levels is not None:
                of_code = np.array([*levels, 1000.0, np.nan])
                codes = np.where(X[:, column] < 0, len(levels), X[:, column])
                known[:, column] = of_code[np.nan_to_num(codes, nan=len(levels) + 1).astype(int)]
        return known

    codes = table.CODED.copy()
    for column, levels in enumerate(columns.levels):
        if levels is not None:
            is_known = ~np.isnan(codes[:, column])
            codes[is_known, column] = np.searchsorted(levels, codes[is_known, column])
    library = stored(model, codes, lambda X: model.predict(cells(X)), names=table.NAMES)
    return model, library, cells


WRONG_VALUES = {
    "HistGradientBoosting with categories": histogram_boosting_with_categories,
    "XGBoost dart": xgboost_dart,
    "LightGBM zero_as_missing": lightgbm_zero_as_missing,
    "LightGBM missing at prediction only": lightgbm_missing_at_prediction_only,
}
WRONG_BASE_VALUES = {
    "XGBoost multiclass": xgboost_multiclass,
    "CatBoost regressor": catboost_regressor,
}


def by_shap(model: Any, truth: Truth, rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Values (N, F, C) and base values (C,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.TreeExplainer(
            model, rows(truth.background), feature_perturbation="interventional"
        )
        values = np.asarray(explainer.shap_values(rows(truth.rows), check_additivity=False))
    return values.reshape(truth.values.shape), np.atleast_1d(explainer.expected_value)


def plain(model: Stored) -> Truth:
    return Truth.of(model.library, model.rows[200:212], model.rows[:16])


@pytest.mark.parametrize("make", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_our_values_are_brute_force_where_shaps_are_wrong(make: Callable[[], Case]) -> None:
    fitted, model, rows = make()
    assert_exact(model)
    truth = plain(model)
    values, _ = by_shap(fitted, truth, rows)
    assert np.abs(values - truth.values).max() > FAR * np.abs(truth.values).max()


@pytest.mark.parametrize("make", WRONG_BASE_VALUES.values(), ids=WRONG_BASE_VALUES)
def test_our_base_values_are_the_mean_where_shaps_are_not(make: Callable[[], Case]) -> None:
    fitted, model, rows = make()
    assert_exact(model)
    truth = plain(model)
    _, base_values = by_shap(fitted, truth, rows)
    assert np.abs(base_values - truth.base_values).max() > FAR * np.abs(truth.values).max()


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise"])
def test_catboost_of_several_classes_is_exact_where_shap_ends_the_process(policy: str) -> None:
    # shap itself is not called: it reads beyond its memory.
    model = CatBoostClassifier(grow_policy=policy, **CATBOOST).fit(table.GAPPY, table.THREE)
    assert_exact(
        stored(model, table.GAPPY, lambda X: model.predict(X, prediction_type="RawFormulaVal"))
    )


@pytest.mark.parametrize("library", [xgboost.XGBRegressor, lightgbm.LGBMRegressor])
def test_category_sets_are_exact_where_shap_refuses_them(library: Any) -> None:
    is_xgboost = library is xgboost.XGBRegressor
    options = XGBOOST | {"enable_categorical": True} if is_xgboost else LIGHTGBM
    model = library(**options).fit(table.framed(table.CODED), table.CODED_TARGET)
    coded = stored(model, table.CODED, lambda X: model.predict(table.framed(X)))
    assert_exact(coded)
    assert coded.trees.is_category.any()
    with pytest.raises(Exception, match=r"[Cc]ategorical|dtype"):
        by_shap(model, plain(coded), table.framed)


def test_pipelines_of_string_columns_are_exact_where_shap_refuses_them() -> None:
    frame = mixed_frame().iloc[:500]
    model = make_pipeline(preprocessing(), RandomForestClassifier(9, max_depth=5, random_state=0))
    model.fit(frame, labels(frame))
    assert_exact(stored_pipeline(model, frame, lambda m, rows: m.predict_proba(rows)[:, 1:]))
    for refused in (model, model[-1]):
        with pytest.raises(Exception, match=r"not yet supported|dtype"):
            shap.TreeExplainer(refused, frame[:50]).shap_values(frame[:5])


def test_columns_are_read_by_name_where_shap_and_lightgbm_read_them_by_place(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame(table.FILLED, columns=list("abcd"))
    turned = frame[list("dcba")]
    model = lightgbm.LGBMRegressor(**LIGHTGBM).fit(frame, table.TARGET)
    y = pd.Series(table.TARGET)
    made = Registry(tmp_path).register("turned", model, turned, y, options=Options()).model
    background = made.background.rows[:, :4]
    rows = table.FILLED[:6]
    found = made.explainer.explain(rows).values
    expected = [
        interventional_values(lambda X: model.booster_.predict(X)[:, None], row, background)
        for row in rows
    ]
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest)
    explainer = shap.TreeExplainer(model, frame[:50], feature_perturbation="interventional")
    by_place = explainer.shap_values(turned[:6])[:, ::-1]
    assert np.abs(by_place - explainer.shap_values(frame[:6])).max() > FAR * largest
    assert np.abs(model.predict(turned) - model.predict(frame)).max() > FAR * largest


def test_base_values_are_the_same_before_the_first_explanation_where_shaps_change() -> None:
    fitted = xgboost.XGBClassifier(**XGBOOST).fit(table.GAPPY, table.IS_HIGH)
    _, model, _ = of_xgboost(fitted)
    background = table.GAPPY[:50]
    explainer = model.explainer(background)
    first = explainer.explain(table.GAPPY[:1]).base_values[0]
    np.testing.assert_allclose(first, model.library(background).mean(axis=0), rtol=1e-6)
    assert explainer.explain(table.GAPPY[1:2]).base_values[0] == first
    theirs = shap.TreeExplainer(fitted)
    before = float(np.ravel(theirs.expected_value)[0])
    theirs.shap_values(table.GAPPY[:2])
    assert abs(float(np.ravel(theirs.expected_value)[0]) - before) > 0.01
