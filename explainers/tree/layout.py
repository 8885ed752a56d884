"""A tree ensemble laid out for the kernels: splits and leaves apart, in depth-first order."""

import math

import numpy as np
from numpy.typing import NDArray

from explainers.base import (
    FloatArray,
    IntArray,
    MalformedModelError,
    PairValues,
    UnsupportedModelError,
    Values,
)
from explainers.tree import kernel
from explainers.tree.decisions import distinct_decisions
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
        self.decisions, which = distinct_decisions(ensemble, nodes)
        self.trees = kernel.Trees(
            roots=arrangement.roots,
            children=arrangement.children,
            decisions=which,
            slots=arrangement.slots,
            players=node_players[nodes].astype(np.uint32),
            leaf_values=ensemble.leaf_values[arrangement.leaf_nodes].astype(np.float64, order="C"),
            tree_output=ensemble.tree_output.astype(np.uint32),
            depth=arrangement.depth,
            weights=_shapley_weights(arrangement.most_players),
        )
        self._base = np.array(ensemble.base, dtype=np.float64)

    def decide(self, derived: FloatArray) -> NDArray[np.uint8]:
        """(N, D): 1 where a decision sends the row left."""
        return kernel.decide(self._read(derived), self.decisions)

    def outputs(self, derived: FloatArray) -> FloatArray:
        """(N, C) by plain traversal, summed as the library sums."""
        return kernel.ensemble_outputs(
            self._read(derived),
            self.decisions,
            self.trees,
            self._base,
            float(self.ensemble.divisor),
            bool(self.ensemble.float32_sums),
        )

    def reference(self, derived: FloatArray) -> kernel.Reference:
        """The background's derived rows, (B, P), as bit masks."""
        masks = kernel.masks_of(self.decide(derived))[self.trees.decisions]
        bits = np.arange(masks.shape[1] * 64) < len(derived)
        everyone = np.packbits(bits, bitorder="little").view(np.uint64)
        return kernel.Reference(masks, everyone, len(derived))

    def walked(
        self, derived: FloatArray, reference: kernel.Reference, trees: kernel.Trees
    ) -> Values:
        """(N, F, C) what these of the trees give, by the walk."""
        total = kernel.walk(
            self._read(derived), self.decisions, trees, reference, self.n_players, self.n_outputs
        )
        total /= reference.n_rows * self.ensemble.divisor
        return total

    def walked_pairs(
        self, derived: FloatArray, reference: kernel.Reference, values: Values, room: PairValues
    ) -> PairValues:
        """(N, F, F, C) interactions whose rows sum to values, (N, F, C); room is zeros."""
        divisor = float(self.ensemble.divisor)
        read = self._read(derived)
        kernel.walk_pairs(read, self.decisions, self.trees, reference, values, divisor, room)
        return room

    def looked_up(self, derived: FloatArray, tables: kernel.Tables) -> Values:
        """(N, F, C) what the trees in the tables give."""
        total = kernel.look_up(
            self._read(derived), self.decisions, tables, self.n_players, self.n_outputs
        )
        if self.ensemble.divisor != 1:
            total /= self.ensemble.divisor
        return total

    def without(self, trees: NDArray[np.bool_]) -> kernel.Trees:
        """The trees but these, (T,)."""
        kept = self.trees
        return kept._replace(roots=kept.roots[~trees], tree_output=kept.tree_output[~trees])

    @property
    def n_outputs(self) -> int:
        """C."""
        return self.ensemble.n_outputs

    def _read(self, derived: FloatArray) -> FloatArray:
        if derived.ndim != 2 or derived.shape[1] != self.ensemble.n_columns:
            raise ValueError(f"derived rows must be (N, {self.ensemble.n_columns})")
        rows = np.array(derived, dtype=np.float64, order="C")
        if self.ensemble.float32_inputs:
            kernel.round_to_float32(rows)
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
