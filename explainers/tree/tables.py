"""Tables that hold, for every pattern of decisions, what a set of leaves gives its players."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray
from explainers.tree import kernel
from explainers.tree.layout import LaidOutTrees

CACHE_LINE = 64
NOTHING = -1
MOST_PLACES = 1 << 16
"""Bits of a row, and its players times outputs, are counted in 16 bits."""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTrees:
    """The tables of some trees, and which trees (T,) these are."""

    tables: kernel.Tables
    kept: BoolArray

    @property
    def n_bytes(self) -> int:
        """Memory of the tables."""
        return self.tables.rows.nbytes + self.tables.wide.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Which tables there are to be, of the trees kept."""

    paths: kernel.Paths
    narrow: kernel.Pieces
    wide: kernel.Pieces
    kept: BoolArray


def compile_tables(
    trees: LaidOutTrees, reference: kernel.Reference, *, max_bytes: int
) -> CompiledTrees:
    """Tables of at most max_bytes: trees with the smallest first.

    A tree with a path of more than 13 players is left out. All are when fewer than half would be
    kept (the walk of the others takes the time, the tables the memory), or when the model has more
    bits or targets than 16-bit indices reach.
    """
    plan = _planned(trees, max_bytes)
    further = _further_bits(trees, plan)
    n_bits = len(trees.decisions.thresholds) + 1 + len(further)
    if max(n_bits, (trees.n_players + 1) * trees.n_outputs) > MOST_PLACES:
        plan, further = _planned(trees, NOTHING), further[:0]
    return CompiledTrees(_filled(trees, reference, plan, further), plan.kept)


def _planned(trees: LaidOutTrees, max_bytes: int) -> _Plan:
    paths = kernel.trace(trees.trees, len(trees.decisions.thresholds))
    n_trees = len(trees.trees.roots)
    players, owners = paths.leaf_players, paths.leaf_trees
    tree_bytes = np.zeros(n_trees)
    tree_bytes[owners[players > kernel.WIDE_BITS]] = np.inf
    hopeful = (players > 0) & (tree_bytes[owners] <= max_bytes)
    few = players <= kernel.PIECE_BITS
    narrow = kernel.cut(paths, np.flatnonzero(hopeful & few), kernel.PIECE_BITS)
    wide = kernel.cut(paths, np.flatnonzero(hopeful & ~few), kernel.WIDE_BITS)
    number = np.dtype(np.float32).itemsize * trees.trees.leaf_values.shape[1]
    for pieces in (narrow, wide):
        sizes = number * _across(pieces) << pieces.bits[:, -1]
        tree_bytes += np.bincount(owners[_first_leaves(pieces)], sizes, minlength=n_trees)
    order = np.argsort(tree_bytes, kind="stable")
    fitting = order[np.cumsum(tree_bytes[order]) <= max_bytes]
    kept = np.zeros(n_trees, dtype=np.bool_)
    if 2 * len(fitting) >= n_trees:
        kept[fitting] = True
    narrow, wide = (_of_trees(pieces, kept, paths) for pieces in (narrow, wide))
    return _Plan(paths, narrow, wide, kept)


def _across(pieces: kernel.Pieces) -> IntArray:
    """(K,) numbers in a row: 8 in narrow pieces, so that loops over them are unrolled."""
    if pieces.bits.shape[1] > kernel.PIECE_BITS + 1:
        return pieces.players[:, -1]
    return np.full(len(pieces.first), kernel.PIECE_BITS)


def _of_trees(pieces: kernel.Pieces, trees: BoolArray, paths: kernel.Paths) -> kernel.Pieces:
    """The pieces of some trees, (T,)."""
    kept = trees[paths.leaf_trees[_first_leaves(pieces)]]
    fields = pieces._asdict()
    return kernel.Pieces(**{k: v if k == "leaves" else v[kept] for k, v in fields.items()})


def _first_leaves(pieces: kernel.Pieces) -> IntArray:
    return pieces.leaves[pieces.first]


def _further_bits(trees: LaidOutTrees, plan: _Plan) -> IntArray:
    """Edges whose conditions on their player are joined to a bit, and those these build upon."""
    n_decisions = len(trees.decisions.thresholds)
    used = np.concatenate([pieces.bits[:, :-1].ravel() for pieces in (plan.narrow, plan.wide)])
    edges = np.unique(used[used >= n_decisions]) - n_decisions
    while True:
        above = plan.paths.earlier[edges >> 1]
        above = above[plan.paths.earlier[above >> 1] >= 0]
        grown = np.union1d(edges, above)
        if len(grown) == len(edges):
            return grown.astype(np.int64)
        edges = grown


