"""A tree ensemble laid out for the kernels: splits and leaves apart, in depth-first order."""

import math

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray, MalformedModelError, UnsupportedModelError, Values
from explainers.tree import kernel
from explainers.tree.ensemble import TreeEnsemble


class LaidOutTrees:
    """The kernels over one ensemble whose derived columns belong to n_players raw columns.

    Raises UnsupportedModelError when a path has more than 64 distinct players and
    MalformedModelError when the nodes' links form no trees.
    """

    def __init__(self, ensemble: TreeEnsemble, players: IntArray, *, n_players: int) -> None:
        if players.shape != (ensemble.n_columns,):
            raise ValueError(f"{ensemble.n_columns} derived columns but players {players.shape}")
        if np.any(players < 0) or np.any(players >= n_players):
            raise ValueError(f"a derived column belongs to none of the {n_players} players")
        node_players = np.where(ensemble.column < 0, -1, players[ensemble.column]).astype(np.int32)
        arrangement = _arranged(ensemble, node_players, n_players)
        nodes = arrangement.split_nodes
        self.ensemble = ensemble
        self.n_players = n_players
        self.splits = _splits(ensemble, nodes)
        self.trees = kernel.Trees(
            roots=arrangement.roots,
            children=arrangement.children,
            slots=arrangement.slots,
            players=node_players[nodes].astype(np.uint32),
            leaf_values=ensemble.leaf_values[arrangement.leaf_nodes].astype(np.float64, order="C"),
            tree_output=ensemble.tree_output.astype(np.uint32),
            depth=arrangement.depth,
            weights=_shapley_weights(arrangement.most_players),
        )
        self._base = np.array(ensemble.base, dtype=np.float64)

    def decide(self, derived: FloatArray) -> NDArray[np.uint8]:
        """(N, I): 1 where a split sends the row left, splits in depth-first order."""
        return kernel.decide(self._read(derived), self.splits)

    def outputs(self, derived: FloatArray) -> FloatArray:
        """(N, C) by plain traversal, summed as the library sums."""
        return kernel.ensemble_outputs(
            self._read(derived),
            self.splits,
            self.trees,
            self._base,
            float(self.ensemble.divisor),
            bool(self.ensemble.float32_sums),
        )

    def reference(self, derived: FloatArray) -> kernel.Reference:
        """The background's derived rows, (B, P), as bit masks."""
        masks = kernel.masks_of(self.decide(derived))
        bits = np.arange(masks.shape[1] * 64) < len(derived)
        everyone = np.packbits(bits, bitorder="little").view(np.uint64)
        return kernel.Reference(masks, everyone, len(derived))

    def values(self, derived: FloatArray, reference: kernel.Reference) -> Values:
        """(N, F, C) Shapley values against a background."""
        rows = self._read(derived)
        n_outputs = self.ensemble.n_outputs
        total = kernel.walk(rows, self.splits, self.trees, reference, self.n_players, n_outputs)
        total /= reference.n_rows * self.ensemble.divisor
        return total

    def _read(self, derived: FloatArray) -> FloatArray:
        if derived.ndim != 2 or derived.shape[1] != self.ensemble.n_columns:
            raise ValueError(f"derived rows must be (N, {self.ensemble.n_columns})")
        rows = np.array(derived, dtype=np.float64, order="C")
        if self.ensemble.float32_inputs:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32).astype(np.float64)
        return rows


def _shapley_weights(most_players: int) -> FloatArray:
    """weights[i, j] = (i-1)! j! / (i+j)! for sets of up to most_players, 0 for i = 0."""
    size = most_players + 1
    weights = np.zeros((size, size))
    for i in range(1, size):
        weights[i] = [1.0 / (i * math.comb(i + j, i)) for j in range(size)]
    return weights


def _arranged(
    ensemble: TreeEnsemble, node_players: NDArray[np.int32], n_players: int
) -> kernel.Arrangement:
    arrangement = kernel.arrange(
        np.array(ensemble.roots, dtype=np.int32),
        np.array(ensemble.left, dtype=np.int32),
        np.array(ensemble.right, dtype=np.int32),
        node_players,
        n_players,
    )
    if arrangement.depth < 0:
        raise MalformedModelError("a node is reached twice: the links form no trees")
    if arrangement.most_players > kernel.MAX_PLAYERS:
        raise UnsupportedModelError(
            f"a path tests more than {kernel.MAX_PLAYERS} distinct columns, too many for the walk"
        )
    return arrangement


def _splits(ensemble: TreeEnsemble, nodes: NDArray[np.int32]) -> kernel.Splits:
    category = np.flatnonzero(ensemble.is_category[nodes])
    category_nodes = nodes[category]
    return kernel.Splits(
        columns=ensemble.column[nodes].astype(np.uint32),
        thresholds=ensemble.threshold[nodes].astype(np.float64),
        codes=_codes(ensemble)[nodes],
        category_splits=category.astype(np.uint32),
        category_start=ensemble.category_start[category_nodes].astype(np.uint32),
        category_words=ensemble.category_words[category_nodes].astype(np.uint32),
        member_left=ensemble.member_left[category_nodes].astype(np.bool_),
        category_bits=np.array(ensemble.category_bits, dtype=np.uint32),
    )


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
