from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from boosting_rows import CATEGORIES, category_frame, coded, labels_of, rows_with_gaps, signal_of

from explainers.base import FloatArray, UnsupportedModelError
from service.models.errors import ModelLoadError, UnknownCategoriesError
from service.models.xgboost import XGBoostModel, dump_xgboost, load_xgboost

COMMON = {"n_estimators": 15, "max_depth": 3, "n_jobs": 1, "random_state": 0}
ROWS = 1_000


@pytest.fixture(scope="module", name="X")
def rows() -> FloatArray:
    return rows_with_gaps(ROWS)


@pytest.fixture(scope="module")
def signal(X: FloatArray) -> FloatArray:
    return signal_of(X)


@pytest.fixture(scope="module")
def binary(X: FloatArray, signal: FloatArray) -> Any:
    return xgboost.XGBClassifier(**COMMON).fit(X, signal > 0.3)


@pytest.fixture(scope="module")
def frame(X: FloatArray) -> pd.DataFrame:
    return category_frame(X)


@pytest.fixture(scope="module")
def category_classifier(frame: pd.DataFrame) -> Any:
    model = xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=2, **COMMON)
    return model.fit(frame, labels_of(frame))


def loaded(model: Any, **options: Any) -> XGBoostModel:
    data, _ = dump_xgboost(model)
    return load_xgboost(data, format="ubj", **options)


@pytest.mark.parametrize(
    ("objective", "space", "link"),
    [
        ("reg:squarederror", "raw", "identity"),
        ("reg:absoluteerror", "raw", "identity"),
        ("reg:quantileerror", "raw", "identity"),
        ("reg:logistic", "log_odds", "logit"),
        ("count:poisson", "log", "log"),
        ("reg:gamma", "log", "log"),
        ("reg:tweedie", "log", "log"),
        ("survival:cox", "log", "log"),
    ],
)
def test_values_are_the_regressors_own(
    X: FloatArray, signal: FloatArray, objective: str, space: str, link: str
) -> None:
    extra = {"quantile_alpha": 0.3} if "quantile" in objective else {}
    target = np.abs(signal) / np.abs(signal).max() + 1e-3 * (objective != "reg:logistic")
    model = xgboost.XGBRegressor(objective=objective, **extra, **COMMON).fit(X, target)
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(X).astype(np.float64))
    np.testing.assert_array_equal(
        result.outputs[:, 0], model.predict(X, output_margin=True).astype(np.float64)
    )
    assert (served.task, served.n_classes) == ("regression", 1)
    assert (served.output_space, served.link) == (space, link)
    inverse = {"identity": lambda m: m, "log": np.exp, "logit": lambda m: 1 / (1 + np.exp(-m))}
    np.testing.assert_allclose(inverse[link](result.outputs), result.scores, rtol=1e-6)


def test_probabilities_are_the_binary_classifiers_own(X: FloatArray, binary: Any) -> None:
    served = loaded(binary)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, binary.predict_proba(X).astype(np.float64))
    assert result.outputs.shape == (ROWS, 1)
    assert (served.task, served.n_classes, served.classes) == ("binary", 2, None)
    np.testing.assert_allclose(1 / (1 + np.exp(-result.outputs[:, 0])), result.scores[:, 1], 1e-6)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
@pytest.mark.parametrize("parallel_trees", [1, 2])
def test_probabilities_are_the_multiclass_classifiers_own(
    X: FloatArray, signal: FloatArray, objective: str, parallel_trees: int
) -> None:
    classes = np.digitize(signal, [-0.3, 0.5])
    model = xgboost.XGBClassifier(
        objective=objective, num_parallel_tree=parallel_trees, subsample=0.8, **COMMON
    ).fit(X, classes)
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, model.predict_proba(X).astype(np.float64))
    assert (served.task, served.n_classes, served.link) == ("multiclass", 3, "softmax")
    exponentials = np.exp(result.outputs)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, result.scores, rtol=1e-5)


def test_dart_is_served_like_its_wrapper(X: FloatArray, signal: FloatArray) -> None:
    model = xgboost.XGBClassifier(booster="dart", rate_drop=0.3, **COMMON).fit(X, signal > 0)
    result = loaded(model).predict(X)
    np.testing.assert_array_equal(result.scores, model.predict_proba(X).astype(np.float64))


def test_log_odds_models_serve_the_log_odds(X: FloatArray, signal: FloatArray) -> None:
    data = xgboost.DMatrix(X, signal > 0)
    booster = xgboost.train({"objective": "binary:logitraw", "nthread": 1}, data, 5)
    served = loaded(booster)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores[:, 0], booster.predict(data).astype(np.float64))
    np.testing.assert_array_equal(result.scores, result.outputs)
    assert (served.task, served.link) == ("regression", "identity")


