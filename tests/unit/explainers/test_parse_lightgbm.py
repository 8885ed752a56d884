from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from plain_trees import edges_of, traverse
from sklearn.datasets import load_wine

from explainers.base import FloatArray, MalformedModelError, UnsupportedModelError
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.lightgbm import parse_lightgbm

ROWS = 2_000
COMMON = {"num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "seed": 0, "verbose": -1}


def train(X: Any, y: FloatArray, *, rounds: int = 20, **parameters: Any) -> lightgbm.Booster:
    data = lightgbm.Dataset(X, y, categorical_feature=parameters.pop("category_columns", "auto"))
    return lightgbm.train({"objective": "regression"} | COMMON | parameters, data, rounds)


def raw_scores(model: lightgbm.Booster, X: FloatArray) -> FloatArray:
    return model.predict(X, raw_score=True, num_threads=1).reshape(len(X), -1)


def assert_same_decisions(model: lightgbm.Booster, X: FloatArray) -> TreeEnsemble:
    ensemble = parse_lightgbm(model.dump_model())
    rows = edges_of(ensemble, X)
    np.testing.assert_array_equal(traverse(ensemble, rows), raw_scores(model, rows))
    return ensemble


@pytest.fixture(scope="module")
def numbers() -> FloatArray:
    X = np.random.default_rng(0).normal(size=(500, 5))
    X[:, 1] = np.round(X[:, 1], 1)
    X[:, 2] *= 1e-3
    X[np.random.default_rng(1).random(len(X)) < 0.3, 3] = 0.0
    return X


@pytest.fixture(scope="module")
def gappy(numbers: FloatArray) -> FloatArray:
    X = numbers.copy()
    X[np.random.default_rng(1).random(X.shape) < 0.15] = np.nan
    return X


@pytest.fixture(scope="module")
def target(numbers: FloatArray) -> FloatArray:
    noise = np.random.default_rng(2).normal(scale=0.2, size=len(numbers))
    return numbers[:, 0] * numbers[:, 1] + 300 * numbers[:, 2] + (numbers[:, 3] > 0) + noise


@pytest.fixture(scope="module")
def coded(gappy: FloatArray) -> FloatArray:
    rng = np.random.default_rng(3)
    X = gappy.copy()
    X[:, 1] = rng.integers(0, 5, len(X))
    X[:, 4] = rng.integers(0, 70, len(X))
    X[::7, 1] = np.nan
    return X


@pytest.fixture(scope="module")
def category_model(coded: FloatArray) -> lightgbm.Booster:
    signal = np.nan_to_num(coded[:, 0]) + np.isin(coded[:, 1], [1, 3]) + coded[:, 4] % 3
    return train(
        coded, signal, category_columns=[1, 4], cat_smooth=1, min_data_per_group=5, cat_l2=1
    )


def test_rows_without_gaps_at_training_read_nan_as_zero(
    numbers: FloatArray, target: FloatArray
) -> None:
    ensemble = assert_same_decisions(train(numbers, target), numbers)
    assert ensemble.nan_is_zero[ensemble.left >= 0].all()


def test_missing_values_take_the_trained_direction(gappy: FloatArray, target: FloatArray) -> None:
    ensemble = assert_same_decisions(train(gappy, target), gappy)
    inner = ensemble.left >= 0
    assert len(np.unique(ensemble.missing_left[inner])) == 2
    assert not ensemble.nan_is_zero[inner].any()


def test_zero_as_missing_treats_tiny_numbers_as_missing(
    gappy: FloatArray, target: FloatArray
) -> None:
    ensemble = assert_same_decisions(train(gappy, target, zero_as_missing=True), gappy)
    assert ensemble.zero_is_missing[ensemble.left >= 0].all()


def test_missing_values_can_be_switched_off(gappy: FloatArray, target: FloatArray) -> None:
    assert_same_decisions(train(gappy, target, use_missing=False), gappy)


def test_categories_missing_and_unseen_codes_take_the_librarys_side(
    coded: FloatArray, category_model: lightgbm.Booster
) -> None:
    ensemble = assert_same_decisions(category_model, coded)
    assert ensemble.is_category.any()
    assert ensemble.category_words.max() > 2


def test_coded_rows_score_like_the_frame_they_come_from(coded: FloatArray) -> None:
    levels = list("bcade")
    frame = pd.DataFrame(coded[:, :3], columns=["size", "colour", "weight"])
    codes = frame["colour"].fillna(-1).astype(int)
    frame["colour"] = pd.Categorical.from_codes(codes, levels)
    model = train(frame, np.isin(codes, [1, 3]) + frame["weight"].fillna(0), min_data_per_group=5)
    outputs = traverse(parse_lightgbm(model.dump_model()), coded[:, :3])
    np.testing.assert_array_equal(outputs[:, 0], model.predict(frame, raw_score=True))


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_multiclass_trees_take_turns(objective: str) -> None:
    X, y = load_wine(return_X_y=True)
    ensemble = assert_same_decisions(train(X, y, objective=objective, num_class=3), X)
    np.testing.assert_array_equal(ensemble.tree_output[:4], [0, 1, 2, 0])


@pytest.mark.parametrize(
    "parameters",
    [
        {"boosting": "dart", "drop_rate": 0.5, "skip_drop": 0.1},
        {"data_sample_strategy": "goss", "learning_rate": 0.3},
        {"objective": "poisson"},
        {"objective": "binary"},
        {"objective": "regression_l1"},
        {"max_bin": 7, "extra_trees": True},
    ],
    ids=str,
)
def test_every_way_of_boosting_is_in_the_leaves(
    gappy: FloatArray, target: FloatArray, parameters: dict[str, Any]
) -> None:
    positive = target > 0.5 if parameters.get("objective") == "binary" else np.abs(target)
    assert_same_decisions(train(gappy, positive, **parameters), gappy)


@pytest.mark.parametrize("objective", ["regression", "binary"])
def test_a_random_forest_is_averaged(gappy: FloatArray, target: FloatArray, objective: str) -> None:
    model = train(
        gappy,
        target > 0.5 if objective == "binary" else target,
        objective=objective,
        boosting="rf",
        bagging_freq=1,
        bagging_fraction=0.6,
        rounds=7,
    )
    ensemble = parse_lightgbm(model.dump_model())
    assert ensemble.divisor == 7
    rows = edges_of(ensemble, gappy)
    np.testing.assert_array_equal(traverse(ensemble, rows), raw_scores(model, rows) / 7)


def test_the_dump_stops_at_the_best_iteration(gappy: FloatArray, target: FloatArray) -> None:
    noise = np.random.default_rng(4).normal(size=len(target))
    model = lightgbm.train(
        {"objective": "regression", "learning_rate": 1.2} | COMMON,
        lightgbm.Dataset(gappy, target),
        40,
        valid_sets=[lightgbm.Dataset(gappy, target + noise)],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        keep_training_booster=True,
    )
    assert model.best_iteration < model.current_iteration()
    assert assert_same_decisions(model, gappy).n_trees == model.best_iteration


def test_a_model_that_never_split_is_its_mean() -> None:
    X = np.zeros((50, 2))
    model = train(X, np.full(50, 3.5))
    np.testing.assert_array_equal(
        traverse(parse_lightgbm(model.dump_model()), X), np.full((50, 1), 3.5)
    )


def test_linear_trees_are_refused_by_name(numbers: FloatArray, target: FloatArray) -> None:
    model = train(numbers, target, linear_tree=True)
    with pytest.raises(UnsupportedModelError, match="linear_tree"):
        parse_lightgbm(model.dump_model())


@pytest.fixture
def dump(numbers: FloatArray, target: FloatArray) -> dict[str, Any]:
    return train(numbers, target, rounds=2).dump_model()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("missing_type", "Some"),
        ("decision_type", ">"),
        ("threshold", "x"),
        ("split_feature", 99),
        ("split_feature", -1),
        ("left_child", None),
    ],
)
def test_nodes_that_mean_nothing_are_refused(
    dump: dict[str, Any], field: str, value: object
) -> None:
    dump["tree_info"][1]["tree_structure"][field] = value
    with pytest.raises(MalformedModelError):
        parse_lightgbm(dump)


@pytest.mark.parametrize("codes", ["-1||2", "1||99999999999", "a||b", ""])
def test_category_sets_that_mean_nothing_are_refused(dump: dict[str, Any], codes: str) -> None:
    dump["tree_info"][0]["tree_structure"] |= {"decision_type": "==", "threshold": codes}
    with pytest.raises(MalformedModelError):
        parse_lightgbm(dump)


def test_a_dump_without_trees_is_refused(dump: dict[str, Any]) -> None:
    with pytest.raises(MalformedModelError, match="no trees"):
        parse_lightgbm(dump | {"tree_info": []})


def test_a_dump_of_something_else_is_refused() -> None:
    with pytest.raises(MalformedModelError):
        parse_lightgbm({"name": "tree"})
