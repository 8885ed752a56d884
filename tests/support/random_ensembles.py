"""Random tree models that use every kind of node, for tests of what works on tree ensembles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from explainers.tree.ensemble import NODE_ARRAYS, TreeEnsemble

THRESHOLDS = (-1.0, 0.0, 0.3, 0.5, 1.0, 1.5)
CELLS = (-2.0, -0.5, 0.0, 1e-36, 0.3, 0.5, 1.0, 1.5, 2.0, 33.0, 70.0, float("nan"))

EVERY_TRAIT = (0.5, 0.3, 0.3, 0.3, 0.5)
"""Shares of nodes where missing goes left, NaN is 0, 0 is missing, codes are split, members go
left."""

LIBRARIES: Mapping[str, Mapping[str, Any]] = {
    "every trait": {},
    "XGBoost": {
        "shares": (0.5, 0, 0, 0.3, 0), "float32_inputs": True, "float32_sums": True,
    },
    "XGBoost dart": {
        "shares": (0.5, 0, 0, 0.3, 0), "float32_inputs": True, "float32_sums": True,
        "weighted": True,
    },
    "LightGBM": {"shares": (0.5, 0.3, 0.3, 0.3, 1)},
    "LightGBM rf": {"shares": (0.5, 0.3, 0.3, 0.3, 1), "divisor": 5.0},
    "LightGBM dart": {"shares": (0.5, 0.3, 0.3, 0.3, 1), "weighted": True},
    "forest": {
        "shares": (0.5, 0, 0, 0, 0), "float32_inputs": True, "vector_leaves": True,
        "divisor": 5.0,
    },
    "gradient boosting": {"shares": (0, 0, 0, 0, 0), "float32_inputs": True},
    "histogram boosting": {"shares": (0.5, 0, 0, 0.3, 0.5)},
    "CatBoost": {
        "shares": (0.5, 0, 0, 0, 0), "float32_inputs": True, "vector_leaves": True,
        "oblivious": True,
    },
    "CatBoost, nested": {
        "shares": (0.5, 0, 0, 0, 0), "float32_inputs": True, "vector_leaves": True,
    },
}  # fmt: skip
"""Options of random trees that are like a library's."""


@dataclass
class _Nodes:
    rng: np.random.Generator
    n_columns: int
    width: int
    shares: tuple[float, ...]
    levels: dict[int, tuple[float, ...]] | None
    """The split of each level, where all nodes of a level share one."""

    rows: list[tuple[float, ...]] = field(default_factory=list)
    leaf_values: list[FloatArray] = field(default_factory=list)

    def grow(self, depth: int) -> int:
        node = len(self.rows)
        self.rows.append((-1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0))
        self.leaf_values.append(np.zeros(self.width))
        if depth == 0 or (self.levels is None and self.rng.random() < 0.1):
            self.leaf_values[node] = self.rng.normal(size=self.width).astype(np.float32)
            return node
        left, right = self.grow(depth - 1), self.grow(depth - 1)
        split = self._split() if self.levels is None else self.levels.get(depth) or self._split()
        if self.levels is not None:
            self.levels[depth] = split
        self.rows[node] = (left, right, *split)
        return node

    def _split(self) -> tuple[float, ...]:
        column = int(self.rng.integers(self.n_columns))
        flags = self.rng.random(5) < self.shares
        start, words = int(self.rng.integers(3)), int(self.rng.integers(1, 3))
        threshold = float(self.rng.choice(THRESHOLDS))
        return (column, threshold, *flags, start, words)

    def add_tree(self, depth: int, *, weighted: bool) -> int:
        if self.levels is not None:
            self.levels = {}
        root = self.grow(depth)
        if weighted:
            factor = np.float32(self.rng.random())
            self.leaf_values[root:] = [values * factor for values in self.leaf_values[root:]]
        return root

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fields of a TreeEnsemble that have an entry a node, but for the leaf values."""
        columns = np.array(self.rows, dtype=np.float64).T
        left, right, column, start, words = columns[[0, 1, 2, 9, 10]].astype(np.int32)
        flags = columns[4:9] != 0
        fields = (left, right, column, columns[3].copy(), *flags, start, words)
        return dict(zip(NODE_ARRAYS, fields, strict=True))


def random_rows(seed: int, shape: tuple[int, int]) -> FloatArray:
    """Rows that lie on thresholds, next to them, on level codes, or are NaN."""
    return np.random.default_rng(seed).choice(CELLS, size=shape)


def random_trees(
    seed: int,
    *,
    n_columns: int = 5,
    n_trees: int = 4,
    depth: int = 4,
    n_outputs: int = 1,
    vector_leaves: bool = False,
    shares: tuple[float, ...] = EVERY_TRAIT,
    oblivious: bool = False,
    weighted: bool = False,
    **options: float,
) -> TreeEnsemble:
    """shares: as in EVERY_TRAIT. Oblivious trees have a split a level, weighted ones a factor each.

    options: of the ensemble.
    """
    rng = np.random.default_rng(seed)
    width = n_outputs if vector_leaves else 1
    nodes = _Nodes(rng, n_columns, width, shares, {} if oblivious else None)
    roots = [nodes.add_tree(depth, weighted=weighted) for _ in range(n_trees)]
    return TreeEnsemble(
        roots=np.array(roots, dtype=np.int32),
        category_bits=rng.integers(1 << 32, size=4, dtype=np.uint32),
        leaf_values=np.array(nodes.leaf_values),
        tree_output=np.arange(n_trees, dtype=np.int32) % n_outputs,
        base=rng.normal(size=n_outputs).astype(np.float32).astype(np.float64),
        n_columns=n_columns,
        **nodes.arrays(),
        **options,
    )
