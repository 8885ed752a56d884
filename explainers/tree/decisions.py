"""The distinct decisions of an ensemble: splits that ask the same question share one."""

import numpy as np
from numpy.typing import NDArray

from explainers.base import IntArray
from explainers.tree import kernel
from explainers.tree.ensemble import TreeEnsemble


def distinct_decisions(
    ensemble: TreeEnsemble, nodes: NDArray[np.int32]
) -> tuple[kernel.Decisions, NDArray[np.uint32]]:
    """The D decisions taken at nodes (I,), and which of them each node takes, (I,)."""
    sets = _set_numbers(ensemble)[nodes]
    columns = ensemble.column[nodes]
    thresholds = np.where(sets == 0, ensemble.threshold[nodes], 0.0)
    keys = (thresholds, _codes(ensemble)[nodes], sets, columns)
    order = np.lexsort(keys)
    first = np.ones(len(nodes), dtype=np.bool_)
    if len(nodes):
        first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    index = np.empty(len(nodes), dtype=np.uint32)
    index[order] = np.cumsum(first) - 1
    return _gathered(ensemble, nodes[order[first]]), index


def _gathered(ensemble: TreeEnsemble, nodes: NDArray[np.int32]) -> kernel.Decisions:
    columns, starts = np.unique(ensemble.column[nodes], return_index=True)
    codes = _codes(ensemble)[nodes]
    category = np.flatnonzero(ensemble.is_category[nodes])
    category_nodes = nodes[category]
    return kernel.Decisions(
        columns=columns.astype(np.uint32),
        starts=np.append(starts, len(nodes)).astype(np.uint32),
        zero_special=np.isin(columns, ensemble.column[nodes[codes & kernel.ZERO_SPECIAL > 0]]),
        thresholds=ensemble.threshold[nodes].astype(np.float64),
        codes=codes,
        category_decisions=category.astype(np.uint32),
        category_columns=ensemble.column[category_nodes].astype(np.uint32),
        category_start=ensemble.category_start[category_nodes].astype(np.uint32),
        category_words=ensemble.category_words[category_nodes].astype(np.uint32),
        member_left=ensemble.member_left[category_nodes].astype(np.bool_),
        category_bits=np.array(ensemble.category_bits, dtype=np.uint32),
    )


def _set_numbers(ensemble: TreeEnsemble) -> IntArray:
    """(M,) equal where the same codes go left, 0 at numeric nodes."""
    numbers = np.zeros(len(ensemble.column), dtype=np.int64)
    known: dict[tuple[bytes, bool], int] = {}
    for node in np.flatnonzero(ensemble.is_category).tolist():
        start = ensemble.category_start[node]
        words = ensemble.category_bits[start : start + ensemble.category_words[node]]
        key = (words.tobytes().rstrip(b"\0"), bool(ensemble.member_left[node]))
        numbers[node] = known.setdefault(key, len(known) + 1)
    return numbers


def _codes(ensemble: TreeEnsemble) -> NDArray[np.uint8]:
    zero_left = np.where(ensemble.is_category, _first_level_left(ensemble), ensemble.threshold >= 0)
    zero_left = np.where(ensemble.zero_is_missing, ensemble.missing_left, zero_left)
    nan_left = np.where(ensemble.nan_is_zero, zero_left, ensemble.missing_left)
    return (
        nan_left * kernel.NAN_LEFT
        | ensemble.zero_is_missing * kernel.ZERO_SPECIAL
        | (ensemble.zero_is_missing & ensemble.missing_left) * kernel.ZERO_LEFT
    ).astype(np.uint8)


def _first_level_left(ensemble: TreeEnsemble) -> NDArray[np.bool_]:
    member = np.zeros(len(ensemble.column), dtype=np.bool_)
    known = ensemble.is_category & (ensemble.category_words > 0)
    member[known] = ensemble.category_bits[ensemble.category_start[known]] & 1
    return np.equal(member, ensemble.member_left)
