"""Reads CatBoost's JSON export into a TreeEnsemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explainers.base import FloatArray, MalformedModelError, UnsupportedModelError
from explainers.tree.build import EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble

NAN_IS_LARGEST = "AsTrue"
"""The treatment under which NaN exceeds every border; under all others it exceeds none."""

MOST_LEVELS = 16

Split = tuple[int, float, bool]
"""Column, border, and whether missing goes left."""


def parse_catboost(document: Mapping[str, Any]) -> TreeEnsemble:
    """All trees of `save_model(..., format="json")`: symmetric, depthwise or lossguide.

    The outputs are raw formula values, with the model's scale in the leaves and its bias in the
    base: a few last bits off the library, which adds the bias at the end. Derived columns are the
    model's columns in order, category columns too. Raises UnsupportedModelError for splits by
    category, text or embedding, MalformedModelError for anything that is no such document.
    """
    try:
        return _parse(document)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise MalformedModelError(f"not a CatBoost model document: {error!r}") from error


def _parse(document: Mapping[str, Any]) -> TreeEnsemble:
    scale, bias = document["scale_and_bias"]
    columns = _Columns(document["features_info"])
    builder = EnsembleBuilder(columns.count, base=bias)
    n_outputs = len(np.atleast_1d(bias))
    is_symmetric = "oblivious_trees" in document
    for tree in document["oblivious_trees" if is_symmetric else "trees"]:
        flat = _symmetric(tree, columns, n_outputs) if is_symmetric else _nested(tree, columns)
        builder.add_tree(_nodes(flat, scale=float(scale)))
    return builder.build(float32_inputs=True)


class _Columns:
    """Where a split's column lies in a row, and what NaN is there."""

    def __init__(self, features: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._numeric = {int(f["feature_index"]): f for f in features["float_features"]}
        # Category statistics are listed there as well, but are no columns.
        listed = (f for kind in features.values() for f in kind)
        every = [int(f["flat_feature_index"]) for f in listed if "flat_feature_index" in f]
        self.count = max(every) + 1

    def split(self, split: Mapping[str, Any]) -> Split:
        kind = split["split_type"]
        if kind != "FloatFeature":
            raise UnsupportedModelError(f"CatBoost splits of the kind {kind} have no exact form")
        feature = self._numeric[int(split["float_feature_index"])]
        missing_left = feature["nan_value_treatment"] != NAN_IS_LARGEST
        # The export rounds what the model compares in float32.
        return int(feature["flat_feature_index"]), float(np.float32(split["border"])), missing_left


@dataclass(slots=True, eq=False)
class _Flat:
    """One list per field of a tree being flattened."""

    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def append(self, split: Split | None, value: Any) -> int:  # noqa: ANN401  # number or list
        self.left.append(-1)
        self.right.append(-1)
        self.splits.append((-1, 0.0, False) if split is None else split)
        self.values.append(value)
        return len(self.left) - 1


def _symmetric(tree: Mapping[str, Any], columns: _Columns, n_outputs: int) -> _Flat:
    splits = [columns.split(split) for split in tree["splits"] or ()]
    n_inner = (1 << len(splits)) - 1
    leaves = np.array(tree["leaf_values"], dtype=np.float64).reshape(n_inner + 1, n_outputs)
    flat = _Flat()
    # Bit i of a leaf's index answers split i, so the last split stands at the root and leaves lie
    # in order.
    for node in range(n_inner):
        flat.append(splits[len(splits) - (node + 1).bit_length()], [0.0] * n_outputs)
        flat.left[node], flat.right[node] = 2 * node + 1, 2 * node + 2
    for leaf in leaves:
        flat.append(None, leaf)
    return flat


def _nested(root: Mapping[str, Any], columns: _Columns) -> _Flat:
    flat = _Flat()
    pending = [(root, -1, flat.left)]
    while pending:
        node, parent, side = pending.pop()
        is_leaf = "value" in node
        own = flat.append(None if is_leaf else columns.split(node["split"]), node.get("value"))
        if parent >= 0:
            side[parent] = own
        if not is_leaf:
            pending += [(node["right"], own, flat.right), (node["left"], own, flat.left)]
    width = len(np.atleast_1d(next(value for value in flat.values if value is not None)))
    flat.values = [
        [0.0] * width if value is None else np.atleast_1d(value) for value in flat.values
    ]
    return flat


def _nodes(flat: _Flat, *, scale: float) -> TreeNodes:
    column, border, missing_left = (np.array(part) for part in zip(*flat.splits, strict=True))
    values: FloatArray = np.array(flat.values, dtype=np.float64)
    return TreeNodes(
        left=flat.left,
        right=flat.right,
        column=column,
        threshold=border,
        leaf_values=values * scale,
        missing_left=missing_left,
    )
