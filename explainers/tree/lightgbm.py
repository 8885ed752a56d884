"""Reads LightGBM's dumped model into a TreeEnsemble."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explainers.base import MalformedModelError, UnsupportedModelError
from explainers.tree.build import CategorySet, EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble

MISSING_TYPES = frozenset({"None", "Zero", "NaN"})
ZERO_THRESHOLD = float(np.float32(1e-35))
BELOW_ZERO = float(np.nextafter(-ZERO_THRESHOLD, -np.inf))


def parse_lightgbm(dump: Mapping[str, Any]) -> TreeEnsemble:
    """All trees of `Booster.dump_model()`, which already stops at the best iteration.

    The outputs are raw scores; a random forest's are averaged over its iterations, unlike
    `raw_score=True`. Derived columns are the model's features in order. Raises
    UnsupportedModelError for linear trees, MalformedModelError for anything that is no such dump.
    """
    try:
        return _parse(dump)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise MalformedModelError(f"not a LightGBM model dump: {error!r}") from error


def _parse(dump: Mapping[str, Any]) -> TreeEnsemble:
    per_iteration = int(dump["num_tree_per_iteration"])
    trees = dump["tree_info"]
    builder = EnsembleBuilder(int(dump["max_feature_idx"]) + 1, base=np.zeros(per_iteration))
    for index, tree in enumerate(trees):
        builder.add_tree(_nodes(tree["tree_structure"]), output=index % per_iteration)
    averaged = bool(dump["average_output"])
    return builder.build(divisor=len(trees) // per_iteration if averaged else 1.0)


@dataclass(slots=True, eq=False)
class _Columns:
    """One list per field of a tree being flattened."""

    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    leaf_values: list[float] = field(default_factory=list)
    missing_left: list[bool] = field(default_factory=list)
    nan_is_zero: list[bool] = field(default_factory=list)
    zero_is_missing: list[bool] = field(default_factory=list)
    categories: dict[int, CategorySet] = field(default_factory=dict)

    def append(self, node: Mapping[str, Any]) -> int:
        index = len(self.left)
        is_leaf = "leaf_value" in node
        is_numeric = not is_leaf and self._is_numeric(node, index)
        missing = node["missing_type"] if is_numeric else "NaN"
        if missing not in MISSING_TYPES:
            raise MalformedModelError(f"missing_type {missing!r}")
        self.left.append(-1)
        self.right.append(-1)
        self.column.append(-1 if is_leaf else int(node["split_feature"]))
        self.threshold.append(_threshold(node) if is_numeric else 0.0)
        self.leaf_values.append(float(node["leaf_value"]) if is_leaf else 0.0)
        self.missing_left.append(is_numeric and bool(node["default_left"]))
        self.nan_is_zero.append(missing == "None")
        self.zero_is_missing.append(missing == "Zero")
        return index

    def _is_numeric(self, node: Mapping[str, Any], index: int) -> bool:
        decision = node["decision_type"]
        if decision == "==":
            codes = [int(code) for code in str(node["threshold"]).split("||")]
            self.categories[index] = (np.array(codes, dtype=np.int64), True)
        elif decision != "<=":
            raise MalformedModelError(f"decision_type {decision!r}")
        return bool(decision == "<=")


def _threshold(node: Mapping[str, Any]) -> float:
    # Before its trees see a number, LightGBM makes it 0 if it is no larger than this.
    threshold = float(node["threshold"])
    if abs(threshold) > ZERO_THRESHOLD:
        return threshold
    return ZERO_THRESHOLD if threshold >= 0 else BELOW_ZERO


def _nodes(root: Mapping[str, Any]) -> TreeNodes:
    # A stack, because a leaf-wise tree can be deeper than Python's recursion limit.
    columns = _Columns()
    pending = [(columns.append(root), root)]
    while pending:
        index, node = pending.pop()
        if "leaf_value" in node:
            if "leaf_coeff" in node:
                raise UnsupportedModelError("linear_tree: leaves hold linear models, not values")
            continue
        for side, name in ((columns.left, "left_child"), (columns.right, "right_child")):
            child = node[name]
            side[index] = columns.append(child)
            pending.append((side[index], child))
    return TreeNodes(**{name: getattr(columns, name) for name in _Columns.__slots__})
