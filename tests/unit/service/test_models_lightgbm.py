from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from boosting_rows import CATEGORIES, category_frame, coded, labels_of, rows_with_gaps, signal_of

from explainers.base import FloatArray, UnsupportedModelError
from service.models.errors import ModelLoadError, UnknownCategoriesError
from service.models.lightgbm import LightGBMModel, dump_lightgbm, load_lightgbm

COMMON = {"n_estimators": 10, "num_leaves": 7, "n_jobs": 1, "random_state": 0, "verbose": -1}
SENSITIVE = {"min_child_samples": 5, "cat_smooth": 1, "min_data_per_group": 5}
ROWS = 1_000


@pytest.fixture(scope="module", name="X")
def rows() -> FloatArray:
    X = rows_with_gaps(ROWS)
    X[np.random.default_rng(2).random(X.shape) < 0.1] = 0.0
    return X


@pytest.fixture(scope="module")
def signal(X: FloatArray) -> FloatArray:
    return signal_of(X)


@pytest.fixture(scope="module")
def binary(X: FloatArray, signal: FloatArray) -> Any:
    return lightgbm.LGBMClassifier(**COMMON).fit(X, np.where(signal > 0.3, "yes", "no"))


@pytest.fixture(scope="module")
def frame(X: FloatArray) -> pd.DataFrame:
    return category_frame(X)


@pytest.fixture(scope="module")
def labels(frame: pd.DataFrame) -> Any:
    return labels_of(frame)


@pytest.fixture(scope="module")
def category_classifier(frame: pd.DataFrame, labels: Any) -> Any:
    return lightgbm.LGBMClassifier(**COMMON, **SENSITIVE).fit(frame, labels)


def loaded(model: Any, **options: Any) -> LightGBMModel:
    data, _ = dump_lightgbm(model)
    return load_lightgbm(data, **options)


@pytest.mark.parametrize(
    ("objective", "space", "link"),
    [
        ("regression", "raw", "identity"),
        ("regression_l1", "raw", "identity"),
        ("huber", "raw", "identity"),
        ("fair", "raw", "identity"),
        ("quantile", "raw", "identity"),
        ("mape", "raw", "identity"),
        ("poisson", "log", "log"),
        ("gamma", "log", "log"),
        ("tweedie", "log", "log"),
        ("cross_entropy", "log_odds", "logit"),
    ],
)
def test_values_are_the_regressors_own(
    X: FloatArray, signal: FloatArray, objective: str, space: str, link: str
) -> None:
    target = np.abs(signal) / np.abs(signal).max() + 1e-3 * (link == "log")
    model = lightgbm.LGBMRegressor(objective=objective, **COMMON).fit(X, target)
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(X))
    np.testing.assert_array_equal(result.outputs[:, 0], model.predict(X, raw_score=True))
    assert (served.task, served.n_classes, served.is_float32) == ("regression", 1, False)
    assert (served.output_space, served.link) == (space, link)
    inverse = {"identity": lambda m: m, "log": np.exp, "logit": lambda m: 1 / (1 + np.exp(-m))}
    np.testing.assert_allclose(inverse[link](result.outputs), result.scores, rtol=1e-12)


def test_probabilities_are_the_binary_classifiers_own(X: FloatArray, binary: Any) -> None:
    served = loaded(binary)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, binary.predict_proba(X))
    assert (served.task, served.n_classes, served.link) == ("binary", 2, "logit")
    assert (served.library, served.format, served.classes) == ("lightgbm", "txt", None)
    np.testing.assert_allclose(1 / (1 + np.exp(-result.outputs[:, 0])), result.scores[:, 1], 1e-12)


def test_probabilities_are_the_multiclass_classifiers_own(
    X: FloatArray, signal: FloatArray
) -> None:
    model = lightgbm.LGBMClassifier(**COMMON).fit(X, np.digitize(signal, [-0.3, 0.5]))
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, model.predict_proba(X))
    assert (served.task, served.n_classes, served.link) == ("multiclass", 3, "softmax")
    exponentials = np.exp(result.outputs)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, result.scores, rtol=1e-12)


def test_a_class_without_splits_is_served(X: FloatArray, signal: FloatArray) -> None:
    parameters = {"objective": "multiclass", "num_class": 3, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(X, signal > 0), 3)
    served = loaded(booster)
    np.testing.assert_array_equal(served.predict(X).scores, booster.predict(X))
    assert served.form().ensemble.n_trees == 9


@pytest.mark.parametrize(
    "options",
    [
        {"boosting_type": "dart"},
        {"data_sample_strategy": "goss"},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"linear_tree": True},
    ],
    ids=str,
)
def test_every_way_of_training_is_served_like_its_wrapper(
    X: FloatArray, signal: FloatArray, options: dict[str, Any]
) -> None:
    model = lightgbm.LGBMClassifier(**COMMON, **options).fit(X, signal > 0)
    np.testing.assert_array_equal(loaded(model).predict(X).scores, model.predict_proba(X))


