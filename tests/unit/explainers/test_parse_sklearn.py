from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_trees import traverse
from sklearn import ensemble, tree
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression

from explainers.base import FloatArray, UnsupportedModelError
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.sklearn import parse_sklearn

MAX_EDGES = 400

CLASSIFIERS = [
    tree.DecisionTreeClassifier(max_depth=6, random_state=0),
    tree.DecisionTreeClassifier(splitter="random", random_state=1),
    tree.DecisionTreeClassifier(class_weight="balanced", max_leaf_nodes=9, random_state=0),
    ensemble.RandomForestClassifier(9, max_depth=7, random_state=0),
    ensemble.RandomForestClassifier(7, criterion="entropy", min_samples_leaf=5, random_state=0),
    ensemble.ExtraTreesClassifier(9, max_depth=7, random_state=0),
]
BOOSTED_CLASSIFIERS = [
    ensemble.GradientBoostingClassifier(n_estimators=12, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=5, init="zero", subsample=0.7, random_state=0),
]
REGRESSORS = [
    tree.DecisionTreeRegressor(max_depth=6, random_state=0),
    ensemble.RandomForestRegressor(9, max_depth=7, random_state=0),
    ensemble.ExtraTreesRegressor(9, max_depth=7, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=12, learning_rate=0.07, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=9, loss="huber", random_state=0),
]


def name_of(value: object) -> str:
    return type(value).__name__


def neighbours(value: float) -> list[float]:
    single = np.float32(value)
    singles = [np.nextafter(single, np.float32(s * np.inf)) for s in (-1, 1)]
    wide = [float(value), float(single), *map(float, singles)]
    return [float(np.nextafter(w, s * np.inf)) for w in wide for s in (-1, 1)] + wide


def rows_on_edges(parsed: TreeEnsemble, X: FloatArray, *, nan: bool) -> FloatArray:
    rng = np.random.default_rng(0)
    # An infinite threshold separates missing from present; it has no neighbours.
    inner = np.flatnonzero((parsed.left >= 0) & np.isfinite(parsed.threshold))
    rows = []
    for node in rng.choice(inner, min(len(inner), MAX_EDGES), replace=False):
        for value in neighbours(parsed.threshold[node]):
            row = X[rng.integers(len(X))].copy()
            row[parsed.column[node]] = value
            rows.append(row)
    edges = np.array(rows)
    if nan:
        edges[rng.random(edges.shape) < 0.2] = np.nan
    return edges


def served(estimator: Any, X: NDArray[Any]) -> FloatArray:
    if hasattr(estimator, "decision_function"):
        outputs = estimator.decision_function(X)
    elif hasattr(estimator, "predict_proba"):
        outputs = estimator.predict_proba(X)
        outputs = outputs[:, 1:] if outputs.shape[1] == 2 else outputs
    else:
        outputs = estimator.predict(X)
    return np.asarray(outputs).reshape(len(X), -1)


def assert_same_bits(estimator: Any, X: FloatArray, *, nan: bool = False) -> None:
    parsed = parse_sklearn(estimator)
    rows = np.vstack([X, rows_on_edges(parsed, X, nan=nan)])
    np.testing.assert_array_equal(traverse(parsed, rows), served(estimator, rows))


@pytest.mark.parametrize("estimator", CLASSIFIERS + BOOSTED_CLASSIFIERS, ids=name_of)
def test_binary_classifier_has_one_output_equal_to_the_librarys(estimator: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    estimator.fit(X, y)
    assert parse_sklearn(estimator).n_outputs == 1
    assert_same_bits(estimator, X)


@pytest.mark.parametrize("estimator", CLASSIFIERS + BOOSTED_CLASSIFIERS, ids=name_of)
def test_multiclass_classifier_has_one_output_per_class(estimator: Any) -> None:
    X, y = load_iris(return_X_y=True)
    estimator.fit(X, y)
    assert parse_sklearn(estimator).n_outputs == 3
    assert_same_bits(estimator, X)


@pytest.mark.parametrize("estimator", REGRESSORS, ids=name_of)
def test_regressor_equals_the_library(estimator: Any) -> None:
    X, y = load_diabetes(return_X_y=True)
    assert_same_bits(estimator.fit(X, y), X)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=name_of)
def test_missing_values_go_where_training_sent_them(estimator: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    assert_same_bits(estimator.fit(X, y), X, nan=True)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=name_of)
def test_missing_values_unknown_in_training_are_read_as_the_library_does(estimator: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    assert_same_bits(estimator.fit(X, y), X, nan=True)


@pytest.mark.parametrize(
    "broken",
    [
        lambda e: replace(e, threshold=np.nextafter(e.threshold, -np.inf)),
        lambda e: replace(e, float32_inputs=False),
        lambda e: replace(e, left=e.right, right=e.left),
        lambda e: replace(e, missing_left=~e.missing_left),
        lambda e: replace(e, divisor=e.divisor + 1),
    ],
    ids=["threshold", "cast", "sides", "missing", "divisor"],
)
def test_edge_rows_tell_a_wrong_parse(broken: Any) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    # Small whole numbers: only there do thresholds lie halfway, exactly on a float32 number.
    X[:, 0] = np.round(X[:, 0])
    estimator = ensemble.RandomForestClassifier(9, max_depth=7, random_state=0).fit(X, y)
    parsed = parse_sklearn(estimator)
    rows = np.vstack([X, rows_on_edges(parsed, X, nan=True)])
    assert not np.array_equal(traverse(broken(parsed), rows), served(estimator, rows))


def test_boosting_from_an_estimator_is_refused() -> None:
    X, y = load_iris(return_X_y=True)
    estimator = ensemble.GradientBoostingClassifier(
        n_estimators=2, init=LogisticRegression(max_iter=2000)
    ).fit(X, y)
    with pytest.raises(UnsupportedModelError, match="init estimator LogisticRegression"):
        parse_sklearn(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        ensemble.AdaBoostClassifier(n_estimators=2),
        ensemble.IsolationForest(n_estimators=2),
        ensemble.BaggingClassifier(n_estimators=2),
        ensemble.RandomTreesEmbedding(n_estimators=2),
        LogisticRegression(max_iter=2000),
    ],
    ids=name_of,
)
def test_other_estimators_are_refused_by_name(estimator: Any) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(UnsupportedModelError, match=type(estimator).__name__):
        parse_sklearn(estimator.fit(X, y))


@pytest.mark.parametrize(
    "estimator", [tree.DecisionTreeRegressor(max_depth=2), ensemble.RandomForestClassifier(2)]
)
def test_several_targets_are_refused(estimator: Any) -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(UnsupportedModelError, match="more than one target"):
        parse_sklearn(estimator.fit(X, np.column_stack([y, y])))