def _filled(
    trees: LaidOutTrees, reference: kernel.Reference, plan: _Plan, further: IntArray
) -> kernel.Tables:
    narrow, wide = plan.narrow, plan.wide
    scale, values = _centred(trees, plan.paths)
    starts, numbers = _numbers(plan.paths, narrow, reference, values)
    wide_starts, wide_numbers = _numbers(plan.paths, wide, reference, values)
    bits = _Bits(len(trees.decisions.thresholds), further, 2 * len(trees.trees.children))
    sources, flips = bits.conjunctions(trees.trees, plan.paths)
    return kernel.Tables(
        bit_sources=sources,
        bit_flips=flips,
        piece_bits=bits.places(narrow.bits[:, :-1]),
        piece_targets=_targets(trees, plan.paths, narrow),
        piece_starts=(starts // kernel.PIECE_BITS).astype(np.uint32),
        rows=numbers.reshape(-1, kernel.PIECE_BITS),
        wide_bits=bits.places(wide.bits[:, :-1])[wide.bits[:, :-1] >= 0],
        wide_bit_stops=np.cumsum(wide.bits[:, -1]).astype(np.uint32),
        wide_targets=_targets(trees, plan.paths, wide)[wide.players[:, :-1] >= 0],
        wide_target_stops=np.cumsum(wide.players[:, -1]).astype(np.uint32),
        wide_starts=wide_starts.astype(np.uint64),
        wide=wide_numbers,
        width=values.shape[1],
        scale=scale,
    )


def _numbers(
    paths: kernel.Paths, pieces: kernel.Pieces, reference: kernel.Reference, values: FloatArray
) -> tuple[IntArray, NDArray[np.float32]]:
    """(K,) where the numbers of each piece start, and all numbers."""
    across = _across(pieces)
    ends = np.cumsum(values.shape[1] * across << pieces.bits[:, -1])
    starts = np.append(0, ends)
    numbers = aligned(int(starts[-1]))
    places = np.column_stack([starts[:-1], across])
    kernel.fill_pieces(paths, reference, pieces, places, values, numbers)
    return starts[:-1], numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Bits:
    """Where each bit is in a row's buffer: D decisions, a 0, then the further bits."""

    n_decisions: int
    further: IntArray
    n_edges: int

    def places(self, bits: IntArray) -> NDArray[np.uint16]:
        """Places of bits as `kernel.Pieces` numbers them; that of the 0 for -1."""
        places = np.arange(self.n_decisions + self.n_edges + 1)
        places[self.n_decisions + self.further] = self._rank + self.n_decisions + 1
        places[-1] = self.n_decisions
        return places[bits].astype(np.uint16)

    def conjunctions(
        self, trees: kernel.Trees, paths: kernel.Paths
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """(E, 2) the two bits each further bit joins, and whether they are negated."""
        splits = self.further >> 1
        above = paths.earlier[splits]
        alone = paths.earlier[above >> 1] < 0
        first = np.where(alone, trees.decisions[above >> 1], self.n_decisions + above)
        sources = np.column_stack([self.places(first), trees.decisions[splits]])
        flips = np.column_stack([alone & (above & 1), self.further & 1])
        return sources.astype(np.uint16), flips.astype(np.uint8)

    @property
    def _rank(self) -> IntArray:
        return np.arange(len(self.further))


def _targets(trees: LaidOutTrees, paths: kernel.Paths, pieces: kernel.Pieces) -> NDArray[np.uint16]:
    """(K, G) places in a row's sums of the players; vector leaves begin at output 0."""
    outputs = trees.trees.tree_output[paths.leaf_trees[_first_leaves(pieces)]]
    first = outputs if trees.trees.leaf_values.shape[1] == 1 else np.zeros_like(outputs)
    players = pieces.players[:, :-1]
    known = np.where(players < 0, trees.n_players, players)
    return np.asarray(known * trees.n_outputs + first[:, None], dtype=np.uint16)


def _centred(trees: LaidOutTrees, paths: kernel.Paths) -> tuple[float, FloatArray]:
    """A power of two, and leaf values (L, V) divided by it with each tree's mean taken off.

    No Shapley value depends on a tree's mean; without it float32 keeps two more digits.
    """
    values = trees.trees.leaf_values
    largest = float(np.abs(values).max(initial=0.0))
    scale = 2.0 ** np.floor(np.log2(largest)) if largest else 1.0
    values = values / scale
    owners = paths.leaf_trees
    counts = np.bincount(owners, minlength=len(trees.trees.roots))
    centred = np.empty_like(values)
    for v, column in enumerate(values.T):
        centred[:, v] = column - (np.bincount(owners, column) / counts)[owners]
    return float(scale), centred


def aligned(count: int) -> NDArray[np.float32]:
    """So many numbers, from the start of a cache line: no row of 8 lies across two lines."""
    store = np.empty(count + CACHE_LINE // 4, dtype=np.float32)
    return store[-store.ctypes.data % CACHE_LINE // 4 :][:count]
