import math
from dataclasses import dataclass, replace
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from catboost import CatBoost

from explainers.base import FloatArray, Link
from service.models.catboost import CatBoostModel, dump_catboost, load_catboost
from service.models.lightgbm import LightGBMModel, dump_lightgbm, load_lightgbm
from service.models.lightgbm_link import proven_link
from service.models.lightgbm_text import ModelText
from service.models.links import c_link, exponential, logistic, proof_margins, softmax
from service.models.xgboost import XGBoostModel, _proven_logistic, load_xgboost

MARGINS = proof_margins(3)


def text_of(*objective: str, n_outputs: int = 1, averaged: bool = False) -> ModelText:
    return ModelText(objective, ("a",), (None,), n_outputs, n_outputs, averaged)


def test_links_are_those_of_the_c_library() -> None:
    expected = [1 / (1 + math.exp(-margin)) for margin in MARGINS.ravel()]
    np.testing.assert_array_equal(logistic(MARGINS).ravel(), expected)
    np.testing.assert_array_equal(exponential(MARGINS), np.vectorize(math.exp)(MARGINS))
    for margins, shares in zip(MARGINS[:50].tolist(), softmax(MARGINS[:50]), strict=True):
        parts = [math.exp(margin - max(margins)) for margin in margins]
        total = (parts[0] + parts[1]) + parts[2]
        np.testing.assert_array_equal(shares, [part / total for part in parts])


def test_what_overflows_is_infinite() -> None:
    np.testing.assert_array_equal(exponential(np.array([[800.0], [-800.0]])), [[np.inf], [0.0]])
    np.testing.assert_array_equal(logistic(np.array([-800.0, 800.0])), [0.0, 1.0])


def test_proof_margins_lie_close_to_zero_and_far_from_it() -> None:
    sizes = np.abs(MARGINS)
    assert sizes.min() < 1e-3
    assert sizes.max() > 90
    assert len(np.unique(MARGINS)) == MARGINS.size


@pytest.mark.parametrize(
    ("text", "link", "is_proven"),
    [
        (text_of("binary", "sigmoid:1"), "logit", True),
        (text_of("cross_entropy"), "logit", True),
        (text_of("poisson"), "log", True),
        (text_of("gamma"), "log", True),
        (text_of("multiclass", "num_class:3", n_outputs=3), "softmax", True),
        (text_of("regression"), "identity", False),
        (text_of("binary", "sigmoid:1", averaged=True), "logit", False),
        (text_of("binary", "sigmoid:2"), "logit", False),
        (text_of("binary", "sigmoid:1"), "log", False),
        (text_of("multiclassova", "num_class:3", "sigmoid:1", n_outputs=3), "softmax", False),
        (text_of("no such objective"), "logit", False),
    ],
    ids=str,
)
def test_only_a_link_with_lightgbms_own_bits_is_proven(
    text: ModelText, link: Link, *, is_proven: bool
) -> None:
    assert proven_link(text, link) is (c_link(link) if is_proven else None)


@pytest.fixture(scope="module", name="X")
def rows() -> FloatArray:
    return np.random.default_rng(0).normal(size=(400, 3))


def lightgbm_model(X: FloatArray, objective: str) -> tuple[Any, LightGBMModel]:
    options: dict[str, Any] = {"n_estimators": 20, "num_leaves": 7, "verbose": -1, "n_jobs": 1}
    signal = np.abs(X[:, 0] * X[:, 1] + X[:, 2])
    is_value = objective in ("poisson", "regression")
    maker = lightgbm.LGBMRegressor if is_value else lightgbm.LGBMClassifier
    target = signal if is_value else np.digitize(signal, [0.5, 1.5][: 1 + (objective != "binary")])
    model = maker(objective=objective, **options).fit(X, target)
    return model, load_lightgbm(dump_lightgbm(model)[0])


