"""Many trees behind one call of the library.

A call costs microseconds, walking a tree a fraction of one. So the trees of an ensemble are copied
into one, below splits on one more column that holds the number of the tree wanted, and a row is
asked once per tree. The library's own routine walks it, to the leaves it would find anyway.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from explainers.derive import is_same

Rows = NDArray[np.floating[Any]]
"""(N, F) in the type the trees read."""

Nodes = NDArray[Any]
"""A tree as the library stores it, a record for each node, the root first."""

Walk = Callable[[Rows], FloatArray]
"""From (N, F) rows to the number or numbers (N, ...) of the leaf each arrives at."""

MOST_ROWS = 64
"""For more, a call for each tree costs less than a copy of every row for every tree."""

MOST_CELLS = 1 << 18
"""Of the copies walked at once: 1 or 2 MB, what a core's cache holds."""

LARGEST_COPY_BYTES = 100_000_000

PROOF_ROWS = 48
SPECIAL = np.array([np.nan, *range(-1, 257)])
"""Missing, and the category codes that sets can hold, and a little more."""


class Names(NamedTuple):
    """Of the fields of a node."""

    left: str
    right: str
    column: str
    threshold: str


TREE = Names("left_child", "right_child", "feature", "threshold")
PREDICTOR = Names("left", "right", "feature_idx", "num_threshold")


