import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plain_trees import traverse
from random_ensembles import random_rows, random_trees

from explainers.base import (
    Background,
    Derivation,
    FloatArray,
    IdentityDerivation,
    Naming,
    UnsupportedModelError,
)
from explainers.exact import interventional_values
from explainers.tree import kernel
from explainers.tree.build import EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import NODE_ARRAYS, TreeEnsemble
from explainers.tree.explainer import TABLE_BYTES, TreeEngine, TreeExplainer
from explainers.tree.lightgbm import parse_lightgbm
from explainers.tree.sklearn import parse_sklearn
from explainers.tree.xgboost import parse_xgboost

CLOSE = 1e-6
"""Largest gap between the engines, of the largest value."""

KINDS = {
    "shallow": {"depth": 3, "n_trees": 12},
    "one column": {"n_columns": 1, "depth": 9},
    "few columns, deep": {"n_columns": 3, "depth": 10, "n_trees": 2},
    "more players than a piece has": {"n_columns": 40, "depth": 8},
    "ten players a path": {"n_columns": 40, "depth": 10, "n_trees": 2},
    "float32": {"float32_inputs": True, "float32_sums": True, "depth": 6},
    "an output a tree": {"n_outputs": 3, "depth": 7},
    "leaf vectors": {"n_outputs": 3, "vector_leaves": True, "divisor": 4.0, "depth": 6},
    "leaf vectors, ten players": {
        "n_outputs": 2, "vector_leaves": True, "n_columns": 40, "depth": 10, "n_trees": 1,
    },
    "leaves alone": {"depth": 0},
}  # fmt: skip


def explainer_of(
    ensemble: TreeEnsemble,
    background: FloatArray,
    engine: TreeEngine = "auto",
    *,
    table_bytes: int = TABLE_BYTES,
    derivation: Derivation | None = None,
) -> TreeExplainer:
    features = tuple(f"f{i}" for i in range(background.shape[1]))
    outputs = tuple(f"o{c}" for c in range(ensemble.n_outputs))
    return TreeExplainer(
        ensemble,
        Background.of(background),
        derivation or IdentityDerivation.over(ensemble.n_columns),
        naming=Naming(features, outputs, "raw"),
        tolerance=1e-9,
        engine=engine,
        table_bytes=table_bytes,
    )


def gap_to_the_walk(explainer: TreeExplainer, walk: TreeExplainer, X: FloatArray) -> float:
    values, expected = explainer.explain(X).values, walk.explain(X).values
    largest = float(np.abs(expected).max())
    return float(np.abs(values - expected).max()) / (largest or 1.0)


def gap_of(ensemble: TreeEnsemble, background: FloatArray, X: FloatArray) -> float:
    engines = (explainer_of(ensemble, background, engine) for engine in ("table", "walk"))
    return gap_to_the_walk(*engines, X)


def comb(columns: list[int], seed: int = 0, *, sides: list[int] | None = None) -> TreeEnsemble:
    """One path through all columns in turn, a leaf hanging off every step."""
    length = len(columns)
    inner = np.arange(length)
    onward, off = np.append(inner[1:], 2 * length), length + inner
    left = np.asarray(sides if sides is not None else np.zeros(length)) != 0
    rng = np.random.default_rng(seed)
    builder = EnsembleBuilder(max(columns) + 1, base=[0.0])
    leaf = np.full(length + 1, -1)
    builder.add_tree(
        TreeNodes(
            left=np.append(np.where(left, onward, off), leaf),
            right=np.append(np.where(left, off, onward), leaf),
            column=np.append(columns, leaf),
            threshold=np.full(2 * length + 1, 0.5),
            leaf_values=rng.normal(size=2 * length + 1),
        )
    )
    return builder.build()