@pytest.mark.parametrize("objective", ["binary", "multiclass", "poisson"])
def test_lightgbm_walks_its_trees_once_for_the_bits_of_its_own_link(
    X: FloatArray, objective: str
) -> None:
    model, adapter = lightgbm_model(X, objective)
    assert adapter.to_scores is not None
    calls = Counted(adapter.booster)
    adapter.booster = calls
    scores = adapter.predict(X).scores
    assert calls.count == 1
    predict = model.predict if objective == "poisson" else model.predict_proba
    np.testing.assert_array_equal(scores, predict(X).reshape(len(X), -1))
    alone = [adapter.predict(row[None, :]).scores for row in X]
    np.testing.assert_array_equal(scores, np.concatenate(alone))
    adapter.to_scores = None
    np.testing.assert_array_equal(adapter.predict(X).scores, scores)


class Counted:
    """A booster that counts what it is asked for, and may serve its links a hair off."""

    def __init__(self, booster: Any, *, factor: float = 1.0) -> None:
        self._booster = booster
        self._factor = factor
        self.count = 0

    def predict(self, X: Any, **options: Any) -> Any:
        self.count += 1
        predicted = self._booster.predict(X, **options)
        return (
            predicted
            if options.get("prediction_type") == "RawFormulaVal"
            else (predicted * self._factor)
        )


def catboost_model(X: FloatArray, *, loss: str) -> tuple[Any, CatBoostModel]:
    options = {"iterations": 20, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    model = CatBoost(options | {"loss_function": loss}).fit(X, X[:, 0] * X[:, 1] > 0)
    return model, load_catboost(dump_catboost(model))


@pytest.mark.parametrize("loss", ["Logloss", "CrossEntropy"])
def test_catboost_walks_its_trees_once_for_the_bits_of_its_own_link(
    X: FloatArray, loss: str
) -> None:
    model, adapter = catboost_model(X, loss=loss)
    expected = model.predict(X, prediction_type="Probability")
    if loss == "CrossEntropy":
        expected = expected[:, 1:]
    calls = Counted(adapter.booster)
    adapter.booster = calls
    np.testing.assert_array_equal(adapter.predict(X).scores, expected)
    assert calls.count == 1
    alone = [adapter.predict(row[None, :]).scores for row in X]
    np.testing.assert_array_equal(np.concatenate(alone), expected)


def test_catboost_is_asked_for_a_link_that_is_not_ours(X: FloatArray) -> None:
    _, adapter = catboost_model(X, loss="Logloss")
    expected = adapter.predict(X).scores
    calls = Counted(adapter.booster, factor=1 + 1e-15)
    other = replace(adapter, booster=calls)
    calls.count = 0
    served = other.predict(X).scores
    assert calls.count == 2
    np.testing.assert_array_equal(served, expected * (1 + 1e-15))


def xgboost_model(X: FloatArray, objective: str) -> tuple[xgboost.Booster, XGBoostModel]:
    data = xgboost.DMatrix(X, X[:, 0] * X[:, 1] > 0)
    booster = xgboost.train({"objective": objective, "nthread": 1}, data, 20)
    return booster, load_xgboost(booster.save_raw("ubj"), format="ubj")


def test_xgboosts_own_link_is_not_asked_where_ours_has_its_bits(X: FloatArray) -> None:
    booster, adapter = xgboost_model(X, "binary:logistic")
    assert adapter.logistic is not None
    expected = booster.inplace_predict(X).astype(np.float64)
    np.testing.assert_array_equal(adapter.predict(X).scores[:, 1], expected)
    adapter.logistic = None
    np.testing.assert_array_equal(adapter.predict(X).scores[:, 1], expected)


def test_a_value_of_xgboost_has_no_link_to_prove(X: FloatArray) -> None:
    assert xgboost_model(X, "reg:squarederror")[1].logistic is None


@dataclass(frozen=True)
class NudgedXGBoost:
    """A booster that serves its links one step of float32 off."""

    booster: xgboost.Booster
    towards: float

    def inplace_predict(self, X: FloatArray, **options: Any) -> Any:
        predicted = self.booster.inplace_predict(X, **options)
        is_margin = options.get("predict_type") == "margin"
        return predicted if is_margin else np.nextafter(predicted, np.float32(self.towards))


def test_a_link_of_xgboost_that_is_not_ours_is_not_proven(X: FloatArray) -> None:
    booster, _ = xgboost_model(X, "binary:logistic")
    assert _proven_logistic(booster, 3, "logit") is not None
    for towards in (0.0, 1.0):
        assert _proven_logistic(NudgedXGBoost(booster, towards), 3, "logit") is None
