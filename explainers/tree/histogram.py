"""scikit-learn's histogram gradient boosting as one TreeEnsemble."""

from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from explainers.base import IntArray
from explainers.tree.build import CategorySet, EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble


class Predictor(Protocol):
    """The arrays of `sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor`."""

    nodes: NDArray[Any]
    raw_left_cat_bitsets: NDArray[np.uint32]


def parse_histogram_boosting(estimator: Any) -> TreeEnsemble:  # noqa: ANN401
    """The trees of a fitted HistGradientBoostingClassifier or -Regressor.

    Derived columns are what its own preprocessor hands to the trees: the category columns first,
    as codes, then the numbers; the input columns when it has none. The outputs are raw
    predictions, bit by bit: log-odds, margins before softmax, or the value before the inverse link.
    """
    known_sets, set_of_column = estimator._bin_mapper.make_known_categories_bitsets()  # noqa: SLF001
    known = [codes_in(known_set) for known_set in known_sets]
    builder = EnsembleBuilder(
        estimator.n_features_in_,
        base=estimator._baseline_prediction[0],  # noqa: SLF001
    )
    stages = estimator._predictors  # noqa: SLF001
    for output, predictor in chain.from_iterable(enumerate(stage) for stage in stages):
        builder.add_tree(_nodes(predictor, known, set_of_column), output=output)
    return builder.build()


def codes_in(bits: NDArray[np.uint32]) -> IntArray:
    """The members of a set stored as 32-bit words, lowest code in the lowest bit."""
    return np.flatnonzero(np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little"))


def _nodes(
    predictor: Predictor, known: list[IntArray], set_of_column: NDArray[np.uint32]
) -> TreeNodes:
    nodes = predictor.nodes
    is_inner = nodes["is_leaf"] == 0
    missing_left = nodes["missing_go_to_left"] != 0
    return TreeNodes(
        left=np.where(is_inner, nodes["left"].astype(np.int64), -1),
        right=np.where(is_inner, nodes["right"].astype(np.int64), -1),
        column=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        leaf_values=nodes["value"],
        missing_left=missing_left,
        categories={
            int(node): _category_set(
                codes_in(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]),
                known[set_of_column[nodes["feature_idx"][node]]],
                missing_left=bool(missing_left[node]),
            )
            for node in np.flatnonzero(is_inner & (nodes["is_categorical"] != 0))
        },
    )


def _category_set(left: IntArray, known: IntArray, *, missing_left: bool) -> CategorySet:
    # Codes outside the known ones go where missing goes, so the set must list the other side.
    return (np.setdiff1d(known, left), False) if missing_left else (left, True)