def test_rankers_serve_their_score(X: FloatArray, signal: FloatArray) -> None:
    model = xgboost.XGBRanker(objective="rank:ndcg", **COMMON)
    model.fit(X, (signal > 0).astype(int), qid=np.repeat(np.arange(10), ROWS // 10))
    result = loaded(model).predict(X)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(X).astype(np.float64))


def test_only_trees_up_to_the_best_iteration_are_served(X: FloatArray, signal: FloatArray) -> None:
    noise = np.random.default_rng(2).normal(size=ROWS)
    options = COMMON | {"n_estimators": 60, "learning_rate": 1.5}
    model = xgboost.XGBRegressor(early_stopping_rounds=2, num_parallel_tree=2, **options)
    model.fit(X, signal, eval_set=[(X, signal + noise)], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    served = loaded(model)
    scores = served.predict(X).scores[:, 0]
    np.testing.assert_array_equal(scores, model.predict(X).astype(np.float64))
    assert np.any(scores != booster.inplace_predict(X))
    assert served.trees_used == 2 * (model.best_iteration + 1) == served.form().ensemble.n_trees
    assert served.trees_stored == 2 * booster.num_boosted_rounds()


@pytest.mark.parametrize("format_", ["ubj", "json"])
def test_coded_categories_score_like_the_frame(
    frame: pd.DataFrame, category_classifier: Any, format_: Any
) -> None:
    data = bytes(category_classifier.get_booster().save_raw(format_))
    served = load_xgboost(data, format=format_)
    assert not served.columns.names_are_given
    assert served.columns.raw.names == ("size", "colour", "rooms")
    assert served.columns.raw.levels == (None, CATEGORIES["colour"], CATEGORIES["rooms"])
    assert (served.format, served.library) == (format_, "xgboost")
    np.testing.assert_array_equal(
        served.predict(coded(frame, CATEGORIES)).scores,
        category_classifier.predict_proba(frame).astype(np.float64),
    )


@pytest.fixture(scope="module")
def accented(X: FloatArray, signal: FloatArray) -> Any:
    codes = np.arange(ROWS) % 4
    column = pd.Categorical.from_codes(codes, ["éa", "", "日本", "z"])
    frame = pd.DataFrame({"a": X[:, 0], "b": column})
    return xgboost.XGBRegressor(enable_categorical=True, **COMMON).fit(frame, signal + codes)


def test_levels_outside_ascii_are_asked_for(accented: Any) -> None:
    # XGBoost stores them cut short: trusting its file would misname categories.
    with pytest.raises(UnknownCategoriesError, match=r"'b'.*ASCII"):
        loaded(accented)


def test_levels_outside_ascii_are_checked_against_what_is_left_of_them(accented: Any) -> None:
    levels = ("éa", "", "日本", "z")
    assert loaded(accented, categories={"b": levels}).columns.raw.levels == (None, levels)
    for wrong in (("", "éa", "日本", "z"), ("éb", "", "日本", "z"), ("éa", "")):
        with pytest.raises(ModelLoadError, match="not what XGBoost stored"):
            loaded(accented, categories={"b": wrong})


def without_names(frame: pd.DataFrame, categories: dict[str, tuple[Any, ...]]) -> xgboost.Booster:
    data = xgboost.DMatrix(
        coded(frame, categories),
        frame["colour"].isin(["b", "d"]),
        feature_types=["q", "c", "c"],
        enable_categorical=True,
    )
    return xgboost.train({"nthread": 1, "objective": "binary:logistic"}, data, 5)


def test_integer_codes_take_their_levels_from_the_caller(frame: pd.DataFrame) -> None:
    booster = without_names(frame, CATEGORIES)
    served = loaded(booster, names=tuple(frame.columns), categories=CATEGORIES)
    assert served.columns.raw.levels == (None, CATEGORIES["colour"], CATEGORIES["rooms"])
    X = coded(frame, CATEGORIES)
    data = xgboost.DMatrix(X, feature_types=["q", "c", "c"], enable_categorical=True)
    np.testing.assert_array_equal(served.predict(X).scores[:, 1], booster.predict(data))
    assert served.columns.names_are_given


def test_integer_codes_without_levels_are_refused(frame: pd.DataFrame) -> None:
    booster = without_names(frame, CATEGORIES)
    with pytest.raises(UnknownCategoriesError, match=r"'rooms'.*--categories"):
        loaded(booster, names=tuple(frame.columns), categories={"colour": CATEGORIES["colour"]})


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"colour": tuple("abcde")}, "the artifact"),
        ({"rooms": (10.0, 20.0, 30.0)}, "the artifact"),
        ({"sizes": ("s", "m")}, "does not have"),
        ({"size": ("s", "s")}, "distinct"),
    ],
)
def test_levels_that_contradict_the_artifact_are_refused(
    category_classifier: Any, categories: Any, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        loaded(category_classifier, categories=categories)


def test_given_names_serve_only_where_none_are_stored(
    binary: Any, category_classifier: Any
) -> None:
    assert loaded(binary, names=tuple("wxyz")).columns.raw.names == tuple("wxyz")
    assert loaded(binary).columns.raw.names == ("f0", "f1", "f2", "f3")
    assert loaded(category_classifier, names=tuple("xyz")).columns.raw.names[0] == "size"


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "b", "c")])
def test_names_that_do_not_fit_are_refused(binary: Any, names: tuple[str, ...]) -> None:
    with pytest.raises(ModelLoadError, match="names"):
        loaded(binary, names=names)


