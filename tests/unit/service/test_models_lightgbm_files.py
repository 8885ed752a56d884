import re

import lightgbm
import numpy as np
import pandas as pd
import pytest

from explainers.base import MalformedModelError, UnsupportedModelError
from service.models.errors import ModelLoadError
from service.models.lightgbm import load_lightgbm


@pytest.fixture(scope="module")
def text() -> bytes:
    """A model with category sets in its first tree."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, 500)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=500),
            "colour": pd.Categorical.from_codes(codes, list("bcade")),
            "rooms": pd.Categorical(rng.choice([10, 20, 30], 500)),
        }
    )
    parameters = {
        "objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1,
        "min_data_in_leaf": 5, "cat_smooth": 1, "min_data_per_group": 5,
    }  # fmt: skip
    labels = np.isin(codes, [0, 3]) | (frame["size"] > 1)
    booster = lightgbm.train(parameters, lightgbm.Dataset(frame, labels), 10)
    return booster.model_to_string().encode()


def test_the_whole_file_is_read(text: bytes) -> None:
    assert load_lightgbm(text).trees_used == 10


def test_several_outputs_without_an_objective_are_refused() -> None:
    rng = np.random.default_rng(0)
    parameters = {"objective": "multiclass", "num_class": 3, "num_threads": 1, "verbose": -1}
    data = lightgbm.Dataset(rng.normal(size=(200, 2)), rng.integers(0, 3, 200))
    text = lightgbm.train(parameters, data, 2).model_to_string().encode()
    with pytest.raises(UnsupportedModelError, match="custom objective"):
        load_lightgbm(re.sub(rb"\nobjective=.*\n", b"\n", text, count=1))


def test_truncated_files_are_refused(text: bytes) -> None:
    # The library drops the missing trees without a word, or crashes the process.
    for end in range(0, text.index(b"end of parameters"), 97):
        with pytest.raises(ModelLoadError):
            load_lightgbm(text[:end])


@pytest.mark.parametrize(
    "data",
    [b"", b"tree\n", b"tree\n\nTree=0\n", b"<html>", b"\x80\x04pickle", b"tree\n\0", b"\xff"],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ModelLoadError):
        load_lightgbm(data)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (rb"left_child=-?\d+", b"left_child=0"),
        (rb"left_child=-?\d+", b"left_child=9999"),
        (rb"left_child=-?\d+", b"left_child=-99"),
        (rb"split_feature=\d+", b"split_feature=77"),
        (rb"num_leaves=\d+", b"num_leaves=99999999"),
        (rb"num_leaves=\d+", b"num_leaves=-50000"),
        (rb"leaf_value=\S+", b"leaf_value=1e999"),
        (rb"split_gain=", b"split_gain2"),
        (rb"threshold=\S+", b"threshold=nan"),
        (rb"cat_threshold=\d+ ?", b"cat_threshold="),
        (rb"cat_boundaries=0 1", b"cat_boundaries=1 0"),
        (rb"num_cat=[1-9]", b"num_cat=0"),
        (rb"max_feature_idx=\d+", b"max_feature_idx=1"),
        (rb"num_class=1", b"num_class=2"),
        (rb"tree_sizes=\d+", b"tree_sizes=1"),
        (rb"tree_sizes=\d+", b"tree_sizes=99999999"),
        (rb"\[max_depth: -1\]", b"[max_depth; -1]"),
        (rb"end of trees", b"end of tries"),
        (rb"label_index=0\n", b""),
        (rb"sigmoid:1", b"sigmoid:x"),
    ],
)
def test_files_that_would_crash_the_library_are_refused(
    text: bytes, pattern: bytes, replacement: bytes
) -> None:
    head, _, trees = text.partition(b"\nTree=0\n")
    broken = re.sub(pattern, replacement, text, count=1)
    assert broken != text
    if b"\nTree=0\n" + trees not in broken and head in broken:
        # With the size put right, only the fault itself is left to be noticed.
        grown = len(broken) - len(text)
        first = int(re.search(rb"tree_sizes=(\d+)", head)[1])
        broken = broken.replace(b"tree_sizes=%d" % first, b"tree_sizes=%d" % (first + grown))
    with pytest.raises((ModelLoadError, UnsupportedModelError)):
        load_lightgbm(broken)


def chain(depth: int) -> bytes:
    """A model of one tree whose every split sends x <= k to a leaf."""
    rng = np.random.default_rng(0)
    parameters = {"objective": "regression", "num_threads": 1, "verbose": -1}
    data = lightgbm.Dataset(rng.normal(size=(100, 1)), rng.normal(size=100))
    text = lightgbm.train(parameters, data, 1).model_to_string().encode()
    start, end = text.index(b"Tree=0\n"), text.index(b"end of trees")
    deeper = [*range(1, depth), ~depth]
    arrays = {
        "num_leaves": [depth + 1],
        "num_cat": [0],
        "split_feature": [0] * depth,
        "split_gain": [1] * depth,
        "threshold": range(depth),
        "decision_type": [2] * depth,
        "left_child": [~leaf for leaf in range(depth)],
        "right_child": deeper,
        "leaf_value": range(depth + 1),
        "leaf_weight": [1] * (depth + 1),
        "leaf_count": [1] * (depth + 1),
        "internal_value": [0] * depth,
        "internal_weight": [1] * depth,
        "internal_count": [1] * depth,
        "is_linear": [0],
        "shrinkage": [1],
    }
    lines = [f"{name}={' '.join(map(str, values))}" for name, values in arrays.items()]
    tree = ("Tree=0\n" + "\n".join(lines) + "\n\n\n").encode()
    head = re.sub(rb"tree_sizes=\d+", b"tree_sizes=%d" % len(tree), text[:start])
    return head + tree + text[end:]


def test_trees_too_deep_for_the_dump_have_no_form() -> None:
    model = load_lightgbm(chain(1_500))
    np.testing.assert_array_equal(model.predict(np.array([[6.5], [9e9]])).scores, [[7.0], [1500.0]])
    with pytest.raises(UnsupportedModelError, match="too deep"):
        model.form()
    assert load_lightgbm(chain(50)).form().ensemble.n_trees == 1


def test_numbers_the_dump_cannot_write_are_refused() -> None:
    data = chain(3)
    tree = data.index(b"Tree=0\n"), data.index(b"end of trees")
    infinite = data.replace(b"leaf_weight=1", b"leaf_weight=inf", 1)
    infinite = infinite.replace(
        b"tree_sizes=%d" % (tree[1] - tree[0]), b"tree_sizes=%d" % (tree[1] - tree[0] + 2)
    )
    with pytest.raises(MalformedModelError, match="no JSON"):
        load_lightgbm(infinite).form()
