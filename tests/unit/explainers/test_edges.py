import json
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from misreadings import (
    Misreading,
    lax_comparison,
    other_cast,
    other_missing_direction,
    other_missing_direction_of_categories,
    other_out_of_range_direction,
    strict_comparison,
    strict_float32_comparison,
    swapped_members,
    zero_is_missing_too,
)
from plain_trees import traverse

from explainers.base import FloatArray
from explainers.tree.build import EnsembleBuilder, TreeNodes, category_bits
from explainers.tree.edges import edge_rows
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.lightgbm import parse_lightgbm
from explainers.tree.xgboost import parse_xgboost

COLOUR = 1
YES = np.ones(4, dtype=np.bool_)
NO = np.zeros(4, dtype=np.bool_)


def edges_of(ensemble: TreeEnsemble, rows: FloatArray, **allowed: Any) -> FloatArray:
    flags = {"missing_allowed": YES, "unseen_allowed": YES} | allowed
    return edge_rows(ensemble, rows, n=2_000, rng=np.random.default_rng(5), **flags)


@pytest.fixture(scope="module")
def rows() -> FloatArray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    X[:, COLOUR] = rng.integers(0, 5, len(X))
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


@pytest.fixture(scope="module")
def target(rows: FloatArray) -> FloatArray:
    filled = np.nan_to_num(rows, nan=0.7)
    return filled[:, 0] * filled[:, 2] + np.isin(filled[:, 1], [1, 3]) + filled[:, 3]


@pytest.fixture(scope="module")
def xgboost_ensemble(rows: FloatArray, target: FloatArray) -> TreeEnsemble:
    matrix = xgboost.DMatrix(
        rows, target, feature_types=["q", "c", "q", "q"], enable_categorical=True
    )
    booster = xgboost.train(
        {"nthread": 1, "max_depth": 4, "max_cat_to_onehot": 2, "seed": 0}, matrix, 20
    )
    return parse_xgboost(json.loads(booster.save_raw("json")))


@pytest.fixture(scope="module")
def lightgbm_ensemble(rows: FloatArray, target: FloatArray) -> TreeEnsemble:
    data = lightgbm.Dataset(rows, target, categorical_feature=[COLOUR])
    parameters = {
        "num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1,
        "min_data_per_group": 5, "cat_smooth": 1, "cat_l2": 1,
    }  # fmt: skip
    return parse_lightgbm(lightgbm.train(parameters, data, 20).dump_model())


EVERYWHERE: list[Misreading] = [
    other_cast,
    other_missing_direction,
    other_missing_direction_of_categories,
    other_out_of_range_direction,
    swapped_members,
]


@pytest.mark.parametrize("breakage", [lax_comparison, strict_float32_comparison, *EVERYWHERE])
def test_xgboost_misreadings_change_outputs(
    rows: FloatArray, xgboost_ensemble: TreeEnsemble, breakage: Misreading
) -> None:
    broken = breakage(xgboost_ensemble)
    edges = edges_of(xgboost_ensemble, rows)
    changed = np.any(traverse(broken, edges) != traverse(xgboost_ensemble, edges), axis=1)
    assert changed.sum() >= 5


@pytest.mark.parametrize("breakage", [strict_comparison, *EVERYWHERE])
def test_lightgbm_misreadings_change_outputs(
    rows: FloatArray, lightgbm_ensemble: TreeEnsemble, breakage: Misreading
) -> None:
    edges = edges_of(lightgbm_ensemble, rows)
    broken = traverse(breakage(lightgbm_ensemble), edges)
    assert np.any(broken != traverse(lightgbm_ensemble, edges), axis=1).sum() >= 5


def test_reading_nan_as_zero_changes_outputs(
    rows: FloatArray, lightgbm_ensemble: TreeEnsemble
) -> None:
    edges = edges_of(lightgbm_ensemble, rows)
    broken = replace(lightgbm_ensemble, nan_is_zero=lightgbm_ensemble.left >= 0)
    assert np.any(traverse(broken, edges) != traverse(lightgbm_ensemble, edges))


def test_reading_zero_as_missing_changes_outputs(
    rows: FloatArray, lightgbm_ensemble: TreeEnsemble
) -> None:
    edges = edges_of(lightgbm_ensemble, rows)
    broken = zero_is_missing_too(lightgbm_ensemble)
    assert np.any(traverse(broken, edges) != traverse(lightgbm_ensemble, edges))


def test_every_threshold_and_its_neighbours_occur(
    rows: FloatArray, xgboost_ensemble: TreeEnsemble
) -> None:
    edges = edge_rows(
        xgboost_ensemble,
        rows,
        n=100_000,
        rng=np.random.default_rng(0),
        missing_allowed=YES,
        unseen_allowed=YES,
    )
    numeric = (xgboost_ensemble.left >= 0) & ~xgboost_ensemble.is_category
    for node in np.flatnonzero(numeric):
        column = edges[:, xgboost_ensemble.column[node]]
        threshold = xgboost_ensemble.threshold[node]
        for value in (
            threshold,
            np.nextafter(threshold, np.inf),
            float(np.nextafter(np.float32(threshold), np.float32(np.inf))),
        ):
            assert value in column


def test_forbidden_values_do_not_occur(rows: FloatArray, xgboost_ensemble: TreeEnsemble) -> None:
    full = rows[~np.isnan(rows).any(axis=1)]
    edges = edges_of(xgboost_ensemble, full, missing_allowed=NO, unseen_allowed=NO)
    assert not np.isnan(edges).any()
    assert set(edges[:, COLOUR]) == set(range(5))


def test_allowed_values_occur(rows: FloatArray, xgboost_ensemble: TreeEnsemble) -> None:
    edges = edges_of(xgboost_ensemble, rows[~np.isnan(rows).any(axis=1)])
    assert np.isnan(edges).any(axis=0).all()
    assert {-1.0, 5.0, 31.0, 32.0, 33.0} < set(edges[:, COLOUR])
    signs = np.signbit(edges[edges[:, 0] == 0, 0])
    assert signs.any()
    assert not signs.all()


def test_values_float32_cannot_hold_do_not_occur() -> None:
    builder = EnsembleBuilder(1, base=0.0)
    for threshold in (1e300, -3.4e38, 1.0):
        builder.add_tree(TreeNodes([1, -1, -1], [2, -1, -1], [0, 0, 0], [threshold] * 3, [0, 1, 2]))
    edges = edge_rows(
        builder.build(),
        np.zeros((3, 1)),
        n=500,
        rng=np.random.default_rng(0),
        missing_allowed=np.array([False]),
        unseen_allowed=np.array([False]),
    )
    assert np.abs(edges).max() <= np.finfo(np.float32).max


def test_base_rows_stay_as_they_are(rows: FloatArray, xgboost_ensemble: TreeEnsemble) -> None:
    before = rows.copy()
    edges_of(xgboost_ensemble, rows)
    np.testing.assert_array_equal(rows, before)


def test_a_model_without_splits_gets_its_base_rows(rows: FloatArray) -> None:
    builder = EnsembleBuilder(4, base=0.0)
    builder.add_tree(TreeNodes([-1], [-1], [-1], [0.0], [2.5]))
    edges = edges_of(builder.build(), rows[:1])
    np.testing.assert_array_equal(edges, np.repeat(rows[:1], len(edges), axis=0))


def test_category_bits_put_the_lowest_code_in_the_lowest_bit() -> None:
    np.testing.assert_array_equal(category_bits([0, 3, 33]), [9, 2])
    assert len(category_bits([])) == 0