@pytest.mark.parametrize("wrapper", [lightgbm.LGBMClassifier, lightgbm.LGBMRegressor])
def test_outputs_of_a_random_forest_are_averages(
    X: FloatArray, signal: FloatArray, wrapper: Any
) -> None:
    model = wrapper(boosting_type="rf", subsample_freq=1, subsample=0.6, **COMMON)
    model.fit(X, signal > 0)
    result = loaded(model).predict(X)
    np.testing.assert_array_equal(result.outputs[:, 0], model.predict(X, raw_score=True) / 10)
    if wrapper is lightgbm.LGBMClassifier:
        np.testing.assert_array_equal(result.scores, model.predict_proba(X))
    else:
        np.testing.assert_array_equal(result.scores[:, 0], model.predict(X))
        np.testing.assert_allclose(result.scores, result.outputs, rtol=1e-12)


def test_rankers_serve_their_score(X: FloatArray, signal: FloatArray) -> None:
    model = lightgbm.LGBMRanker(**COMMON)
    model.fit(X, (signal > 0).astype(int), group=[100] * 10)
    np.testing.assert_array_equal(loaded(model).predict(X).scores[:, 0], model.predict(X))


def test_custom_objectives_serve_the_raw_score(X: FloatArray, signal: FloatArray) -> None:
    def squares(labels: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        return scores - labels, np.ones_like(scores)

    model = lightgbm.LGBMRegressor(objective=squares, **COMMON).fit(X, signal)
    served = loaded(model)
    np.testing.assert_array_equal(served.predict(X).scores[:, 0], model.predict(X))
    assert (served.output_space, served.link) == ("raw", "identity")


def test_only_trees_up_to_the_best_iteration_are_served(X: FloatArray, signal: FloatArray) -> None:
    noise = np.random.default_rng(2).normal(size=ROWS)
    options = COMMON | {"n_estimators": 60, "learning_rate": 1.2}
    model = lightgbm.LGBMRegressor(**options)
    stop = lightgbm.early_stopping(3, verbose=False)
    model.fit(X, signal, eval_X=X, eval_y=signal + noise, callbacks=[stop])
    served = loaded(model)
    np.testing.assert_array_equal(served.predict(X).scores[:, 0], model.predict(X))
    assert served.trees_used == model.best_iteration_ < 60
    assert served.form().ensemble.n_trees == served.trees_used


def test_coded_categories_score_like_the_frame(
    frame: pd.DataFrame, category_classifier: Any
) -> None:
    served = loaded(category_classifier)
    assert served.columns.raw.names == ("size", "colour", "rooms")
    assert served.columns.raw.levels == (None, CATEGORIES["colour"], CATEGORIES["rooms"])
    assert served.columns.unknown == ("refuse", "missing", "missing")
    np.testing.assert_array_equal(
        served.predict(coded(frame, CATEGORIES)).scores, category_classifier.predict_proba(frame)
    )


def test_unseen_levels_are_missing_to_the_library_too(
    frame: pd.DataFrame, category_classifier: Any
) -> None:
    strange = frame.assign(colour=pd.Categorical(["mauve"] * ROWS))
    coded_rows = coded(strange, CATEGORIES)
    assert np.isnan(coded_rows[:, 1]).all()
    np.testing.assert_array_equal(
        loaded(category_classifier).predict(coded_rows).scores,
        category_classifier.predict_proba(strange),
    )


def test_levels_keep_their_type() -> None:
    levels = {"flag": (False, True), "half": (0.5, 1.5), "word": ("é", "日本"), "whole": (7, 3)}
    codes = np.random.default_rng(3).integers(0, 2, size=(ROWS, 4))
    frame = pd.DataFrame(
        {
            name: pd.Categorical.from_codes(codes[:, k], list(levels[name]))
            for k, name in enumerate(levels)
        }
    )
    model = lightgbm.LGBMRegressor(**COMMON, **SENSITIVE).fit(frame, codes @ [1, 2, 3, 4])
    stored = loaded(model).columns.raw.levels
    assert stored == tuple(levels.values())
    assert [type(known[0]) for known in stored if known] == [bool, float, str, int]


@pytest.fixture(scope="module")
def code_classifier(frame: pd.DataFrame, labels: Any) -> Any:
    model = lightgbm.LGBMClassifier(**COMMON, **SENSITIVE)
    return model.fit(coded(frame, CATEGORIES), labels, categorical_feature=[1, 2])


def test_integer_codes_take_their_levels_from_the_caller(
    frame: pd.DataFrame, code_classifier: Any
) -> None:
    served = loaded(code_classifier, names=tuple(frame.columns), categories=CATEGORIES)
    assert served.columns.raw.levels == (None, CATEGORIES["colour"], CATEGORIES["rooms"])
    X = coded(frame, CATEGORIES)
    np.testing.assert_array_equal(served.predict(X).scores, code_classifier.predict_proba(X))


def test_integer_codes_without_levels_are_refused(
    frame: pd.DataFrame, code_classifier: Any
) -> None:
    with pytest.raises(UnknownCategoriesError, match=r"'rooms'.*--categories"):
        loaded(
            code_classifier,
            names=tuple(frame.columns),
            categories={"colour": CATEGORIES["colour"]},
        )


def test_levels_fewer_than_the_codes_are_refused(category_classifier: Any) -> None:
    data, _ = dump_lightgbm(category_classifier)
    cut = data.replace(b'["b", "c", "a", "d", "e"]', b'["b", "c", "a"]')
    assert cut != data
    with pytest.raises(UnknownCategoriesError, match="'colour'"):
        load_lightgbm(cut)


@pytest.fixture(scope="module")
def ordered_frame(frame: pd.DataFrame) -> pd.DataFrame:
    grades = pd.Categorical.from_codes(np.arange(ROWS) % 3, ["low", "mid", "high"], ordered=True)
    return frame.assign(grade=grades)


def test_ordered_categories_need_the_caller_to_say_which_column_they_are(
    ordered_frame: pd.DataFrame, labels: Any
) -> None:
    model = lightgbm.LGBMClassifier(**COMMON).fit(ordered_frame, labels)
    with pytest.raises(UnknownCategoriesError, match="which column"):
        loaded(model)
    categories = CATEGORIES | {"grade": ("low", "mid", "high")}
    served = loaded(model, categories=categories)
    np.testing.assert_array_equal(
        served.predict(coded(ordered_frame, categories)).scores,
        model.predict_proba(ordered_frame),
    )
    with pytest.raises(UnknownCategoriesError, match="which column"):
        loaded(model, categories=categories | {"grade": ("low", "high", "mid")})


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"colour": tuple("abcde")}, "the artifact"),
        ({"sizes": ("s", "m")}, "does not have"),
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
    assert loaded(binary).columns.raw.names[0] == "Column_0"
    assert loaded(category_classifier, names=tuple("xyz")).columns.raw.names[0] == "size"
    with pytest.raises(ModelLoadError, match="names"):
        loaded(binary, names=("a",))


