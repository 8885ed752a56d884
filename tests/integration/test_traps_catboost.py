"""Every rule of CatBoost's format: our values are brute force through the library itself, and
would not be if the rule were read otherwise."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import misreadings as misread
import numpy as np
import pytest
import trap_tables as table
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor
from misreadings import Misreading
from stored_models import (
    Stored,
    assert_exact,
    assert_rule_matters,
    assert_trees_are_exact,
    stored,
)

from explainers.base import FloatArray
from explainers.tree.catboost import parse_catboost
from explainers.tree.ensemble import TreeEnsemble

COMMON = {
    "iterations": 10,
    "depth": 4,
    "random_seed": 0,
    "thread_count": 1,
    "verbose": False,
    "allow_writing_files": False,
}
TWO = np.column_stack([table.TARGET, -3 * table.POSITIVE])

Maker = Callable[[], Stored]


def regression(
    y: Any = table.TARGET, rows: FloatArray = table.GAPPY, *, seen: Any = None, **options: Any
) -> Stored:
    """`seen`: the rows of training, where predictions are asked for others."""
    model = CatBoostRegressor(**COMMON | options).fit(rows if seen is None else seen, y)
    return of_library(model, rows)


def classifier(y: Any = table.IS_HIGH, **options: Any) -> Stored:
    return of_library(CatBoostClassifier(**COMMON | options).fit(table.GAPPY, y), table.GAPPY)


def of_library(model: CatBoost, rows: FloatArray) -> Stored:
    return stored(model, rows, lambda X: raw_values(model, X))


def raw_values(model: CatBoost, X: FloatArray) -> FloatArray:
    values = CatBoost.predict(model, X, prediction_type="RawFormulaVal", thread_count=1)
    return np.asarray(values, dtype=np.float64).reshape(len(X), -1)


def scaled() -> Stored:
    model = CatBoostRegressor(**COMMON).fit(table.GAPPY, table.TARGET)
    model.set_scale_and_bias(0.3, 7.0)
    return of_library(model, table.GAPPY)


def shrunk() -> Stored:
    model = CatBoostRegressor(**COMMON).fit(table.GAPPY, table.TARGET + 5)
    model.shrink(ntree_start=2, ntree_end=7)
    return of_library(model, table.GAPPY)


def continued() -> Stored:
    first = CatBoostRegressor(**COMMON).fit(table.GAPPY, table.TARGET + 5)
    options = COMMON | {"random_seed": 3}
    second = CatBoostRegressor(**options).fit(table.GAPPY, table.TARGET + 5, init_model=first)
    return of_library(second, table.GAPPY)


def stopped() -> Stored:
    model = CatBoostRegressor(**COMMON | {"iterations": 100, "learning_rate": 1.0})
    checked = (table.GAPPY, table.TARGET + table.NOISE)
    model.fit(table.GAPPY, table.TARGET, eval_set=checked, early_stopping_rounds=2)
    assert model.tree_count_ < 100
    return of_library(model, table.GAPPY)


def ranker() -> Stored:
    model = CatBoostRanker(loss_function="YetiRank", **COMMON)
    groups = np.repeat(np.arange(10), table.N // 10)
    return of_library(model.fit(table.GAPPY, table.IS_HIGH, group_id=groups), table.GAPPY)


def splits_in_reverse(trees: TreeEnsemble) -> TreeEnsemble:
    """As if a leaf's index had its first split in the highest bit."""
    values = trees.leaf_values.copy()
    for first, end in pairwise([*trees.roots.tolist(), len(trees.left)]):
        leaves = first + np.flatnonzero(trees.left[first:end] < 0)
        depth = len(leaves).bit_length() - 1
        bits = np.arange(len(leaves))[:, None] >> np.arange(depth) & 1
        values[leaves] = trees.leaf_values[leaves[bits[:, ::-1] @ (1 << np.arange(depth))]]
    return replace(trees, leaf_values=values)


def unscaled(trees: TreeEnsemble) -> TreeEnsemble:
    return replace(trees, leaf_values=trees.leaf_values / 0.3)


def classes_first(trees: TreeEnsemble) -> TreeEnsemble:
    """As if all leaves of a class came before those of the next."""
    values = trees.leaf_values.copy()
    for first, end in pairwise([*trees.roots.tolist(), len(trees.left)]):
        leaves = first + np.flatnonzero(trees.left[first:end] < 0)
        values[leaves] = values[leaves].ravel().reshape(values.shape[1], -1).T
    return replace(trees, leaf_values=values)