def joined(*ensembles: TreeEnsemble) -> TreeEnsemble:
    """One ensemble of trees without categories."""
    shifts = np.cumsum([0, *(len(ensemble.left) for ensemble in ensembles)])[:-1]
    parts: dict[str, list[np.ndarray]] = {}
    for shift, ensemble in zip(shifts, ensembles, strict=True):
        for name in ("left", "right", "roots"):
            links = getattr(ensemble, name)
            parts.setdefault(name, []).append(np.where(links < 0, -1, links + shift))
        for name in (
            "column", "threshold", "missing_left", "nan_is_zero", "zero_is_missing", "is_category",
            "member_left", "category_start", "category_words", "leaf_values", "tree_output",
        ):  # fmt: skip
            parts.setdefault(name, []).append(getattr(ensemble, name))
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    arrays = {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in arrays.items()}
    n_columns = max(ensemble.n_columns for ensemble in ensembles)
    return replace(ensembles[0], **arrays, n_columns=n_columns)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_tables_give_the_values_of_the_walk(seed: int, options: dict[str, Any]) -> None:
    ensemble = random_trees(seed, **options)
    background = random_rows(seed + 1, (60, ensemble.n_columns))
    X = random_rows(seed + 2, (30, ensemble.n_columns))
    explainer = explainer_of(ensemble, background, "table")
    assert gap_to_the_walk(explainer, explainer_of(ensemble, background, "walk"), X) < CLOSE


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200, 1000])
def test_backgrounds_of_any_size_take_the_same_tables(size: int) -> None:
    ensemble = random_trees(3, n_columns=20, depth=8)
    background, X = random_rows(size, (size, 20)), random_rows(0, (20, 20))
    explainer = explainer_of(ensemble, background, "table")
    assert explainer.table_bytes == explainer_of(ensemble, background[:1], "table").table_bytes
    assert gap_to_the_walk(explainer, explainer_of(ensemble, background, "walk"), X) < CLOSE


@pytest.mark.parametrize("length", range(1, 14))
def test_paths_of_up_to_thirteen_players_have_tables(length: int) -> None:
    rng = np.random.default_rng(length)
    ensemble = comb(list(range(length)), length, sides=rng.integers(0, 2, length).tolist())
    # Rows that mostly stay on the long path.
    background, X = (rng.random((n, length)) < 0.5 for n in (200, 50))
    assert gap_of(ensemble, background.astype(float), X.astype(float)) < CLOSE


def test_a_path_of_fourteen_players_is_walked() -> None:
    ensemble, background = comb(list(range(14))), np.eye(14)
    assert explainer_of(ensemble, background).engine == "walk"
    with pytest.raises(UnsupportedModelError, match="do not fit"):
        explainer_of(ensemble, background, "table")


def test_what_has_no_table_is_walked_and_the_rest_looked_up() -> None:
    small = [comb([0, 1, 2, 3], seed) for seed in range(3)]
    ensemble = joined(*small, comb(list(range(14)), 9))
    background, X = random_rows(1, (40, 14)), random_rows(2, (30, 14))
    explainer = explainer_of(ensemble, background)
    assert (explainer.engine, explainer.tolerance) == ("walk", 1e-5)
    rest = explainer_of(joined(*small), background[:, :4], "table")
    assert explainer.table_bytes == rest.table_bytes
    assert gap_to_the_walk(explainer, explainer_of(ensemble, background, "walk"), X) < CLOSE


def test_few_tables_are_not_worth_their_memory() -> None:
    long = [comb(list(range(14)), seed) for seed in range(2)]
    explainer = explainer_of(joined(comb([0, 1]), *long), np.eye(14))
    assert (explainer.engine, explainer.table_bytes, explainer.tolerance) == ("walk", 0, 1e-9)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 0.9, 0.999, 1.0])
def test_tables_keep_within_their_memory(share: float) -> None:
    ensemble = random_trees(5, n_trees=30, n_columns=30, depth=7)
    background, X = random_rows(1, (20, 30)), random_rows(2, (20, 30))
    walk = explainer_of(ensemble, background, "walk")
    full = explainer_of(ensemble, background, "table").table_bytes
    limit = int(share * full)
    limited = explainer_of(ensemble, background, table_bytes=limit)
    assert limited.table_bytes <= limit
    assert limited.engine == ("table" if share == 1 else "walk")
    assert gap_to_the_walk(limited, walk, X) < CLOSE
    if share < 1:
        with pytest.raises(UnsupportedModelError, match=f"{limit} bytes"):
            explainer_of(ensemble, background, "table", table_bytes=limit)


