"""Reads the plain facts out of LightGBM's model text, refusing what would crash the library."""

import re
from dataclasses import dataclass

import numpy as np

from explainers.base import FloatArray, MalformedModelError
from explainers.tree.build import EnsembleBuilder, TreeNodes
from service.models.errors import ModelLoadError

SPLIT_ARRAYS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
SPLIT_STATISTICS = ("split_gain", "internal_value", "internal_weight", "internal_count")
LEAF_STATISTICS = ("leaf_weight", "leaf_count")
PARAMETER = re.compile(r"\[\w+: .*\]")
CATEGORY_FLAG = 1
"""The bit of decision_type that marks a split by category set."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """The header of a model whose trees are all there and well formed.

    objective is empty for a custom one. codes_seen[i] holds the training codes of a category
    column without LightGBM's -1 for missing, None for numeric ones and those that were constant.
    """

    objective: tuple[str, ...]
    names: tuple[str, ...]
    codes_seen: tuple[tuple[int, ...] | None, ...]
    n_outputs: int
    n_trees: int
    averaged: bool


def read_model_text(data: bytes) -> ModelText:
    """Check the whole text and return its header; ModelLoadError names what is broken.

    LightGBM itself drops the trees missing from a truncated text without a word, or crashes.
    """
    if b"\0" in data or not data.startswith(b"tree\n"):
        raise ModelLoadError("not a LightGBM model text: it does not begin with 'tree'")
    head, separator, rest = data.partition(b"\nTree=0\n")
    if not separator:
        raise ModelLoadError("the LightGBM model has no trees")
    try:
        header = _fields(head)
        facts = _header(header)
        sizes = [int(size) for size in header["tree_sizes"].split()]
        tail = _check_trees(separator[1:] + rest, sizes, n_columns=len(facts.names))
        _check_parameters(tail.decode("utf-8").split("\n"))
    except (KeyError, IndexError, ValueError, OverflowError, MalformedModelError) as error:
        raise ModelLoadError(f"broken LightGBM model text: {error}") from error
    return facts


def _fields(block: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.decode("utf-8").split("\n"))
    return {name: value for name, _, value in pairs if name}


def _header(header: dict[str, str]) -> ModelText:
    names = tuple(header["feature_names"].split(" "))
    infos = header["feature_infos"].split(" ")
    n_outputs = int(header["num_tree_per_iteration"])
    n_trees = len(header["tree_sizes"].split())
    if not len(names) == len(infos) == int(header["max_feature_idx"]) + 1:
        raise ValueError("feature_names, feature_infos and max_feature_idx disagree")
    if n_outputs < 1 or n_outputs != int(header["num_class"]) or n_trees % n_outputs:
        raise ValueError(f"{n_trees} trees, {n_outputs} in each iteration")
    return ModelText(
        objective=tuple(header.get("objective", "").split()),
        names=names,
        codes_seen=tuple(_codes(info) for info in infos),
        n_outputs=n_outputs,
        n_trees=n_trees,
        averaged="average_output" in header,
    )


def _codes(info: str) -> tuple[int, ...] | None:
    if info == "none" or info.startswith("["):
        return None
    codes = (int(code) for code in info.split(":"))
    return tuple(code for code in codes if code >= 0)


def _check_trees(trees: bytes, sizes: list[int], *, n_columns: int) -> bytes:
    builder = EnsembleBuilder(n_columns, base=0.0)
    start = 0
    for index, size in enumerate(sizes):
        block = trees[start : start + size]
        if size <= 0 or not block.startswith(b"Tree=%d\n" % index):
            raise ValueError(f"tree {index} is not where tree_sizes says")
        if any(line and b"=" not in line for line in block.split(b"\n")):
            raise ValueError(f"tree {index} has a line that is no field")
        builder.add_tree(_nodes(_fields(block)))
        start += size
    if not trees[start:].startswith(b"end of trees"):
        raise ValueError(f"no end after {len(sizes)} trees")
    builder.build()
    return trees[start:]


def _check_parameters(lines: list[str]) -> None:
    parameters = lines[lines.index("parameters:") + 1 : lines.index("end of parameters")]
    for line in parameters:
        if line and not PARAMETER.fullmatch(line):
            raise ValueError(f"parameter line {line!r}")


def _nodes(fields: dict[str, str]) -> TreeNodes:
    n_leaves, n_categories = int(fields["num_leaves"]), int(fields["num_cat"])
    splits = {name: _numbers(fields, name, n_leaves - 1) for name in SPLIT_ARRAYS}
    leaf_values = _numbers(fields, "leaf_value", n_leaves)
    _check_statistics(fields, n_leaves)
    if np.any(np.isnan(splits["threshold"])):
        raise ValueError("a threshold is no number")
    _check_categories(fields, splits, n_categories)
    # A leaf k is written ~k; here leaves follow the splits.
    left, right = (
        np.concatenate([np.where(side >= 0, side, n_leaves - 1 + ~side), np.full(n_leaves, -1)])
        for side in (splits[name].astype(np.int64) for name in ("left_child", "right_child"))
    )
    padding = np.zeros(n_leaves)
    return TreeNodes(
        left=left,
        right=right,
        column=np.concatenate([splits["split_feature"], padding]),
        threshold=np.concatenate([splits["threshold"], padding]),
        leaf_values=np.concatenate([np.zeros(n_leaves - 1), leaf_values]),
    )


def _check_statistics(fields: dict[str, str], n_leaves: int) -> None:
    # Older versions leave some out, and a tree that is one leaf has none.
    for names, count in ((SPLIT_STATISTICS, n_leaves - 1), (LEAF_STATISTICS, n_leaves)):
        for name in names:
            if name in fields and n_leaves > 1:
                _numbers(fields, name, count)


def _check_categories(
    fields: dict[str, str], splits: dict[str, FloatArray], n_categories: int
) -> None:
    by_set = (splits["decision_type"].astype(np.int64) & CATEGORY_FLAG) > 0
    sets = splits["threshold"][by_set]
    if np.any(sets < 0) or np.any(sets >= n_categories):
        raise ValueError("a split names a category set that is not there")
    if n_categories:
        ends = _numbers(fields, "cat_boundaries", n_categories + 1)
        _numbers(fields, "cat_threshold", int(ends[-1]))
        if ends[0] != 0 or np.any(np.diff(ends) < 0):
            raise ValueError("cat_boundaries do not ascend")


def _numbers(fields: dict[str, str], name: str, count: int) -> FloatArray:
    if count == 0:
        return np.zeros(0)
    numbers = np.array(fields[name].split(), dtype=np.float64)
    if len(numbers) != count:
        raise ValueError(f"{name} has {len(numbers)} entries instead of {count}")
    return numbers