RULES: dict[str, tuple[Maker, Misreading]] = {
    "beyond the border is the right": (regression, misread.swapped_sides),
    "on the border is not beyond it": (regression, misread.strict_float32_comparison),
    "borders and numbers are float32": (regression, misread.other_cast),
    "bit i of a leaf's index answers split i": (regression, splits_in_reverse),
    "nan_value_treatment AsFalse: missing goes left": (
        lambda: regression(nan_mode="Min"), misread.other_missing_direction,
    ),
    "nan_value_treatment AsTrue: missing goes right": (
        lambda: regression(nan_mode="Max"), misread.other_missing_direction,
    ),
    "nan_value_treatment AsIs: missing at prediction only goes left": (
        lambda: regression(seen=table.FILLED), misread.other_missing_direction,
    ),
    "the bias": (lambda: regression(table.TARGET + 5), misread.no_base),
    "the scale": (scaled, unscaled),
    "the bias that was set": (scaled, misread.no_base),
    "leaf_values[leaf * C + c]": (lambda: classifier(table.THREE), classes_first),
    "Depthwise trees are nested": (
        lambda: regression(grow_policy="Depthwise"), misread.swapped_sides,
    ),
    "Lossguide trees are nested": (
        lambda: regression(grow_policy="Lossguide", max_leaves=9), misread.swapped_sides,
    ),
    "missing in Lossguide trees": (
        lambda: regression(grow_policy="Lossguide", nan_mode="Max"),
        misread.other_missing_direction,
    ),
    "Depthwise leaves hold all classes": (
        lambda: classifier(table.THREE, grow_policy="Depthwise"),
        misread.outputs_in_another_order,
    ),
    "Lossguide leaves hold all classes": (
        lambda: classifier(table.THREE, grow_policy="Lossguide"),
        misread.outputs_in_another_order,
    ),
}  # fmt: skip

ORDINARY: dict[str, Maker] = {
    "Logloss": classifier,
    "Focal": lambda: classifier(loss_function="Focal:focal_alpha=0.3;focal_gamma=2"),
    "CrossEntropy": lambda: of_library(
        CatBoost(COMMON | {"loss_function": "CrossEntropy"}).fit(table.GAPPY, table.SHARE),
        table.GAPPY,
    ),
    "Poisson": lambda: regression(table.POSITIVE, loss_function="Poisson"),
    "Tweedie": lambda: regression(table.POSITIVE, loss_function="Tweedie:variance_power=1.5"),
    "Quantile": lambda: regression(loss_function="Quantile:alpha=0.2"),
    "MAE": lambda: regression(loss_function="MAE"),
    "Huber": lambda: regression(loss_function="Huber:delta=1"),
    "Expectile": lambda: regression(loss_function="Expectile:alpha=0.2"),
    "MAPE": lambda: regression(table.POSITIVE + 1, loss_function="MAPE"),
    "LogCosh": lambda: regression(loss_function="LogCosh"),
    "YetiRank": ranker,
    "auto_class_weights": lambda: classifier(auto_class_weights="Balanced"),
    "monotone_constraints": lambda: regression(monotone_constraints=[1, 0, -1, 0]),
    "boost_from_average off": lambda: regression(boost_from_average=False),
    "Ordered": lambda: regression(boosting_type="Ordered"),
    "ignored_features": lambda: regression(ignored_features=[1]),
    "nan_mode Forbidden": lambda: regression(rows=table.FILLED, nan_mode="Forbidden"),
    "depth 10": lambda: regression(depth=10),
    "stopped early": stopped,
    "some of the trees": shrunk,
    "trees after trees": continued,
}


@pytest.mark.parametrize(("make", "misreading"), RULES.values(), ids=RULES)
def test_rule_of_the_trees_is_kept(make: Maker, misreading: Misreading) -> None:
    model = make()
    assert_exact(model)
    assert_rule_matters(model, misreading(model.trees))


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_setting_that_needs_no_rule_of_its_own_is_exact(make: Maker) -> None:
    assert_exact(make())


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("MultiClassOneVsAll", table.THREE),
        ("MultiRMSE", TWO),
        ("RMSEWithUncertainty", table.TARGET),
        ("MultiQuantile:alpha=0.2,0.7", table.TARGET),
        ("MultiLogloss", np.column_stack([table.TARGET > 0, table.THREE > 0]).astype(int)),
    ],
)
def test_loss_of_several_outputs_is_read_right_though_not_served(
    tmp_path: Path, loss: str, y: Any
) -> None:
    model = CatBoost(COMMON | {"loss_function": loss}).fit(table.GAPPY, y)
    model.save_model(str(tmp_path / "model.json"), format="json")
    trees = parse_catboost(json.loads((tmp_path / "model.json").read_bytes()))
    assert trees.n_outputs > 1
    assert_trees_are_exact(trees, table.GAPPY, lambda X: raw_values(model, X))
