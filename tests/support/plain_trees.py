"""Tree models as `TreeEnsemble` states their semantics, in plain numpy, and rows that tell."""

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from explainers.tree.edges import edge_rows
from explainers.tree.ensemble import TreeEnsemble

N_EDGE_ROWS = 2_000


def edges_of(ensemble: TreeEnsemble, rows: FloatArray) -> FloatArray:
    """Rows on every edge of the ensemble, with missing values and unseen codes in all columns."""
    every = np.ones(rows.shape[1], dtype=np.bool_)
    return edge_rows(
        ensemble,
        rows,
        n=N_EDGE_ROWS,
        rng=np.random.default_rng(7),
        missing_allowed=every,
        unseen_allowed=every,
    )


def traverse(ensemble: TreeEnsemble, X: FloatArray) -> FloatArray:
    """Outputs (N, C) of an ensemble by the semantics its docstring states."""
    kind = np.float32 if ensemble.float32_sums else np.float64
    sums = np.tile(ensemble.base.astype(kind), (len(X), 1))
    trees = np.zeros_like(sums) if ensemble.divisor != 1 else sums
    for root, output in zip(ensemble.roots, ensemble.tree_output, strict=True):
        leaf = _leaves(ensemble, X, int(root))
        values = ensemble.leaf_values[leaf].astype(kind)
        if values.shape[1] == 1:
            trees[:, output] += values[:, 0]
        else:
            trees += values
    if ensemble.divisor != 1:
        sums = sums + trees / ensemble.divisor
    return sums.astype(np.float64)


def _leaves(ensemble: TreeEnsemble, X: FloatArray, root: int) -> NDArray[np.int64]:
    node = np.full(len(X), root, dtype=np.int64)
    rows = np.flatnonzero(ensemble.left[node] >= 0)
    while len(rows):
        at = node[rows]
        goes_left = _goes_left(ensemble, at, X[rows, ensemble.column[at]])
        node[rows] = np.where(goes_left, ensemble.left[at], ensemble.right[at])
        rows = rows[ensemble.left[node[rows]] >= 0]
    return node


def _goes_left(ensemble: TreeEnsemble, at: NDArray[np.int64], x: FloatArray) -> NDArray[np.bool_]:
    if ensemble.float32_inputs:
        x = x.astype(np.float32).astype(np.float64)
    x = np.where(np.isnan(x) & ensemble.nan_is_zero[at], 0.0, x)
    is_zero = ensemble.zero_is_missing[at] & (np.abs(x) <= np.float64(np.float32(1e-35)))
    x = np.where(is_zero, np.nan, x)
    decided = np.where(
        ensemble.is_category[at],
        _is_member(ensemble, at, x) == ensemble.member_left[at],
        x <= ensemble.threshold[at],
    )
    return np.where(np.isnan(x), ensemble.missing_left[at], decided)


def _is_member(ensemble: TreeEnsemble, at: NDArray[np.int64], x: FloatArray) -> NDArray[np.bool_]:
    codes = np.trunc(np.nan_to_num(x, nan=-1.0))
    inside = (codes >= 0) & (codes < 32 * ensemble.category_words[at]) & ensemble.is_category[at]
    code = np.where(inside, codes, 0).astype(np.int64)
    word = np.where(inside, ensemble.category_start[at] + code // 32, 0)
    bits = np.append(ensemble.category_bits, np.uint32(0))[word]
    return inside & ((bits >> (code % 32).astype(np.uint32)) & 1 == 1)