@dataclass(frozen=True, slots=True, eq=False)
class JoinedTrees:
    """T trees as one."""

    walk: Walk
    n_trees: int

    def __call__(self, rows: Rows) -> FloatArray:
        """(T, N, K) leaf values of (N, F) rows, K numbers a leaf."""
        at_once = max(MOST_CELLS // (self.n_trees * (rows.shape[1] + 1)), 1)
        if len(rows) <= at_once:
            return self._leaves(rows)
        starts = range(0, len(rows), at_once)
        parts = [self._leaves(rows[start : start + at_once]) for start in starts]
        return np.concatenate(parts, axis=1)

    def _leaves(self, rows: Rows) -> FloatArray:
        n_rows, n_columns = rows.shape
        copies = np.empty((self.n_trees, n_rows, n_columns + 1), rows.dtype)
        copies[:, :, :-1] = rows
        copies[:, :, -1] = np.arange(self.n_trees)[:, None]
        leaves = self.walk(copies.reshape(-1, n_columns + 1))
        return leaves.reshape(self.n_trees, n_rows, -1)


def join_trees(trees: Sequence[Any]) -> JoinedTrees | None:
    """The trees of a forest (`sklearn.tree._tree.Tree`) as one.

    None for a single tree, for copies over LARGEST_COPY_BYTES, and where the copy does not lead to
    the same bits as each tree's own predict. Cost: PROOF_ROWS rows through every tree.
    """
    if sum(64 * tree.node_count + tree.value.nbytes for tree in trees) > LARGEST_COPY_BYTES:
        return None
    return _proven(
        lambda: _one_tree(trees).predict,
        [tree.predict for tree in trees],
        [(tree.feature, tree.threshold) for tree in trees],
        np.zeros((PROOF_ROWS, trees[0].n_features), np.float32),
    )


def join_predictors(
    predictors: Sequence[Any], walk_of: Callable[[Any], Walk], n_columns: int
) -> JoinedTrees | None:
    """The trees of histogram boosting (`TreePredictor`) as one, as `join_trees` for the rest.

    walk_of: how each is walked, and the joined one, whose rows have one column more.
    """
    if sum(each.nodes.nbytes for each in predictors) > LARGEST_COPY_BYTES:
        return None
    return _proven(
        lambda: walk_of(_one_predictor(predictors, n_columns)),
        [walk_of(each) for each in predictors],
        [(each.nodes["feature_idx"], each.nodes["num_threshold"]) for each in predictors],
        np.zeros((PROOF_ROWS, n_columns)),
    )


def _proven(
    make: Callable[[], Walk],
    alone: Sequence[Walk],
    splits: Sequence[tuple[NDArray[Any], FloatArray]],
    rows: Rows,
) -> JoinedTrees | None:
    if len(alone) == 1:
        return None
    _fill_around(np.concatenate([np.stack(each) for each in splits], axis=1), rows)
    try:
        joined = JoinedTrees(make(), len(alone))
        leaves = joined(rows)
        expected = np.stack([np.reshape(walk(rows), (len(rows), -1)) for walk in alone])
    except (AttributeError, ImportError, LookupError, TypeError, ValueError):
        # How the library stores trees is its own business, and may change.
        return None
    return joined if is_same(leaves, expected) else None


def _fill_around(splits: FloatArray, rows: Rows) -> None:
    """Fill rows with values on and beside the thresholds of each column, and special ones."""
    rng = np.random.default_rng(0)
    for column in range(rows.shape[1]):
        thresholds = splits[1, splits[0] == column].astype(rows.dtype)
        beside = [np.nextafter(thresholds, rows.dtype.type(end)) for end in (-np.inf, np.inf)]
        values = np.concatenate([thresholds, *beside])
        specials = rng.choice(SPECIAL, len(rows))
        is_special = rng.random(len(rows)) < 1 / 3
        usual = rng.choice(values, len(rows)) if len(values) else specials
        rows[:, column] = np.where(is_special, specials, usual)


def _one_tree(trees: Sequence[Any]) -> Any:  # noqa: ANN401
    from sklearn.tree._tree import Tree

    first = trees[0]
    top, below = _joined([tree.__getstate__()["nodes"] for tree in trees], TREE, first.n_features)
    values = np.zeros((len(top), *first.value.shape[1:]))
    joined = Tree(first.n_features + 1, first.n_classes, first.n_outputs)
    joined.__setstate__(
        {
            "max_depth": len(top) + max(tree.max_depth for tree in trees),
            "node_count": len(top) + len(below),
            "nodes": np.concatenate([top, below]),
            "values": np.concatenate([values, *[tree.value for tree in trees]]),
        }
    )
    return joined


def _one_predictor(predictors: Sequence[Any], n_columns: int) -> Any:  # noqa: ANN401
    nodes = [each.nodes.copy() for each in predictors]
    n_sets = 0
    for own, each in zip(nodes, predictors, strict=True):
        own["bitset_idx"] += n_sets
        n_sets += len(each.raw_left_cat_bitsets)
    sets = np.concatenate([each.raw_left_cat_bitsets for each in predictors])
    return type(predictors[0])(np.concatenate(_joined(nodes, PREDICTOR, n_columns)), sets, sets)


def _joined(parts: Sequence[Nodes], names: Names, n_columns: int) -> tuple[Nodes, Nodes]:
    """Splits of column n_columns that lead its number t to tree t, and the trees below them."""
    starts = len(parts) - 1 + np.cumsum([0, *map(len, parts[:-1])])
    top = np.zeros(len(parts) - 1, parts[0].dtype)
    top[names.column] = n_columns
    _lead(top, names, starts.tolist())
    below = np.concatenate(parts)
    shift = np.repeat(starts, [len(part) for part in parts])
    for side in (names.left, names.right):
        children = below[side]
        below[side] = np.where(children > 0, children + shift, children)
    return top, below


def _lead(top: Nodes, names: Names, roots: Sequence[int]) -> None:
    """Fill in a balanced tree of splits, root first, between the whole numbers of the roots."""
    free = iter(range(len(top)))

    def split(low: int, high: int) -> int:
        if high - low == 1:
            return roots[low]
        middle = (low + high) // 2
        node = next(free)
        top[names.threshold][node] = middle - 0.5
        top[names.left][node] = split(low, middle)
        top[names.right][node] = split(middle, high)
        return node

    split(0, len(roots))