def test_names_get_their_blanks_back(X: FloatArray, signal: FloatArray) -> None:
    names = ("mean radius", "b", "mean  area", "d")
    model = lightgbm.LGBMRegressor(**COMMON).fit(pd.DataFrame(X, columns=list(names)), signal)
    assert loaded(model).columns.raw.names[0] == "mean_radius"
    assert loaded(model, names=names).columns.raw.names == names


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


def test_threads_share_one_model(X: FloatArray, binary: Any) -> None:
    served = loaded(binary)
    blocks = [np.roll(X, k, axis=0) for k in range(64)]
    expected = [served.predict(block) for block in blocks]
    fresh = loaded(binary)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fresh.predict, blocks))
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.scores, reference.scores)
        np.testing.assert_array_equal(result.outputs, reference.outputs)


def test_the_form_is_parsed_once_and_reads_raw_columns(binary: Any) -> None:
    served = loaded(binary)
    assert served.form() is served.form()
    np.testing.assert_array_equal(served.form().derivation.players, [0, 1, 2, 3])


def test_linear_trees_have_no_form(X: FloatArray, signal: FloatArray) -> None:
    model = lightgbm.LGBMRegressor(linear_tree=True, **COMMON).fit(X, signal)
    with pytest.raises(UnsupportedModelError, match="linear_tree"):
        loaded(model).form()


def test_classes_come_from_the_wrapper(
    X: FloatArray, binary: Any, category_classifier: Any
) -> None:
    assert dump_lightgbm(binary)[1] == ("no", "yes")
    assert dump_lightgbm(category_classifier)[1] == (False, True)
    assert dump_lightgbm(binary.booster_)[1] is None
    assert dump_lightgbm(lightgbm.LGBMRegressor(**COMMON).fit(X, X[:, 0] > 0))[1] is None


def test_models_that_are_not_fitted_or_not_lightgbm_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="not fitted"):
        dump_lightgbm(lightgbm.LGBMClassifier())
    with pytest.raises(ModelLoadError, match="no LightGBM model"):
        dump_lightgbm("a model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "multiclassova", "num_class": 3}, "multiclassova.*do not sum to one"),
        ({"objective": "cross_entropy_lambda"}, "cross_entropy_lambda"),
        ({"objective": "binary", "sigmoid": 2.0}, "sigmoid=2"),
        ({"objective": "regression", "reg_sqrt": True}, "reg_sqrt"),
    ],
)
def test_kinds_that_cannot_be_served_are_refused_by_name(
    X: FloatArray, signal: FloatArray, options: dict[str, Any], message: str
) -> None:
    data = lightgbm.Dataset(X, signal > 0)
    booster = lightgbm.train({"num_threads": 1, "verbose": -1} | options, data, 3)
    with pytest.raises(UnsupportedModelError, match=message):
        loaded(booster)
