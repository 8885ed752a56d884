from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import ensemble
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from explainers.base import FloatArray
from service.models.sklearn import SklearnModel, dump_sklearn, load_sklearn
from service.models.sklearn_histogram import HistogramTrees
from service.models.sklearn_joined import (
    LARGEST_COPY_BYTES,
    MOST_CELLS,
    MOST_ROWS,
    JoinedTrees,
    join_predictors,
    join_trees,
)
from service.models.sklearn_trees import AveragedTrees, BoostedTrees, raw_from

ROWS = 500
ALONE = 120
CODES = 4
"""The columns are four numbers and a category of so many codes."""

HISTOGRAM = {"max_iter": 12, "max_leaf_nodes": 9, "min_samples_leaf": 5, "random_state": 0}
BY_CODE = HISTOGRAM | {"categorical_features": [4]}
FORESTS = [
    ensemble.RandomForestClassifier(11, max_depth=6, random_state=0),
    ensemble.RandomForestClassifier(2, max_depth=1, random_state=0),
    ensemble.ExtraTreesClassifier(9, random_state=0),
    ensemble.RandomForestRegressor(7, random_state=0),
    ensemble.ExtraTreesRegressor(9, max_leaf_nodes=6, random_state=0),
]
HISTOGRAMS = [
    ensemble.HistGradientBoostingClassifier(**HISTOGRAM),
    ensemble.HistGradientBoostingClassifier(**BY_CODE),
    ensemble.HistGradientBoostingRegressor(**BY_CODE),
    ensemble.HistGradientBoostingRegressor(**HISTOGRAM, loss="poisson"),
]


@pytest.fixture(scope="module", name="X")
def rows_with_gaps() -> FloatArray:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(ROWS, 4)), rng.integers(0, CODES, ROWS)])
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


@pytest.fixture(scope="module")
def signal(X: FloatArray) -> FloatArray:
    filled = np.nan_to_num(X, nan=0.4)
    return np.abs(filled[:, 0] * filled[:, 1] + np.isin(filled[:, 4], [1, 3]))


def fitted(estimator: Any, X: FloatArray, signal: FloatArray, *, n_classes: int = 3) -> Any:
    edges = np.quantile(signal, np.linspace(0, 1, n_classes + 1)[1:-1])
    is_classifier = hasattr(estimator, "predict_proba")
    return estimator.fit(X, np.digitize(signal, edges) if is_classifier else signal)


def loaded(model: Any) -> SklearnModel:
    return load_sklearn(dump_sklearn(model)[0])


def thresholds(model: Any) -> list[tuple[NDArray[Any], FloatArray]]:
    if hasattr(model, "_predictors"):
        nodes = [tree.nodes for stage in model._predictors for tree in stage]
        return [(each["feature_idx"], each["num_threshold"]) for each in nodes]
    return [(member.tree_.feature, member.tree_.threshold) for member in model.estimators_]


