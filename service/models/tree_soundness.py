"""Checks the trees inside a scikit-learn object before its C code walks them unchecked."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.models.errors import ModelLoadError


def check_trees(model: object) -> None:
    """Prove that every tree reachable from the model ends, within its own arrays and columns.

    ModelLoadError otherwise: such a file would hang or crash the process on the first prediction.
    """
    for part in _parts(model, seen=set()):
        if type(part).__name__ == "Tree":
            _check_tree(part)
        elif type(part).__name__ == "TreePredictor":
            _check_predictor(part)
        elif hasattr(part, "_predictors"):
            _check_predictor_columns(part)


def _check_tree(tree: Any) -> None:  # noqa: ANN401
    inner = tree.children_left != -1
    _check_children(tree.children_left, tree.children_right, inner)
    _check_columns(tree.feature[inner], tree.n_features)


def _check_predictor(predictor: Any) -> None:  # noqa: ANN401
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
    sets = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    if np.any(sets >= len(predictor.raw_left_cat_bitsets)):
        raise ModelLoadError("a tree refers to a category set that is not there")


def _check_predictor_columns(estimator: Any) -> None:  # noqa: ANN401
    for predictor in chain.from_iterable(estimator._predictors):  # noqa: SLF001
        nodes = predictor.nodes
        _check_columns(nodes["feature_idx"][nodes["is_leaf"] == 0], estimator.n_features_in_)


def _check_children(left: NDArray[Any], right: NDArray[Any], inner: NDArray[np.bool_]) -> None:
    # Parents come before their children in every tree scikit-learn grows, so there is no cycle.
    own = np.arange(len(left))[inner]
    for child in (left[inner], right[inner]):
        if not len(left) or np.any(child <= own) or np.any(child >= len(left)):
            raise ModelLoadError("a tree's children lie outside it or lead back")


def _check_columns(columns: NDArray[Any], n_columns: int) -> None:
    if np.any(columns < 0) or np.any(columns >= n_columns):
        raise ModelLoadError("a tree tests a column the model does not have")


def _parts(part: Any, *, seen: set[int]) -> Iterator[Any]:  # noqa: ANN401
    if id(part) in seen or isinstance(part, str | bytes | int | float | None):
        return
    seen.add(id(part))
    yield part
    if isinstance(part, dict):
        members = list(part.values())
    elif isinstance(part, list | tuple | set) or (
        isinstance(part, np.ndarray) and part.dtype == object
    ):
        members = list(part.ravel() if isinstance(part, np.ndarray) else part)
    else:
        members = list(getattr(part, "__dict__", {}).values())
    for member in members:
        yield from _parts(member, seen=seen)
