"""Rows that make a misread tree model show itself."""

from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from explainers.base import BoolArray, FloatArray
from explainers.tree.build import WORD_BITS
from explainers.tree.ensemble import TreeEnsemble

Width = TypeVar("Width", np.float32, np.float64)

LARGEST = float(np.nextafter(np.finfo(np.float32).max, np.float32(0)))
MOST_COLUMNS = 4
"""A row gets an edge value in one to this many columns: more would move it away from the paths that
real rows take."""


def edge_rows(
    ensemble: TreeEnsemble,
    base_rows: FloatArray,
    *,
    n: int,
    rng: Generator,
    missing_allowed: BoolArray,
    unseen_allowed: BoolArray,
) -> FloatArray:
    """(n, P) derived rows: random base rows, each with some columns moved to an edge value.

    base_rows: (B, P). missing_allowed, unseen_allowed: (P,) whether NaN, and codes beyond the
    known ones, may occur in a column. All columns in splits get an equal share of the rows, so
    that a category with few codes is not drowned by a number with many thresholds; within a
    column every edge value is used once before any is used twice.
    """
    rows = base_rows[rng.integers(0, len(base_rows), n)].astype(np.float64)
    tested = np.unique(ensemble.column[ensemble.left >= 0])
    if not len(tested):
        return rows
    columns = rng.choice(tested, size=(n, MOST_COLUMNS))
    slot = np.arange(MOST_COLUMNS)
    columns[slot >= rng.integers(1, MOST_COLUMNS + 1, size=(n, 1))] = -1
    for column in tested.tolist():
        edges = _edges(ensemble, column, base_rows[:, column], unseen=bool(unseen_allowed[column]))
        if missing_allowed[column]:
            edges = np.append(edges, np.full(1 + len(edges) // 10, np.nan))
        moved = np.flatnonzero(np.any(columns == column, axis=1))
        cycles = [rng.permutation(edges) for _ in range(1 + len(moved) // len(edges))]
        rows[moved, column] = np.concatenate(cycles)[: len(moved)]
    return rows


def _edges(ensemble: TreeEnsemble, column: int, seen: FloatArray, *, unseen: bool) -> FloatArray:
    splits = ensemble.column == column
    by_code = np.flatnonzero(splits & ensemble.is_category)
    codes = _codes(ensemble, by_code, seen, unseen=unseen) if len(by_code) else np.zeros(0)
    return np.append(_numeric_edges(ensemble.threshold[splits & ~ensemble.is_category]), codes)


def _numeric_edges(thresholds: FloatArray) -> FloatArray:
    if not len(thresholds):
        return thresholds
    # Some thresholds stand for infinity; rows never hold what float32 cannot.
    steps = np.unique(thresholds[np.abs(thresholds) < LARGEST])
    single = steps.astype(np.float32)
    singles = [single, *_neighbours(single)]
    # The next ones but one: a strict comparison is stored as a threshold one step below, so a
    # flipped one differs there.
    singles += [step for side in singles[1:] for step in _neighbours(side)]
    near = np.concatenate([steps, *(side.astype(np.float64) for side in singles)])
    doubles = [near, *_neighbours(near)]
    tiny = np.float64(np.float32(1e-35))
    around_zero = np.array([0.0, 1e-35, tiny, np.nextafter(tiny, 1.0), 2e-35])
    midpoints = (steps[1:] + steps[:-1]) / 2
    edges = np.concatenate([*doubles, midpoints, around_zero, -around_zero])
    # By their bits, which keep -0.0 beside 0.0.
    distinct: FloatArray = np.unique(edges.view(np.int64)).view(np.float64)
    return distinct[np.abs(distinct) <= LARGEST]


def _neighbours(values: NDArray[Width]) -> list[NDArray[Width]]:
    infinity = np.array(np.inf, dtype=values.dtype)
    return [np.nextafter(values, -infinity), np.nextafter(values, infinity)]


def _codes(
    ensemble: TreeEnsemble, nodes: NDArray[np.int64], seen: FloatArray, *, unseen: bool
) -> FloatArray:
    highest = max(int(np.max(seen, initial=-1.0, where=~np.isnan(seen))), 0)
    for start, words in zip(
        ensemble.category_start[nodes], ensemble.category_words[nodes], strict=True
    ):
        if words:
            last = int(ensemble.category_bits[start + words - 1]).bit_length() - 1
            highest = max(highest, int(words - 1) * WORD_BITS + last)
    codes = np.arange(highest + 1, dtype=np.float64)
    if not unseen:
        return codes
    beyond = np.unique(ensemble.category_words[nodes]) * WORD_BITS
    offsets = np.concatenate([[-1, highest + 1, highest + 2], beyond - 1, beyond, beyond + 1])
    return np.concatenate([codes, np.unique(offsets[(offsets < 0) | (offsets > highest)])])
