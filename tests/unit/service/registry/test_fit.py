"""What registration measures of a model's fit, against scikit-learn and the definitions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from tables import breast_cancer, diabetes, wine

from service.registry import Registry
from service.registry.manifest import FitEntry
from service.registry.work import Options


def fit_of(folder: Path, model: Any, X: pd.DataFrame, y: pd.Series, **options: Any) -> FitEntry:
    made = Registry(folder / "registry").register("m", model, X, y, options=Options(**options))
    assert made.model.manifest.fit is not None
    return made.model.manifest.fit


def test_a_binary_classifiers_measures_are_scikit_learns(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    X = X.iloc[:, :3]
    model = XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(X, y)
    p = model.predict_proba(X)[:, 1].astype(np.float64)
    fit = fit_of(tmp_path, model, X, y)
    assert fit.rows == len(X)
    assert fit.measures == {
        "log_loss": pytest.approx(metrics.log_loss(y, p), rel=1e-6),
        "accuracy": pytest.approx(metrics.accuracy_score(y, p > 0.5)),
        "brier": pytest.approx(metrics.brier_score_loss(y, p), rel=1e-6),
        "auc": pytest.approx(metrics.roc_auc_score(y, p)),
    }


def test_a_multiclass_auc_is_the_mean_of_each_class_against_the_others(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    X, y = wine()
    X = X.iloc[:, :3]
    model = XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, y)
    measures = fit_of(tmp_path, model, X, y).measures
    p = model.predict_proba(X).astype(np.float64)
    assert measures["auc"] == pytest.approx(
        np.mean([metrics.roc_auc_score(y == k, p[:, k]) for k in range(3)])
    )
    assert measures["brier"] == pytest.approx(((p - np.eye(3)[y]) ** 2).sum(axis=1).mean())


def test_a_regressions_measures_are_scikit_learns(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    X, y = diabetes()
    model = Ridge().fit(X, y)
    predicted = model.predict(X)
    assert fit_of(tmp_path, model, X, y).measures == {
        "rmse": pytest.approx(metrics.root_mean_squared_error(y, predicted)),
        "mae": pytest.approx(metrics.mean_absolute_error(y, predicted)),
        "r2": pytest.approx(metrics.r2_score(y, predicted)),
    }


def test_a_constant_target_has_no_r2(tmp_path: Path) -> None:
    from sklearn.linear_model import Ridge

    X, y = diabetes()
    constant = pd.Series(np.full(len(y), 2.0))
    measures = fit_of(tmp_path, Ridge().fit(X, constant), X, constant).measures
    assert set(measures) == {"rmse", "mae"}
