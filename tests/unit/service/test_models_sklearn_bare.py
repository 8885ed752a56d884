from typing import Any

import numpy as np
import pytest
from mixed_pipelines import library_scores, loaded
from sklearn import ensemble, linear_model, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, SVR, LinearSVC

from explainers.base import FloatArray, UnsupportedModelError
from service.models.base import Served

FOREST = ensemble.RandomForestClassifier(15, max_depth=6, random_state=0)
LOGISTIC_CV = linear_model.LogisticRegressionCV(
    cv=2, max_iter=9000, l1_ratios=(0,), use_legacy_attributes=False, scoring="neg_log_loss"
)


def assert_serves_the_librarys_numbers(model: Any, rows: Any, X: FloatArray) -> Served:
    served = loaded(model).predict(X)
    np.testing.assert_array_equal(served.scores, library_scores(model, rows))
    return served


def name_of(value: object) -> str:
    return type(value).__name__


BARE = [
    (tree.DecisionTreeClassifier(max_depth=4), "probability", "identity"),
    (ensemble.RandomForestClassifier(9, max_depth=4), "probability", "identity"),
    (ensemble.ExtraTreesClassifier(9), "probability", "identity"),
    (ensemble.GradientBoostingClassifier(n_estimators=9), "margin", "softmax"),
    (linear_model.LogisticRegression(max_iter=9000), "margin", "softmax"),
    (LOGISTIC_CV, "margin", "softmax"),
]


@pytest.mark.parametrize(("estimator", "space", "link"), BARE)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifier_is_served_in_its_declared_space(
    estimator: Any, space: str, link: str, n_classes: int
) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    X, y = X[y < n_classes], y[y < n_classes].map({0: "a", 1: "b", 2: "c"}).to_numpy(object)
    model = estimator.fit(X, y)
    adapter = loaded(model)
    served = assert_serves_the_librarys_numbers(model, X, X.to_numpy())
    is_binary = n_classes == 2
    assert served.outputs.shape == (len(X), 1 if is_binary else n_classes)
    assert adapter.task == ("binary" if is_binary else "multiclass")
    assert adapter.classes == ("a", "b", "c")[:n_classes]
    if link == "identity":
        assert (adapter.output_space, adapter.link) == (space, link)
        np.testing.assert_array_equal(served.outputs, served.scores[:, -served.outputs.shape[1] :])
    else:
        binary, several = ("log_odds", "logit"), (space, link)
        assert (adapter.output_space, adapter.link) == (binary if is_binary else several)
        margins = [model.decision_function(X[i : i + 1]).ravel() for i in range(len(X))]
        np.testing.assert_array_equal(served.outputs, np.vstack(margins))


@pytest.mark.parametrize(
    ("estimator", "space", "link"),
    [
        (linear_model.LinearRegression(), "raw", "identity"),
        (linear_model.LinearRegression(fit_intercept=False), "raw", "identity"),
        (linear_model.RidgeCV(), "raw", "identity"),
        (linear_model.Lasso(), "raw", "identity"),
        (linear_model.ElasticNetCV(cv=2), "raw", "identity"),
        (linear_model.BayesianRidge(), "raw", "identity"),
        (linear_model.GammaRegressor(), "log", "log"),
        (linear_model.TweedieRegressor(power=0), "raw", "identity"),
        (tree.DecisionTreeRegressor(max_depth=4), "raw", "identity"),
        (ensemble.ExtraTreesRegressor(5), "raw", "identity"),
    ],
)
def test_regressor_is_served_in_its_declared_space(estimator: Any, space: str, link: str) -> None:
    X, y = load_diabetes(return_X_y=True)
    model = estimator.fit(X, y)
    adapter = loaded(model)
    served = assert_serves_the_librarys_numbers(model, X, X)
    assert (adapter.task, adapter.n_classes, adapter.classes) == ("regression", 1, None)
    assert (adapter.output_space, adapter.link) == (space, link)
    values = np.exp(served.outputs) if link == "log" else served.outputs
    np.testing.assert_array_equal(values, served.scores)


@pytest.mark.parametrize(
    ("estimator", "accepts"),
    [
        (tree.DecisionTreeClassifier(max_depth=3), True),
        (ensemble.RandomForestClassifier(5), True),
        (ensemble.HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=4), True),
        (ensemble.GradientBoostingClassifier(n_estimators=3), False),
        (linear_model.LogisticRegression(max_iter=9000), False),
        (KNeighborsClassifier(algorithm="brute"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bare_estimator_accepts_missing_where_the_library_does(
    estimator: Any, *, accepts: bool
) -> None:
    X, y = load_iris(return_X_y=True)
    model = estimator.fit(X, y)
    adapter = loaded(model)
    assert adapter.columns.accepts_missing == (accepts,) * 4
    X = X[::5]
    X[:, 2] = np.nan
    if accepts:
        assert_serves_the_librarys_numbers(model, X, X)
    else:
        with pytest.raises(ValueError, match="'x2' may not be missing"):
            adapter.predict(X)


@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier((5,), max_iter=20, solver="lbfgs", random_state=0),
        KNeighborsClassifier(algorithm="brute"),
        ensemble.AdaBoostClassifier(n_estimators=3),
        ensemble.GradientBoostingClassifier(n_estimators=3, loss="exponential"),
        linear_model.SGDClassifier(loss="modified_huber"),
        CalibratedClassifierCV(LinearSVC(), ensemble=False),
    ],
    ids=name_of,
)
@pytest.mark.filterwarnings("ignore:lbfgs failed")
def test_other_classifiers_predict_but_have_no_form(estimator: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[::5, :5]
    model = estimator.fit(X, y[::5])
    served = assert_serves_the_librarys_numbers(model, X, X.to_numpy())
    adapter = loaded(model)
    assert (adapter.output_space, adapter.link) == ("probability", "identity")
    np.testing.assert_array_equal(served.outputs, served.scores[:, 1:])
    with pytest.raises(UnsupportedModelError, match=type(estimator).__name__):
        adapter.form()


def test_other_regressors_predict_but_have_no_form() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = SVR().fit(X[:50], y[:50])
    assert_serves_the_librarys_numbers(model, X[50:90], X[50:90])
    with pytest.raises(UnsupportedModelError, match="SVR"):
        loaded(model).form()


def test_a_value_beyond_float32_is_refused() -> None:
    X, y = load_iris(return_X_y=True)
    adapter = loaded(FOREST.fit(X, y))
    with pytest.raises(ValueError, match="float32"):
        adapter.predict(np.full((1, 4), 1e300))


def test_support_vector_machine_with_probabilities_is_served() -> None:
    X, y = load_iris(return_X_y=True)
    model = CalibratedClassifierCV(SVC(), ensemble=False, cv=2).fit(X, y)
    assert_serves_the_librarys_numbers(model, X[::10], X[::10])