@pytest.mark.parametrize("seed", range(3))
def test_conditions_of_a_player_on_a_long_path_are_joined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trees = comb(rng.integers(0, 5, 20).tolist(), seed, sides=rng.integers(0, 2, 20).tolist())
    thresholds = rng.choice([-1.0, 0.0, 0.3, 0.5, 1.0], size=len(trees.left))
    ensemble = replace(trees, threshold=thresholds)
    explainer = explainer_of(ensemble, random_rows(1, (50, 5)), "table")
    walk = explainer_of(ensemble, random_rows(1, (50, 5)), "walk")
    assert explainer._compiled is not None
    assert len(explainer._compiled.tables.bit_sources) > 0
    assert gap_to_the_walk(explainer, walk, random_rows(2, (60, 5))) < CLOSE


@pytest.mark.parametrize("columns", [[0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]])
def test_a_leaf_no_row_can_reach_gives_nothing(columns: list[int]) -> None:
    sides = [1] * (len(columns) - 1) + [0] if columns[-1] == 0 else [1, 0, 1]
    ensemble = comb(columns, sides=sides)
    rows = (np.random.default_rng(0).random((40, ensemble.n_columns)) < 0.3).astype(float)
    values = explainer_of(ensemble, rows[:20], "table").explain(rows[20:24]).values
    for x, found in zip(rows[20:24], values, strict=True):
        expected = interventional_values(lambda Z: traverse(ensemble, Z), x, rows[:20])
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def test_equal_decisions_share_a_bit_and_a_table() -> None:
    """A tree of 64 leaves that takes the same decision everywhere on a level."""
    inner = np.arange(63)
    builder = EnsembleBuilder(6, base=[0.0])
    builder.add_tree(
        TreeNodes(
            left=np.append(2 * inner + 1, np.full(64, -1)),
            right=np.append(2 * inner + 2, np.full(64, -1)),
            column=np.append(np.log2(inner + 1).astype(int), np.full(64, -1)),
            threshold=np.full(127, 0.5),
            leaf_values=np.random.default_rng(0).normal(size=127),
        )
    )
    rows = (np.random.default_rng(1).random((40, 6)) < 0.5).astype(float)
    explainer = explainer_of(builder.build(), rows[:20], "table")
    assert explainer.table_bytes == 2**6 * 8 * 4
    assert gap_of(builder.build(), rows[:20], rows[20:]) < CLOSE


def stumps(count: int) -> TreeEnsemble:
    """So many trees of one split, no two of which decide alike."""
    stump, first = comb([0]), 3 * np.arange(count, dtype=np.int32)
    tiled = {name: np.tile(getattr(stump, name), count) for name in NODE_ARRAYS}
    none = np.full_like(first, -1)
    tiled["left"] = np.column_stack([first + 1, none, none]).ravel()
    tiled["right"] = np.column_stack([first + 2, none, none]).ravel()
    tiled["threshold"] = np.repeat(np.linspace(0, 1, count), 3)
    return replace(
        stump,
        **tiled,
        roots=first,
        leaf_values=np.tile(stump.leaf_values, (count, 1)),
        tree_output=np.zeros(count, dtype=np.int32),
    )


def test_more_decisions_than_16_bits_count_are_walked() -> None:
    background = np.array([[0.25], [0.75]])
    few, many = (explainer_of(stumps(n), background) for n in (65_535, 65_536))
    assert (few.engine, many.engine, many.table_bytes) == ("table", "walk", 0)
    assert (
        gap_to_the_walk(few, explainer_of(stumps(65_535), background, "walk"), background) < CLOSE
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-8, 1.0, 1e8, 1e40, 1e150])
def test_values_of_any_size_are_as_close(scale: float) -> None:
    trees = random_trees(2, n_columns=12, depth=7)
    ensemble = replace(trees, leaf_values=trees.leaf_values * scale, base=trees.base * scale)
    assert gap_of(ensemble, random_rows(1, (30, 12)), random_rows(2, (20, 12))) < CLOSE


def test_a_common_offset_of_the_leaves_costs_no_digits() -> None:
    trees = random_trees(2, n_columns=12, depth=7)
    leaves = (trees.left < 0)[:, None]
    ensemble = replace(trees, leaf_values=trees.leaf_values + 1e5 * leaves)
    assert gap_of(ensemble, random_rows(1, (30, 12)), random_rows(2, (20, 12))) < CLOSE