def test_a_row_scores_the_same_alone_and_among_others(X: FloatArray, binary: Any) -> None:
    served = loaded(binary)
    together = served.predict(X).scores
    for index in range(0, ROWS, 50):
        alone = served.predict(X[index : index + 1]).scores
        np.testing.assert_array_equal(alone[0], together[index])


def test_any_memory_layout_scores_the_same(X: FloatArray, binary: Any) -> None:
    served = loaded(binary)
    expected = served.predict(X).scores
    np.testing.assert_array_equal(served.predict(np.asfortranarray(X)).scores, expected)
    np.testing.assert_array_equal(served.predict(np.repeat(X, 2, axis=0)[::2]).scores, expected)


def test_threads_share_one_model(X: FloatArray, category_classifier: Any) -> None:
    served = loaded(category_classifier)
    blocks = [np.roll(X[:, :3], k, axis=0) for k in range(64)]
    blocks = [np.where(np.arange(3) > 0, np.abs(np.trunc(block)), block) for block in blocks]
    expected = [served.predict(block) for block in blocks]
    fresh = loaded(category_classifier)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fresh.predict, blocks))
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.scores, reference.scores)
        np.testing.assert_array_equal(result.outputs, reference.outputs)


def test_the_form_reads_raw_columns(X: FloatArray, binary: Any) -> None:
    form = loaded(binary).form()
    assert form.ensemble.float32_sums
    np.testing.assert_array_equal(form.derivation.players, [0, 1, 2, 3])
    np.testing.assert_array_equal(form.derivation(X), X)


def test_classes_come_from_the_wrapper(X: FloatArray, binary: Any) -> None:
    assert dump_xgboost(binary)[1] == (0, 1)
    assert dump_xgboost(binary.get_booster())[1] is None
    assert dump_xgboost(xgboost.XGBRegressor(**COMMON).fit(X, X[:, 0] > 0))[1] is None


def test_models_that_cannot_be_stored_whole_are_refused(X: FloatArray, signal: FloatArray) -> None:
    with pytest.raises(ModelLoadError, match="not fitted"):
        dump_xgboost(xgboost.XGBClassifier())
    with pytest.raises(ModelLoadError, match="missing=-999"):
        dump_xgboost(xgboost.XGBRegressor(missing=-999, **COMMON).fit(X, signal))
    with pytest.raises(ModelLoadError, match="no XGBoost model"):
        dump_xgboost("a model")


@pytest.mark.parametrize(
    ("options", "targets", "message"),
    [
        ({"objective": "binary:hinge"}, 1, "binary:hinge.*binary:logistic"),
        ({"booster": "gblinear"}, 1, "gblinear"),
        ({}, 2, "one model per target"),
    ],
)
def test_kinds_that_cannot_be_served_are_refused_by_name(
    X: FloatArray, signal: FloatArray, options: dict[str, Any], targets: int, message: str
) -> None:
    y = np.column_stack([signal > 0] * targets).astype(float)
    settings = {"n_estimators": 3, "n_jobs": 1} | options
    model = xgboost.XGBRegressor(**settings).fit(np.nan_to_num(X), y.squeeze())
    with pytest.raises(UnsupportedModelError, match=message):
        loaded(model)


def test_vector_leaves_are_refused_by_name(X: FloatArray, signal: FloatArray) -> None:
    options = COMMON | {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
    model = xgboost.XGBClassifier(**options).fit(X, np.digitize(signal, [-0.3, 0.5]))
    with pytest.raises(UnsupportedModelError, match="multi_output_tree"):
        loaded(model)
