"""Checks the trees inside a scikit-learn object before its C code walks them unchecked."""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.models.errors import ModelLoadError

WORDS_OF_A_SET = 8
"""Histogram boosting keeps 256 category codes in 32-bit words."""


def check_trees(model: object) -> None:
    """Prove that every tree reachable from the model ends, within its own arrays and columns.

    ModelLoadError otherwise: such a file would hang or crash the process on the first prediction.
    """
    parts = list(parts_of(model))
    try:
        for part in parts:
            _check_part(part)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelLoadError(f"a tree model in the file is not complete: {error!r}") from error


def parts_of(model: object) -> Iterator[Any]:
    """Everything reachable from the model, each object once."""
    return _parts(model, seen=set())


def _check_part(part: Any) -> None:  # noqa: ANN401
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting

    if type(part).__name__ == "Tree":
        _check_tree(part)
    elif hasattr(part, "tree_"):
        _check_width([part.tree_.n_features], part)
    elif isinstance(part, BaseForest | BaseGradientBoosting) and _is_fitted(part):
        members = np.asarray(part.estimators_, dtype=object).ravel()
        _check_width([member.n_features_in_ for member in members], part)
    elif isinstance(part, partial):
        _check_partial(part)
    elif hasattr(part, "_predictors"):
        _check_histogram_boosting(part)


def _is_fitted(part: Any) -> bool:  # noqa: ANN401
    # Stacking keeps the estimators it made copies of; called, such a one raises.
    return "estimators_" in vars(part)


def _check_tree(tree: Any) -> None:  # noqa: ANN401
    inner = tree.children_left != -1
    _check_children(tree.children_left, tree.children_right, inner)
    _check_columns(tree.feature[inner], tree.n_features)


def _check_width(widths: list[int], estimator: Any) -> None:  # noqa: ANN401
    # Rows are compared with the estimator's number alone.
    if any(width != estimator.n_features_in_ for width in widths):
        raise ModelLoadError("a tree reads other columns than its estimator")


def _check_predictor(predictor: Any) -> None:  # noqa: ANN401
    nodes, sets = predictor.nodes, predictor.raw_left_cat_bitsets
    inner = nodes["is_leaf"] == 0
    _check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
    if sets.dtype != np.uint32 or sets.ndim != 2 or sets.shape[1] != WORDS_OF_A_SET:
        raise ModelLoadError("a tree's category sets have another layout")
    named = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    if np.any(named >= len(sets)):
        raise ModelLoadError("a tree refers to a category set that is not there")


def _check_partial(part: partial[Any]) -> None:
    # Histogram boosting stores one; any other would be a call the file chose.
    from sklearn.utils.validation import check_array

    if part.func is not check_array or part.args:
        raise ModelLoadError("the file holds types that are not trusted: functools.partial")


def _check_histogram_boosting(estimator: Any) -> None:  # noqa: ANN401
    n_columns = estimator.n_features_in_
    by_code = np.zeros(n_columns, dtype=np.bool_)
    mapped = np.asarray(estimator._bin_mapper.is_categorical_, dtype=np.bool_)  # noqa: SLF001
    if mapped.shape != by_code.shape:
        raise ModelLoadError("a tree model maps other columns than it has")
    for stage in estimator._predictors:  # noqa: SLF001
        if len(stage) != estimator._baseline_prediction.shape[1]:  # noqa: SLF001
            raise ModelLoadError("a tree adds to an output the model does not have")
    for predictor in chain.from_iterable(estimator._predictors):  # noqa: SLF001
        _check_predictor(predictor)
        nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
        _check_columns(nodes["feature_idx"], n_columns)
        by_code[nodes["feature_idx"][nodes["is_categorical"] != 0]] = True
    if np.any(by_code & ~mapped):
        raise ModelLoadError("a tree reads categories in a column that has none")
    if estimator._preprocessor is not None:  # noqa: SLF001
        _check_preprocessor(estimator._preprocessor, n_columns)  # noqa: SLF001


def _check_preprocessor(preprocessor: Any, n_columns: int) -> None:  # noqa: ANN401
    # The trees read rows of this width without looking.
    import pandas as pd

    names = getattr(preprocessor, "feature_names_in_", None)
    row = np.full((1, n_columns), np.nan, dtype=object)
    made = preprocessor.transform(row if names is None else pd.DataFrame(row, columns=names))
    if np.shape(made) != (1, n_columns):
        raise ModelLoadError("the preprocessor makes other columns than the trees read")


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