def test_values_add_up_to_the_output() -> None:
    ensemble = random_trees(1, n_columns=20, n_trees=50, depth=7)
    X = random_rows(2, (100, 20))
    explainer = explainer_of(ensemble, random_rows(1, (100, 20)), "table")
    explanation, outputs = explainer.explain(X), explainer.outputs(X)
    error = explanation.base_values + explanation.values.sum(axis=1) - outputs
    assert np.abs(error).max() < 1e-7 * explainer.output_scale.max()
    assert (explainer.tolerance, explainer_of(ensemble, X, "walk").tolerance) == (1e-5, 1e-9)


def test_building_twice_gives_the_same_bytes() -> None:
    ensemble = random_trees(1, n_columns=40, n_trees=3, depth=10)
    first, second = (
        explainer_of(ensemble, random_rows(1, (100, 40)), "table")._compiled for _ in range(2)
    )
    assert first is not None
    assert second is not None
    for one, other in zip(first.tables, second.tables, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("part", ["rows", "wide", "piece_bits", "piece_targets", "wide_bits"])
def test_a_damaged_table_differs_from_the_walk(part: str) -> None:
    ensemble = random_trees(1, n_columns=40, n_trees=1, depth=10)
    background, X = random_rows(1, (100, 40)), random_rows(2, (100, 40))
    explainer = explainer_of(ensemble, background, "table")
    walk = explainer_of(ensemble, background, "walk")
    assert gap_to_the_walk(explainer, walk, X) < CLOSE
    assert explainer._compiled is not None
    damaged: np.ndarray = getattr(explainer._compiled.tables, part)
    if damaged.dtype == np.float32:
        damaged *= np.float32(1 + 1e-4)
    elif part == "piece_bits":
        # Kernels check no bounds: a pattern must stay one of its own piece's.
        damaged[:, 0] = damaged[:, 1]
    else:
        damaged[:] = np.roll(damaged, 1, axis=-1)
    assert gap_to_the_walk(explainer, walk, X) > CLOSE


def test_no_row_of_a_table_lies_across_two_cache_lines() -> None:
    explainer = explainer_of(random_trees(1, depth=6), random_rows(1, (10, 5)), "table")
    assert explainer._compiled is not None
    rows = explainer._compiled.tables.rows
    assert (rows.ctypes.data % 64, rows.shape[1] * rows.itemsize) == (0, 32)
    assert rows.shape[1] == kernel.PIECE_BITS


@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "forest", "boosting"])
def test_models_of_the_libraries_are_looked_up(family: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 12)).round(2)
    y = (X[:, 0] * X[:, 1] + X[:, 2] > rng.normal(size=600)).astype(int)
    X[rng.random(X.shape) < 0.05] = np.nan
    ensemble = {
        "xgboost": _xgboost, "lightgbm": _lightgbm, "forest": _forest, "boosting": _boosting,
    }[family](X, y)  # fmt: skip
    explainer = explainer_of(ensemble, X[:100])
    assert explainer.engine == "table"
    assert gap_to_the_walk(explainer, explainer_of(ensemble, X[:100], "walk"), X[100:200]) < CLOSE


def _xgboost(X: FloatArray, y: np.ndarray) -> TreeEnsemble:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=20, max_depth=6, n_jobs=1).fit(X, y)
    return parse_xgboost(json.loads(bytes(model.get_booster().save_raw("json"))))


def _lightgbm(X: FloatArray, y: np.ndarray) -> TreeEnsemble:
    from lightgbm import LGBMClassifier

    codes = np.nan_to_num(X[:, [3]] * 3).round() % 7
    model = LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1)
    model.fit(np.hstack([X[:, :11], codes]), y, categorical_feature=[11])
    return parse_lightgbm(model.booster_.dump_model())


def _forest(X: FloatArray, y: np.ndarray) -> TreeEnsemble:
    from sklearn.ensemble import RandomForestClassifier

    return parse_sklearn(RandomForestClassifier(20, max_depth=8, random_state=0).fit(X, y))


def _boosting(X: FloatArray, y: np.ndarray) -> TreeEnsemble:
    from sklearn.ensemble import GradientBoostingRegressor

    return parse_sklearn(GradientBoostingRegressor(random_state=0).fit(np.nan_to_num(X), y))
