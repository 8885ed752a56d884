import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from plain_trees import edges_of, traverse
from sklearn.datasets import load_breast_cancer, load_wine

from explainers.base import FloatArray, MalformedModelError, UnsupportedModelError
from explainers.tree.xgboost import parse_xgboost

ROWS = 2_000
COMMON = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1, "random_state": 0}


def document_of(model: Any) -> dict[str, Any]:
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    return json.loads(booster.save_raw("json"))


def margins(model: Any, X: FloatArray, *, iterations: int = 0) -> FloatArray:
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    raw = booster.inplace_predict(
        X, predict_type="margin", validate_features=False, iteration_range=(0, iterations)
    )
    return raw.reshape(len(X), -1).astype(np.float64)


@pytest.fixture(scope="module")
def numbers() -> FloatArray:
    X = np.random.default_rng(0).normal(size=(400, 5))
    X[:, 1] = np.round(X[:, 1], 1)
    X[:, 2] *= 1e-3
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
def mixed(numbers: FloatArray) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    wide = [f"level {k}" for k in range(70)]
    frame = pd.DataFrame(
        {
            "size": numbers[:, 0],
            "colour": pd.Categorical(rng.choice(list("bcade"), len(numbers)), list("bcade")),
            "place": pd.Categorical(rng.choice(wide, len(numbers)), wide),
            "weight": numbers[:, 3],
        }
    )
    frame.loc[::7, "colour"] = np.nan
    frame.loc[::9, "size"] = np.nan
    return frame


def coded(frame: pd.DataFrame) -> FloatArray:
    columns = [
        series.cat.codes.where(series.notna()) if series.dtype == "category" else series
        for _, series in frame.items()
    ]
    return np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns])


@pytest.fixture(scope="module")
def category_model(mixed: pd.DataFrame) -> Any:
    signal = mixed["size"].fillna(1) + mixed["colour"].isin(["b", "d"]) * 1.0
    signal += mixed["place"].cat.codes % 3
    return xgboost.XGBRegressor(enable_categorical=True, max_cat_to_onehot=3, **COMMON).fit(
        mixed, signal
    )


@pytest.mark.parametrize("column_scale", [1.0, 1e-30, 1e6])
def test_numeric_margins_are_the_librarys_bit_by_bit(
    numbers: FloatArray, target: FloatArray, column_scale: float
) -> None:
    X = numbers * column_scale
    model = xgboost.XGBRegressor(**COMMON).fit(X, target)
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, X)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


@pytest.mark.parametrize(
    ("objective", "base_score"),
    [
        ("binary:logistic", None), ("binary:logistic", 0.013), ("binary:logistic", 0.9),
        ("binary:logitraw", None), ("reg:logistic", 0.37), ("reg:squarederror", -3.1),
        ("reg:absoluteerror", None), ("count:poisson", None), ("count:poisson", 7.3),
        ("reg:gamma", None), ("reg:tweedie", 0.21), ("survival:cox", None),
        ("reg:pseudohubererror", None), ("reg:squaredlogerror", None),
    ],
)  # fmt: skip
def test_objectives_turn_their_base_score_into_the_same_margin(
    gappy: FloatArray, target: FloatArray, objective: str, base_score: float | None
) -> None:
    labels = np.abs(target) if objective.startswith(("reg", "count", "surv")) else target > 0.5
    labels = labels / labels.max() if objective == "reg:logistic" else labels
    model = xgboost.XGBRegressor(objective=objective, base_score=base_score, **COMMON)
    model.fit(gappy, labels)
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, gappy)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


def test_survival_times_start_from_a_logarithm(gappy: FloatArray, target: FloatArray) -> None:
    matrix = xgboost.DMatrix(gappy)
    times = np.abs(target) + 0.1
    matrix.set_info(label_lower_bound=times, label_upper_bound=times)
    model = xgboost.train({"objective": "survival:aft", "nthread": 1}, matrix, 5)
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, gappy)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


def test_base_scores_older_files_write_as_a_number_are_read(
    numbers: FloatArray, target: FloatArray
) -> None:
    model = xgboost.XGBRegressor(base_score=0.25, **COMMON).fit(numbers, target)
    document = document_of(model)
    document["learner"]["learner_model_param"]["base_score"] = "2.5E-1"
    np.testing.assert_array_equal(
        traverse(parse_xgboost(document), numbers), margins(model, numbers)
    )


def test_categories_missing_and_unseen_codes_take_the_librarys_side(
    mixed: pd.DataFrame, category_model: Any
) -> None:
    ensemble = parse_xgboost(document_of(category_model))
    assert ensemble.is_category.any()
    assert ensemble.category_words.max() > 2
    rows = edges_of(ensemble, coded(mixed))
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(category_model, rows))


def test_coded_rows_score_like_the_frame_they_come_from(
    mixed: pd.DataFrame, category_model: Any
) -> None:
    outputs = traverse(parse_xgboost(document_of(category_model)), coded(mixed))
    np.testing.assert_array_equal(outputs[:, 0], category_model.predict(mixed).astype(np.float64))


@pytest.mark.parametrize("parallel_trees", [1, 3])
def test_multiclass_trees_add_to_their_class(parallel_trees: int) -> None:
    X, y = load_wine(return_X_y=True)
    model = xgboost.XGBClassifier(num_parallel_tree=parallel_trees, subsample=0.7, **COMMON)
    model.fit(X, y)
    document = document_of(model)
    assert document["learner"]["learner_model_param"]["base_score"].count(",") == 2
    ensemble = parse_xgboost(document)
    rows = edges_of(ensemble, X)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


