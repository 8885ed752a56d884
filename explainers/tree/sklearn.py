"""scikit-learn's trees, forests and boosted trees as one TreeEnsemble."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, UnsupportedModelError
from explainers.tree.build import EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble

CONSTANT_STRATEGIES = frozenset({"prior", "most_frequent", "constant"})


class FittedTree(Protocol):
    """The arrays of `sklearn.tree._tree.Tree`, one entry per node."""

    children_left: NDArray[np.int64]
    children_right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: FloatArray
    missing_go_to_left: NDArray[np.uint8]
    value: FloatArray


def parse_sklearn(estimator: object) -> TreeEnsemble:
    """The estimator's trees over its own input columns; outputs equal the library's bit by bit.

    Classifying trees and forests: probability, of the positive class (C = 1) or of every class.
    Boosted classifiers: log-odds (C = 1) or the margins before softmax. Regressors: the value.
    Raises UnsupportedModelError for any other estimator, for several targets, and for boosting
    that starts from an estimator of its own.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    if isinstance(estimator, GradientBoostingClassifier | GradientBoostingRegressor):
        return _boosted(estimator)
    trees = averaged_trees(estimator)
    if trees is None:
        raise UnsupportedModelError(f"{type(estimator).__qualname__}: no parser for its trees")
    return _averaged(estimator, trees)


def averaged_trees(estimator: Any) -> list[FittedTree] | None:  # noqa: ANN401
    """The trees whose mean a decision tree or a forest predicts; None for other estimators."""
    from sklearn import ensemble, tree

    forests = (
        ensemble.RandomForestClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesClassifier,
        ensemble.ExtraTreesRegressor,
    )
    if isinstance(estimator, forests):
        return [member.tree_ for member in estimator.estimators_]
    if isinstance(estimator, tree.DecisionTreeClassifier | tree.DecisionTreeRegressor):
        return [estimator.tree_]
    return None


def constant_start(estimator: Any) -> FloatArray:  # noqa: ANN401
    """(C,) what gradient boosting adds its trees to.

    UnsupportedModelError where an estimator of the caller's own makes it depend on the row.
    """
    _require_constant_start(estimator)
    row = np.zeros((1, estimator.n_features_in_), dtype=np.float32)
    start: FloatArray = estimator._raw_predict_init(row)[0]  # noqa: SLF001
    return start


def _averaged(estimator: Any, trees: list[FittedTree]) -> TreeEnsemble:  # noqa: ANN401
    if estimator.n_outputs_ > 1:
        raise UnsupportedModelError(f"{type(estimator).__qualname__}: more than one target")
    # The last column of two is the positive class, the only column of a regressor its value.
    n_values = trees[0].value.shape[2]
    kept = slice(-1, None) if n_values <= 2 else slice(None)
    n_outputs = 1 if n_values <= 2 else n_values
    builder = EnsembleBuilder(estimator.n_features_in_, base=np.zeros(n_outputs))
    for tree in trees:
        leaves = tree.value[:, 0, kept]
        builder.add_tree(_nodes(tree, leaves, missing_left=tree.missing_go_to_left.astype(bool)))
    return builder.build(divisor=float(len(trees)), float32_inputs=True)


def _boosted(estimator: Any) -> TreeEnsemble:  # noqa: ANN401
    builder = EnsembleBuilder(estimator.n_features_in_, base=constant_start(estimator))
    for output, member in _by_stage(estimator.estimators_):
        leaves = member.tree_.value[:, 0, :1] * estimator.learning_rate
        # Boosting compares NaN as any other number (false, so right), whatever its trees store.
        builder.add_tree(_nodes(member.tree_, leaves, missing_left=False), output=output)
    return builder.build(float32_inputs=True)


def _by_stage(stages: NDArray[Any]) -> Iterable[tuple[int, Any]]:
    for stage in stages:
        yield from enumerate(stage)


def _nodes(
    tree: FittedTree, leaves: FloatArray, *, missing_left: bool | NDArray[np.bool_]
) -> TreeNodes:
    return TreeNodes(
        left=tree.children_left,
        right=tree.children_right,
        column=tree.feature,
        threshold=tree.threshold,
        leaf_values=leaves,
        missing_left=missing_left,
    )


def _require_constant_start(estimator: Any) -> None:  # noqa: ANN401
    from sklearn.dummy import DummyClassifier, DummyRegressor

    start = estimator.init_
    if isinstance(start, str | DummyRegressor):
        return
    if isinstance(start, DummyClassifier) and start.strategy in CONSTANT_STRATEGIES:
        return
    raise UnsupportedModelError(
        f"{type(estimator).__qualname__}: its init estimator {type(start).__qualname__} "
        "makes the start depend on the row"
    )
