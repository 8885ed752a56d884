"""Ranks and signs of visible columns: of which game, from what, and where there are none."""

from dataclasses import replace
from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tables import mixed, wine

from service.registry import RegisteredModel, Registry
from service.visible import MOST_SECONDS, _effects, visible_ranks

Matrix = NDArray[np.float64]
SEED = 5


def loaded(folder: Path, model: object, X: pd.DataFrame, y: "pd.Series[float]") -> RegisteredModel:
    return Registry(folder).register("m", model, X, y).model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> RegisteredModel:
    """Trees of depth 2: no three columns interact."""
    from xgboost import XGBRegressor

    rng = np.random.default_rng(SEED)
    X = pd.DataFrame(rng.normal(size=(800, 5)), columns=list("abcde"))
    y = X["a"] * X["b"] + X["c"] * X["e"] - X["d"]
    trees = XGBRegressor(n_estimators=40, max_depth=2, n_jobs=1).fit(X, y)
    return loaded(tmp_path_factory.mktemp("pairs"), trees, X, y)


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> RegisteredModel:
    from xgboost import XGBClassifier

    X, y = wine()
    X = X.iloc[:, :4]
    trees = XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(X, y)
    return loaded(tmp_path_factory.mktemp("wine"), trees, X, y)


def brute_force(model: RegisteredModel, row: Matrix, players: list[int]) -> Matrix:
    """(V, C) Shapley values of the game in which all other columns come from the background."""

    def worth(coalition: tuple[int, ...]) -> Matrix:
        rows = model.background.rows.copy()
        rows[:, list(coalition)] = row[list(coalition)]
        return np.asarray(model.evaluate(rows).mean(axis=0))

    n, values = len(players), []
    for player in players:
        others = [other for other in players if other != player]
        total: Matrix = np.zeros(len(model.manifest.explainer.output_names))
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for coalition in combinations(others, size):
                total += weight * (worth((*coalition, player)) - worth(coalition))
        values.append(total)
    return np.array(values)


def test_where_columns_interact_in_pairs_they_are_shapley_values_of_the_visible_ones(
    pairs: RegisteredModel,
) -> None:
    rows = np.random.default_rng(SEED + 1).normal(size=(10, 5))
    players = [0, 1, 3, 4]
    base = pairs.evaluate(pairs.background.rows).mean(axis=0)
    for row in rows:
        gap = _effects(pairs, row, players, base) - brute_force(pairs, row, players)
        assert np.abs(gap).max() < 1e-5


def test_each_output_ranks_every_visible_column_once(three_classes: RegisteredModel) -> None:
    rows = three_classes.background.rows[:3]
    found = visible_ranks(three_classes, rows, {"ash"})
    assert found is not None
    visible = [name for name in three_classes.schema.names if name != "ash"]
    for entries in found:
        assert entries is not None
        assert [entry["output"] for entry in entries] == sorted(["0", "1", "2"] * 3)
        assert [entry["rank"] for entry in entries] == [1, 2, 3] * 3
        for output in ("0", "1", "2"):
            named = [entry["feature"] for entry in entries if entry["output"] == output]
            assert sorted(map(str, named)) == sorted(visible)


def test_hidden_cells_are_never_read(three_classes: RegisteredModel) -> None:
    rows = three_classes.background.rows[:3]
    strange = rows.copy()
    strange[:, three_classes.schema.names.index("ash")] = np.nan
    assert visible_ranks(three_classes, rows, {"ash"}) == visible_ranks(
        three_classes, strange, {"ash"}
    )


def test_missing_cells_and_categories_are_ranked_like_others(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    X, y = mixed()
    X = X.astype({"site": "category", "grade": "category"})
    trees = XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1, enable_categorical=True)
    model = loaded(tmp_path, trees.fit(X, y), X, y)
    gone = np.isnan(model.background.rows).any(axis=1)
    assert gone.any()
    found = visible_ranks(model, model.background.rows[gone][:4], {"radius"})
    assert found is not None
    assert all(entries and len(entries) == 8 for entries in found)


def test_with_everything_hidden_nothing_is_left(three_classes: RegisteredModel) -> None:
    names = three_classes.schema.names
    assert visible_ranks(three_classes, three_classes.background.rows[:2], names) == [[], []]


def test_what_would_take_too_long_is_not_begun(three_classes: RegisteredModel) -> None:
    manifest = three_classes.manifest
    dear = manifest.cost.model_copy(update={"evaluate_rows_per_second": 1 / MOST_SECONDS})
    slow = replace(three_classes, manifest=manifest.model_copy(update={"cost": dear}))
    assert visible_ranks(slow, three_classes.background.rows[:1], {"ash"}) is None


class _Broken:
    def __init__(self, outputs: object) -> None:
        self._outputs = outputs

    def evaluate(self, X: Matrix) -> object:
        if isinstance(self._outputs, Exception):
            raise self._outputs
        return np.full((len(X), 3), self._outputs)


@pytest.mark.parametrize("outputs", [RuntimeError("native"), np.inf, np.nan], ids=str)
def test_a_model_that_fails_on_mixed_rows_leaves_the_answer_without_ranks(
    three_classes: RegisteredModel, outputs: object
) -> None:
    broken = replace(three_classes, native=_Broken(outputs))  # type: ignore[arg-type]
    assert visible_ranks(broken, three_classes.background.rows[:1], {"ash"}) is None