def test_several_targets_have_an_output_each(numbers: FloatArray, target: FloatArray) -> None:
    model = xgboost.XGBRegressor(**COMMON).fit(numbers, np.column_stack([target, -3 * target]))
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, numbers)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


def test_dart_weights_multiply_the_leaves(numbers: FloatArray, target: FloatArray) -> None:
    model = xgboost.XGBRegressor(booster="dart", rate_drop=0.4, **COMMON).fit(numbers, target)
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, numbers)
    matrix = xgboost.DMatrix(rows)
    exact = model.get_booster().predict(matrix, output_margin=True).astype(np.float64)
    ours = traverse(ensemble, rows)
    np.testing.assert_array_equal(ours[:, 0], exact)
    # In place, the library adds and takes off the base score around every tree.
    last_bit = np.spacing(np.float32(np.abs(ours).max()))
    assert np.abs(ours - margins(model, rows)).max() <= ensemble.n_trees * last_bit


def test_only_the_trees_asked_for_are_used(numbers: FloatArray, target: FloatArray) -> None:
    model = xgboost.XGBRegressor(early_stopping_rounds=2, **(COMMON | {"learning_rate": 1.5}))
    noise = np.random.default_rng(4).normal(size=len(target))
    model.fit(numbers, target, eval_set=[(numbers, target + noise)], verbose=False)
    served = model.best_iteration + 1
    assert served < len(document_of(model)["learner"]["gradient_booster"]["model"]["trees"])
    ensemble = parse_xgboost(document_of(model), trees=served)
    rows = edges_of(ensemble, numbers)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows, iterations=served))
    assert np.any(traverse(parse_xgboost(document_of(model)), rows) != traverse(ensemble, rows))


def test_pruned_nodes_leave_no_trace() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(gamma=2.0, tree_method="exact", **COMMON).fit(X, y)
    ensemble = parse_xgboost(document_of(model))
    rows = edges_of(ensemble, X)
    np.testing.assert_array_equal(traverse(ensemble, rows), margins(model, rows))


def test_linear_boosters_are_refused_by_name(numbers: FloatArray, target: FloatArray) -> None:
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=2, n_jobs=1)
    with pytest.raises(UnsupportedModelError, match="gblinear"):
        parse_xgboost(document_of(model.fit(numbers, target)))


def test_vector_leaves_are_refused_by_name(numbers: FloatArray, target: FloatArray) -> None:
    model = xgboost.XGBRegressor(multi_strategy="multi_output_tree", n_estimators=2, n_jobs=1)
    model.fit(numbers, np.column_stack([target, target]))
    with pytest.raises(UnsupportedModelError, match="multi_output_tree"):
        parse_xgboost(document_of(model))


@pytest.fixture
def document(numbers: FloatArray, target: FloatArray) -> dict[str, Any]:
    model = xgboost.XGBRegressor(n_estimators=3, max_depth=3, n_jobs=1, random_state=0)
    return document_of(model.fit(numbers, target))


def test_objectives_unknown_here_are_refused_by_name(document: dict[str, Any]) -> None:
    document["learner"]["objective"]["name"] = "reg:surprise"
    with pytest.raises(UnsupportedModelError, match="reg:surprise"):
        parse_xgboost(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left_children", [0] * 15),
        ("left_children", [10**6] * 15),
        ("split_indices", [10**6] * 15),
        ("split_conditions", [0.5]),
        ("split_conditions", [float("nan")] * 15),
        ("split_type", [1] * 15),
        ("default_left", "yes"),
        ("tree_param", None),
    ],
)
def test_contradictory_trees_are_refused(
    document: dict[str, Any], field: str, value: object
) -> None:
    document["learner"]["gradient_booster"]["model"]["trees"][1][field] = value
    with pytest.raises(MalformedModelError):
        parse_xgboost(document)


@pytest.mark.parametrize("trees", [0, -1, 4])
def test_a_tree_count_the_file_does_not_have_is_refused(
    document: dict[str, Any], trees: int
) -> None:
    with pytest.raises(MalformedModelError, match="trees asked for"):
        parse_xgboost(document, trees=trees)


def test_trees_of_a_class_that_is_not_there_are_refused(document: dict[str, Any]) -> None:
    document["learner"]["gradient_booster"]["model"]["tree_info"] = [0, 1, 0]
    with pytest.raises(MalformedModelError, match="output 1"):
        parse_xgboost(document)


@pytest.mark.parametrize("base_score", ["[1,2]", "[x]", ""])
def test_base_scores_that_fit_no_output_are_refused(
    document: dict[str, Any], base_score: str
) -> None:
    document["learner"]["learner_model_param"]["base_score"] = base_score
    with pytest.raises(MalformedModelError):
        parse_xgboost(document)


def test_a_base_score_outside_its_range_is_refused(document: dict[str, Any]) -> None:
    document["learner"]["objective"]["name"] = "count:poisson"
    document["learner"]["learner_model_param"]["base_score"] = "[-1]"
    with pytest.raises(MalformedModelError, match="range"):
        parse_xgboost(document)


def test_a_document_of_something_else_is_refused() -> None:
    with pytest.raises(MalformedModelError):
        parse_xgboost({"version": [1, 0, 0]})
