"""scikit-learn estimators of every kind: served as they predict, evaluated in one call."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mixed_pipelines import loaded
from sklearn import (
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    kernel_ridge,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    svm,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import kernels
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union

from explainers.base import UnsupportedModelError

ROWS = 40
LOGISTIC = linear_model.LogisticRegression(max_iter=9000)
RIDGE = linear_model.Ridge()
TREE = ensemble.RandomForestClassifier(5, max_depth=4, random_state=0)
FOREST = ensemble.RandomForestRegressor(5, max_depth=4, random_state=0)


def piped(*steps: Any) -> Any:
    return make_pipeline(preprocessing.StandardScaler(), *steps)


def fitted(model: Any, X: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `probability` parameter", FutureWarning)
        return model.fit(X, y)


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: piped(
        neural_network.MLPClassifier((5,), solver="lbfgs", max_iter=9000, random_state=0)
    ),
    "svc": lambda: piped(svm.SVC(probability=True, random_state=0)),
    "nu svc": lambda: piped(svm.NuSVC(probability=True, random_state=0)),
    "calibrated svc": lambda: CalibratedClassifierCV(piped(svm.SVC()), cv=3),
    "calibrated by steps": lambda: CalibratedClassifierCV(
        FrozenEstimator(piped(svm.LinearSVC()).fit(*wine())), method="isotonic"
    ),
    "k nearest": neighbors.KNeighborsClassifier,
    "k nearest by force": lambda: neighbors.KNeighborsClassifier(algorithm="brute"),
    "k nearest in balls": lambda: neighbors.KNeighborsClassifier(
        algorithm="ball_tree", metric="manhattan", weights="distance"
    ),
    "centroid": neighbors.NearestCentroid,
    "stacking": lambda: ensemble.StackingClassifier([("a", piped(LOGISTIC)), ("b", TREE)], cv=3),
    "voting": lambda: ensemble.VotingClassifier(
        [("a", piped(LOGISTIC)), ("b", naive_bayes.GaussianNB())], voting="soft", n_jobs=2
    ),
    "bagging": lambda: ensemble.BaggingClassifier(max_features=0.7, random_state=0),
    "boosting": lambda: ensemble.AdaBoostClassifier(random_state=0),
    "bayes": naive_bayes.GaussianNB,
    "linear discriminant": discriminant_analysis.LinearDiscriminantAnalysis,
    "quadratic discriminant": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(
        reg_param=0.1
    ),
    "gaussian process": lambda: piped(
        gaussian_process.GaussianProcessClassifier(1.5 * kernels.RBF(2.0), optimizer=None)
    ),
    "one against rest": lambda: OneVsRestClassifier(piped(LOGISTIC)),
    "components": lambda: piped(decomposition.PCA(3), LOGISTIC),
    "polynomial": lambda: piped(preprocessing.PolynomialFeatures(2), LOGISTIC),
    "normalised": lambda: make_pipeline(preprocessing.Normalizer(), LOGISTIC),
    "selected": lambda: piped(feature_selection.SelectKBest(k=4), naive_bayes.GaussianNB()),
    "united": lambda: piped(
        make_union(decomposition.PCA(2), feature_selection.SelectKBest(k=2)), LOGISTIC
    ),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: piped(
        neural_network.MLPRegressor(
            hidden_layer_sizes=(5,), solver="lbfgs", max_iter=9000, random_state=0
        )
    ),
    "svr": lambda: piped(svm.SVR()),
    "nu svr": lambda: piped(svm.NuSVR()),
    "k nearest": neighbors.KNeighborsRegressor,
    "within a radius": lambda: neighbors.RadiusNeighborsRegressor(0.5),
    "stacking": lambda: ensemble.StackingRegressor([("a", RIDGE), ("b", FOREST)], cv=3),
    "voting": lambda: ensemble.VotingRegressor([("a", RIDGE), ("b", FOREST)]),
    "bagging": lambda: ensemble.BaggingRegressor(random_state=0),
    "kernel ridge": lambda: kernel_ridge.KernelRidge(kernel="rbf"),
    "gaussian process": lambda: gaussian_process.GaussianProcessRegressor(
        kernels.Matern(1.0) + kernels.WhiteKernel(1.0) + kernels.DotProduct(), optimizer=None
    ),
    "components": lambda: piped(decomposition.PCA(3), RIDGE),
}


def wine() -> tuple[Any, Any]:
    X, y = load_wine(return_X_y=True)
    return X[:, :6], y


def diabetes() -> tuple[Any, Any]:
    X, y = load_diabetes(return_X_y=True)
    return X[:150, :6], y[:150]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_are_served_row_by_row_and_evaluated_at_once(name: str) -> None:
    X, y = wine()
    model = fitted(CLASSIFIERS[name](), X, y)
    adapter = loaded(model)
    rows = X[:: len(X) // ROWS]
    alone = np.vstack([model.predict_proba(row[None, :]) for row in rows])
    served = adapter.predict(rows)
    np.testing.assert_array_equal(served.scores, alone)
    np.testing.assert_allclose(adapter.evaluate(rows), served.outputs, rtol=1e-9, atol=1e-12)
    if adapter.output_space == "probability":
        np.testing.assert_array_equal(adapter.evaluate(rows), model.predict_proba(rows))
    assert adapter.n_classes == 3
    with pytest.raises(UnsupportedModelError):
        adapter.form()


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_are_served_row_by_row_and_evaluated_at_once(name: str) -> None:
    X, y = diabetes()
    model = REGRESSORS[name]().fit(X, y)
    adapter = loaded(model)
    rows = X[:ROWS]
    alone = np.vstack([model.predict(row[None, :]) for row in rows])
    np.testing.assert_array_equal(adapter.predict(rows).outputs, alone)
    np.testing.assert_allclose(adapter.evaluate(rows)[:, 0], model.predict(rows), rtol=1e-12)
    assert adapter.task == "regression"