def edge_rows(model: Any, X: FloatArray) -> FloatArray:
    """Training rows with a number put on a threshold, beside it or beside its float32 form."""
    rng = np.random.default_rng(1)
    columns, values = (np.concatenate(each) for each in zip(*thresholds(model), strict=True))
    is_split = (columns >= 0) & np.isfinite(values)
    columns, values = columns[is_split], values[is_split]
    near = values.astype(np.float32).astype(np.float64)
    ups = np.nextafter(values.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    moved = [values, near, ups, np.nextafter(values, np.inf), np.nextafter(near, -np.inf)]
    rows = X[rng.integers(0, len(X), len(moved) * len(values))]
    reads = np.tile(columns, len(moved))
    # A category column holds codes only, as the service would see to.
    is_number = reads != rows.shape[1] - 1
    rows[is_number, reads[is_number]] = np.concatenate(moved)[is_number]
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


@pytest.mark.parametrize("n_classes", [2, 11])
@pytest.mark.parametrize("estimator", [*FORESTS, *HISTOGRAMS], ids=lambda v: type(v).__name__)
def test_rows_are_served_the_librarys_bits_alone_and_in_batches_of_any_size(
    estimator: Any, n_classes: int, X: FloatArray, signal: FloatArray
) -> None:
    model = fitted(estimator, X, signal, n_classes=n_classes)
    adapter = loaded(model)
    assert isinstance(adapter.final, AveragedTrees | HistogramTrees)
    assert adapter.final.joined is not None
    rows = np.resize(edge_rows(model, X), (ALONE, X.shape[1]))
    alone = [adapter.predict(row[None, :]) for row in rows]
    predict = model.predict_proba if adapter.n_classes > 1 else model.predict
    expected = np.concatenate([predict(row[None, :]) for row in rows])
    scores = np.concatenate([each.scores for each in alone])
    np.testing.assert_array_equal(scores, expected.reshape(ALONE, -1))
    for n_rows in (2, MOST_ROWS, MOST_ROWS + 1, ALONE):
        batch = adapter.predict(rows[:n_rows])
        np.testing.assert_array_equal(batch.scores, scores[:n_rows])
        outputs = np.concatenate([each.outputs for each in alone[:n_rows]])
        np.testing.assert_array_equal(batch.outputs, outputs)


def test_a_batch_too_wide_for_one_call_is_walked_in_parts() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 60))
    forest = ensemble.RandomForestRegressor(150, max_depth=2).fit(X, X[:, 0])
    trees = [member.tree_ for member in forest.estimators_]
    joined = join_trees(trees)
    assert joined is not None
    rows = X[:MOST_ROWS].astype(np.float32)
    assert len(trees) * rows.size > 2 * MOST_CELLS
    np.testing.assert_array_equal(joined(rows), np.stack([tree.predict(rows) for tree in trees]))


@pytest.mark.parametrize("estimator", [FORESTS[0], HISTOGRAMS[1]], ids=["forest", "histogram"])
def test_threads_are_served_the_numbers_of_one(
    estimator: Any, X: FloatArray, signal: FloatArray
) -> None:
    adapter = loaded(fitted(estimator, X, signal))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(adapter.predict, np.array_split(X, 200)))
    expected = adapter.predict(X).scores
    np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), expected)


class Forged:
    """A tree of scikit-learn whose stored form says something else than it does."""

    def __init__(self, tree: Any, change: Callable[[dict[str, Any]], Any]) -> None:
        self._tree = tree
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

    def __getstate__(self) -> Any:
        return self._change(self._tree.__getstate__())


def nudged(state: dict[str, Any]) -> dict[str, Any]:
    nodes = state["nodes"].copy()
    nodes["threshold"] = np.nextafter(nodes["threshold"].astype(np.float32), np.float32(9))
    return state | {"nodes": nodes}


def without_threshold(state: dict[str, Any]) -> dict[str, Any]:
    nodes = state["nodes"]
    kept = [name for name in nodes.dtype.names if name != "threshold"]
    return state | {"nodes": nodes[kept].copy()}


@pytest.mark.parametrize(
    ("change", "is_joined"),
    [
        (lambda state: state, True),
        (nudged, False),
        (without_threshold, False),
        (lambda state: {"node_count": state["node_count"]}, False),
    ],
    ids=["same", "nudged", "other fields", "other state"],
)
def test_trees_whose_copy_would_serve_other_bits_stay_apart(
    change: Any, X: FloatArray, signal: FloatArray, *, is_joined: bool
) -> None:
    forest = fitted(FORESTS[0], X, signal)
    trees = [Forged(member.tree_, change) for member in forest.estimators_]
    assert (join_trees(trees) is not None) == is_joined


@pytest.mark.parametrize("shift", [0, 1])
def test_predictors_whose_copy_would_serve_other_bits_stay_apart(
    shift: int, X: FloatArray, signal: FloatArray
) -> None:
    model = fitted(HISTOGRAMS[0], X, signal)
    predictors = [tree for stage in model._predictors for tree in stage]
    known, sets = model._bin_mapper.make_known_categories_bitsets()
    sets = np.append(sets, sets[:1])

    def walk_of(predictor: Any) -> Callable[[FloatArray], FloatArray]:
        def walk(rows: FloatArray) -> FloatArray:
            is_copy = predictor not in predictors
            moved = np.nextafter(rows, np.inf) if is_copy and shift else rows
            return np.asarray(predictor.predict(moved, known, sets, 1))

        return walk

    assert (join_predictors(predictors, walk_of, X.shape[1]) is None) == bool(shift)


