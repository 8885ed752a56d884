"""One neutral form for the trees of every library: flat arrays, no library types."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, MalformedModelError

NODE_ARRAYS = (
    "left",
    "right",
    "column",
    "threshold",
    "missing_left",
    "nan_is_zero",
    "zero_is_missing",
    "is_category",
    "member_left",
    "category_start",
    "category_words",
)


@dataclass(frozen=True, slots=True, eq=False)
class TreeEnsemble:
    """T trees over P derived columns with C outputs; all nodes of all trees in flat arrays of M.

    A node tests one derived column and sends a row left or right. The decision, in this order:
    1. x is cast to float32 first when `float32_inputs`.
    2. `nan_is_zero` nodes read NaN as 0.0. `zero_is_missing` nodes read |x| <= float32(1e-35) as
       missing.
    3. missing (NaN) goes left if `missing_left`.
    4. numeric node: left if x <= threshold.
    5. category node: k = x truncated towards zero; a member is 0 <= k < 32 * category_words with
       its bit set in category_bits[category_start:]; members go left if `member_left`, all other
       codes (negative and beyond the set too) go the other way.

    output[c] = link-free sum: base[c] first, then the leaf of each tree in order, all / divisor
    for the trees' part when divisor != 1. With V = leaf_values.shape[1] equal to 1, tree t adds to
    output `tree_output[t]`; else V == C and leaf vectors add to all outputs.
    `float32_sums`: the library accumulates in float32; outputs reproduce it bit by bit that way.
    """

    roots: NDArray[np.int32]  # (T,) node index of each tree's root
    left: NDArray[np.int32]  # (M,) node index, -1 at a leaf
    right: NDArray[np.int32]
    column: NDArray[np.int32]  # (M,) derived column tested, -1 at a leaf
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    nan_is_zero: NDArray[np.bool_]
    zero_is_missing: NDArray[np.bool_]
    is_category: NDArray[np.bool_]
    member_left: NDArray[np.bool_]
    category_start: NDArray[np.int32]
    category_words: NDArray[np.int32]
    category_bits: NDArray[np.uint32]
    leaf_values: NDArray[np.float64]  # (M, V); rows of inner nodes are 0
    tree_output: NDArray[np.int32]  # (T,)
    base: FloatArray  # (C,)
    n_columns: int
    divisor: float = 1.0
    float32_inputs: bool = False
    float32_sums: bool = False

    def __post_init__(self) -> None:
        n_nodes = len(self.left)
        for name in NODE_ARRAYS:
            if getattr(self, name).shape != (n_nodes,):
                raise MalformedModelError(f"{name} must have one entry per node")
        width = self.leaf_values.shape[1]
        if width not in (1, len(self.base)):
            raise MalformedModelError(f"leaf width {width} fits neither 1 nor {len(self.base)}")
        inner = self.left >= 0
        if np.any(inner != (self.right >= 0)) or np.any(inner != (self.column >= 0)):
            raise MalformedModelError("a node has one child, or a leaf tests a column")
        if np.any(self.column >= self.n_columns):
            raise MalformedModelError("a node tests a column beyond the model's columns")
        if np.any(self.left >= n_nodes) or np.any(self.right >= n_nodes):
            raise MalformedModelError("a child lies beyond the last node")
        self._require_inside(n_nodes)
        if not np.all(np.isfinite(self.leaf_values)) or not np.all(np.isfinite(self.base)):
            raise MalformedModelError("a leaf or base value is not finite")

    def _require_inside(self, n_nodes: int) -> None:
        if len(self.leaf_values) != n_nodes or len(self.tree_output) != len(self.roots):
            raise MalformedModelError("a node has no leaf value, or a tree no output")
        if np.any(self.roots < 0) or np.any(self.roots >= n_nodes):
            raise MalformedModelError("a root is no node")
        if np.any(self.tree_output < 0) or np.any(self.tree_output >= len(self.base)):
            raise MalformedModelError("a tree adds to an output beyond the model's")
        ends = (self.category_start + self.category_words)[self.is_category]
        starts = self.category_start[self.is_category]
        if np.any(starts < 0) or np.any(ends < starts) or np.any(ends > len(self.category_bits)):
            raise MalformedModelError("a category set lies beyond the stored bits")

    @property
    def n_outputs(self) -> int:
        """C."""
        return len(self.base)

    @property
    def n_trees(self) -> int:
        """T."""
        return len(self.roots)
