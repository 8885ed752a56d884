"""Appends trees in whatever layout a format gives them and joins them into one TreeEnsemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainers.base import MalformedModelError
from explainers.tree.ensemble import TreeEnsemble

WORD_BITS = 32
MAX_CATEGORY_CODE = 1 << 24
"""Codes beyond it are not exact in float32, and one such code would claim a huge bit set."""

CategorySet = tuple[NDArray[np.int64], bool]
"""The member codes of a category node, and whether members go left."""


@dataclass(frozen=True, slots=True, eq=False)
class TreeNodes:
    """One tree over n nodes, node 0 the root; children are indices into these arrays.

    left and right are -1 at a leaf (any negative number is read so); threshold and column are
    ignored at leaves. leaf_values is (n,) or (n, V), ignored at inner nodes. A flag is one bool
    for the tree or one per node. categories maps a node to its set; such a node has no threshold.
    """

    left: ArrayLike
    right: ArrayLike
    column: ArrayLike
    threshold: ArrayLike
    leaf_values: ArrayLike
    missing_left: ArrayLike = False
    nan_is_zero: ArrayLike = False
    zero_is_missing: ArrayLike = False
    categories: Mapping[int, CategorySet] = field(default_factory=dict)


class EnsembleBuilder:
    """Collects trees over n_columns derived columns; base is (C,), the outputs without trees."""

    def __init__(self, n_columns: int, *, base: ArrayLike) -> None:
        self._n_columns = n_columns
        self._base = np.atleast_1d(np.asarray(base, dtype=np.float64))
        self._parts: dict[str, list[NDArray[np.generic]]] = {}
        self._roots: list[int] = []
        self._tree_output: list[int] = []
        self._n_nodes = 0
        self._n_words = 0

    def add_tree(self, tree: TreeNodes, *, output: int = 0) -> None:
        """Append a tree that adds to `output` (or to all outputs, when its leaves are vectors).

        Nodes the root does not reach (XGBoost keeps pruned ones) are dropped; a node reached
        twice, a child or an output out of range raise MalformedModelError.
        """
        if not 0 <= output < len(self._base):
            raise MalformedModelError(f"tree {len(self._roots)} adds to output {output}")
        left, right = (np.asarray(side, dtype=np.int64) for side in (tree.left, tree.right))
        kept = self._reached(left, right)
        new_index = np.full(len(left), -1, dtype=np.int64)
        new_index[kept] = self._n_nodes + np.arange(len(kept))
        inner = left[kept] >= 0
        self._append_structure(tree, kept, inner=inner)
        for name, side in (("left", left), ("right", right)):
            self._append(name, np.where(inner, new_index[side[kept]], -1).astype(np.int32))
        self._append_categories(tree.categories, kept)
        self._roots.append(self._n_nodes)
        self._tree_output.append(output)
        self._n_nodes += len(kept)

    def build(
        self, *, divisor: float = 1.0, float32_inputs: bool = False, float32_sums: bool = False
    ) -> TreeEnsemble:
        """The ensemble of all trees added so far; MalformedModelError when there is none."""
        if not self._roots:
            raise MalformedModelError("the model has no trees")
        arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        return TreeEnsemble(
            roots=np.array(self._roots, dtype=np.int32),
            tree_output=np.array(self._tree_output, dtype=np.int32),
            base=self._base,
            n_columns=self._n_columns,
            divisor=divisor,
            float32_inputs=float32_inputs,
            float32_sums=float32_sums,
            **arrays,
        )

    def _append(self, name: str, part: NDArray[np.generic]) -> None:
        self._parts.setdefault(name, []).append(part)

    def _append_structure(
        self, tree: TreeNodes, kept: NDArray[np.int64], *, inner: NDArray[np.bool_]
    ) -> None:
        n_nodes = np.size(tree.left)
        column = np.asarray(tree.column)[kept]
        if np.any((column < 0) & inner):
            raise MalformedModelError(f"tree {len(self._roots)} splits on a negative column")
        self._append("column", np.where(inner, column, -1).astype(np.int32))
        self._append("threshold", np.where(inner, np.asarray(tree.threshold)[kept], 0.0))
        for name in ("missing_left", "nan_is_zero", "zero_is_missing"):
            flags = np.broadcast_to(np.asarray(getattr(tree, name), dtype=np.bool_), n_nodes)
            self._append(name, flags[kept] & inner)
        leaves = np.asarray(tree.leaf_values, dtype=np.float64).reshape(n_nodes, -1)[kept]
        self._append("leaf_values", np.where(inner[:, None], 0.0, leaves))

    def _append_categories(
        self, categories: Mapping[int, CategorySet], kept: NDArray[np.int64]
    ) -> None:
        is_category = np.zeros(len(kept), dtype=np.bool_)
        member_left = np.zeros(len(kept), dtype=np.bool_)
        start = np.zeros(len(kept), dtype=np.int32)
        words = np.zeros(len(kept), dtype=np.int32)
        bits: list[NDArray[np.uint32]] = [np.zeros(0, dtype=np.uint32)]
        for position, node in enumerate(kept.tolist()):
            if node not in categories:
                continue
            codes, member_left[position] = categories[node]
            bits.append(category_bits(codes))
            is_category[position] = True
            start[position], words[position] = self._n_words, len(bits[-1])
            self._n_words += len(bits[-1])
        self._append("is_category", is_category)
        self._append("member_left", member_left)
        self._append("category_start", start)
        self._append("category_words", words)
        self._append("category_bits", np.concatenate(bits))

    def _reached(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        # Proving here that it is a tree lets every later traversal go without a cycle check.
        place = f"tree {len(self._roots)}"
        if left.shape != right.shape or left.ndim != 1 or not len(left):
            raise MalformedModelError(f"{place} has no nodes, or children of unequal number")
        if np.any((left < 0) != (right < 0)) or max(left.max(), right.max()) >= len(left):
            raise MalformedModelError(f"{place} has a node with one child, or one out of range")
        seen = np.zeros(len(left), dtype=np.bool_)
        level = np.zeros(1, dtype=np.int64)
        levels: list[NDArray[np.int64]] = []
        while len(level):
            if np.any(seen[level]) or len(np.unique(level)) != len(level):
                raise MalformedModelError(f"{place} reaches a node twice")
            seen[level] = True
            levels.append(level)
            inner = level[left[level] >= 0]
            level = np.column_stack([left[inner], right[inner]]).ravel()
        return np.concatenate(levels)


def category_bits(codes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint32]:
    """The codes as a bit set of 32-bit words, lowest code in the lowest bit of the first word."""
    members = np.asarray(codes, dtype=np.int64)
    if not len(members):
        return np.zeros(0, dtype=np.uint32)
    if members.min() < 0 or members.max() >= MAX_CATEGORY_CODE:
        raise MalformedModelError("a category code is negative or beyond 2**24")
    words = np.zeros(int(members.max()) // WORD_BITS + 1, dtype=np.uint32)
    bits = np.left_shift(np.uint32(1), (members % WORD_BITS).astype(np.uint32))
    np.bitwise_or.at(words, members // WORD_BITS, bits)
    return words