class Huge(Forged):
    """A tree with more nodes than fit in a copy."""

    node_count = LARGEST_COPY_BYTES


def test_a_single_tree_and_trees_too_large_to_copy_are_not_joined(
    X: FloatArray, signal: FloatArray
) -> None:
    trees = [member.tree_ for member in fitted(FORESTS[0], X, signal).estimators_]
    assert isinstance(join_trees(trees), JoinedTrees)
    assert join_trees(trees[:1]) is None
    assert join_trees([trees[0], Huge(trees[1], dict)]) is None


@pytest.mark.parametrize("estimator", [FORESTS[0], HISTOGRAMS[0]], ids=["forest", "histogram"])
def test_rows_of_another_width_are_refused_before_the_trees_read_them(
    estimator: Any, X: FloatArray, signal: FloatArray
) -> None:
    final = loaded(fitted(estimator, X, signal)).final
    assert final.serve(X[:3]).scores.shape == (3, 3)
    for rows in (X[:3, :-1], np.hstack([X[:3], X[:3]])):
        with pytest.raises(ValueError, match="for trees that read 5"):
            final.serve(rows)


@pytest.mark.parametrize("estimator", [FORESTS[0], HISTOGRAMS[0]], ids=["forest", "histogram"])
def test_steps_that_no_longer_make_what_the_trees_read_serve_nothing(
    estimator: Any, X: FloatArray, signal: FloatArray
) -> None:
    model = fitted(make_pipeline(VarianceThreshold(), estimator), X, signal)
    assert loaded(model).predict(X[:3]).scores.shape == (3, 3)
    model[0].variances_[0] = -1
    adapter = loaded(model)
    with pytest.raises(ValueError, match="4 derived columns for trees that read 5"):
        adapter.predict(X[:3])


BOOSTED = [ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("maker", BOOSTED)
@pytest.mark.parametrize("init", [None, "zero"])
def test_boosting_adds_its_trees_to_a_start_found_once(
    maker: Any, init: Any, n_classes: int, X: FloatArray, signal: FloatArray
) -> None:
    rows = np.nan_to_num(X)
    model = fitted(maker(n_estimators=9, init=init), rows, signal, n_classes=n_classes)
    adapter = loaded(model)
    assert isinstance(adapter.final, BoostedTrees)
    assert adapter.final.start is not None
    rows = edge_rows_of_boosting(model, rows)
    predict = model.predict_proba if adapter.n_classes > 1 else model.predict
    expected = np.concatenate([predict(row[None, :]) for row in rows])
    for n_rows in (1, len(rows)):
        served = adapter.predict(rows[:n_rows])
        np.testing.assert_array_equal(served.scores, expected[:n_rows].reshape(n_rows, -1))
        np.testing.assert_array_equal(
            served.outputs, model._raw_predict(rows[:n_rows].astype(np.float32))
        )


def edge_rows_of_boosting(model: Any, X: FloatArray) -> FloatArray:
    rows = X[:200].copy()
    tree = model.estimators_[0, 0].tree_
    is_split = tree.feature >= 0
    for turn, (column, value) in enumerate(
        zip(tree.feature[is_split], tree.threshold[is_split], strict=True)
    ):
        near = np.float32(value)
        rows[3 * turn : 3 * turn + 3, column] = [
            near,
            np.nextafter(near, np.float32(9)),
            np.nextafter(near, np.float32(-9)),
        ]
    return rows


def test_boosting_on_top_of_another_model_asks_it_for_every_row(
    X: FloatArray, signal: FloatArray
) -> None:
    rows = np.nan_to_num(X)
    init = LogisticRegression()
    model = fitted(
        ensemble.GradientBoostingClassifier(n_estimators=5, init=init), rows, signal, n_classes=2
    )
    adapter = loaded(model)
    assert isinstance(adapter.final, BoostedTrees)
    assert adapter.final.start is None
    np.testing.assert_array_equal(adapter.predict(rows).scores, model.predict_proba(rows))
    narrow = rows.astype(np.float32)
    assert not np.array_equal(raw_from(np.zeros(1), model, narrow), model._raw_predict(narrow))
