from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from boosting_rows import rows_with_gaps, signal_of
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor, Pool

from explainers.base import FloatArray, UnsupportedModelError
from service.models.catboost import CatBoostModel, dump_catboost, load_catboost
from service.models.errors import ModelLoadError, UnknownCategoriesError

COMMON = {
    "iterations": 10,
    "depth": 4,
    "random_seed": 0,
    "thread_count": 1,
    "verbose": False,
    "allow_writing_files": False,
}
ROWS = 600
CATEGORIES: dict[str, tuple[Any, ...]] = {
    "colour": ("blue", "green", "red", "none"),
    "rooms": (10, 20, 30),
}


def regressor(**options: Any) -> CatBoostRegressor:
    return CatBoostRegressor(**COMMON | options)


def classifier(**options: Any) -> CatBoostClassifier:
    return CatBoostClassifier(**COMMON | options)


def loaded(model: CatBoost, **options: Any) -> CatBoostModel:
    return load_catboost(dump_catboost(model), **options)


@pytest.fixture(scope="module", name="X")
def rows() -> FloatArray:
    return rows_with_gaps(ROWS)


@pytest.fixture(scope="module")
def signal(X: FloatArray) -> FloatArray:
    return signal_of(X)


@pytest.fixture(scope="module")
def frame(X: FloatArray) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "mass": X[:, 0],
            "colour": rng.choice(np.array(CATEGORIES["colour"], dtype=object), ROWS),
            "width": X[:, 1],
            "rooms": rng.choice(CATEGORIES["rooms"], ROWS),
        }
    )


@pytest.fixture(scope="module")
def labels(frame: pd.DataFrame) -> Any:
    return (frame["colour"] == "red") ^ (frame["rooms"] == 20) ^ (frame["mass"].fillna(0) > 0.9)


@pytest.fixture(scope="module")
def category_model(frame: pd.DataFrame, labels: Any) -> CatBoostClassifier:
    return classifier(cat_features=["colour", "rooms"]).fit(frame, labels)


@pytest.fixture(scope="module")
def coded(frame: pd.DataFrame) -> FloatArray:
    rows = frame.copy()
    for name, levels in CATEGORIES.items():
        rows[name] = frame[name].map({level: code for code, level in enumerate(levels)})
    return rows.to_numpy(dtype=np.float64)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_probabilities_are_the_binary_classifiers_own(
    X: FloatArray, signal: FloatArray, policy: str
) -> None:
    model = classifier(grow_policy=policy).fit(X, np.where(signal > 0.3, "yes", "no"))
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, model.predict_proba(X))
    raw = model.predict(X, prediction_type="RawFormulaVal")
    np.testing.assert_array_equal(result.outputs[:, 0], raw)
    np.testing.assert_allclose(result.scores[:, 1], 1 / (1 + np.exp(-raw)), rtol=1e-12)
    assert (served.task, served.n_classes, served.link) == ("binary", 2, "logit")
    assert (served.library, served.format, served.is_float32) == ("catboost", "cbm", False)
    assert served.trees_used == 10
    assert served.columns.accepts_missing == (True,) * 4
    assert served.columns.raw.names == ("0", "1", "2", "3")


def test_probabilities_are_the_multiclass_classifiers_own(
    X: FloatArray, signal: FloatArray
) -> None:
    model = classifier().fit(X, np.digitize(signal, [-0.3, 0.5]))
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores, model.predict_proba(X))
    assert (served.task, served.n_classes, served.link) == ("multiclass", 3, "softmax")
    exponentials = np.exp(result.outputs)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, result.scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "space", "link"),
    [
        ("RMSE", "raw", "identity"),
        ("MAE", "raw", "identity"),
        ("Quantile:alpha=0.3", "raw", "identity"),
        ("LogCosh", "raw", "identity"),
        ("MAPE", "raw", "identity"),
        ("Huber:delta=1", "raw", "identity"),
        ("Expectile:alpha=0.4", "raw", "identity"),
        ("Lq:q=3", "raw", "identity"),
        ("Poisson", "log", "log"),
        ("Tweedie:variance_power=1.5", "log", "log"),
    ],
)
def test_values_are_the_regressors_own(
    X: FloatArray, signal: FloatArray, loss: str, space: str, link: str
) -> None:
    model = regressor(loss_function=loss).fit(X, np.abs(signal) + 0.1)
    served = loaded(model)
    result = served.predict(X)
    np.testing.assert_array_equal(result.scores[:, 0], model.predict(X))
    assert (served.task, served.output_space, served.link) == ("regression", space, link)
    assert served.classes is None
    inverse = np.exp if link == "log" else np.asarray
    np.testing.assert_allclose(inverse(result.outputs), result.scores, rtol=1e-12)


def test_a_share_is_served_as_a_value_between_0_and_1(X: FloatArray, signal: FloatArray) -> None:
    share = 1 / (1 + np.exp(-signal))
    model = classifier(loss_function="CrossEntropy").fit(X, share)
    served = loaded(model)
    assert (served.task, served.link) == ("regression", "logit")
    np.testing.assert_array_equal(served.predict(X).scores[:, 0], model.predict_proba(X)[:, 1])


def test_rankers_serve_their_score(X: FloatArray, signal: FloatArray) -> None:
    pool = Pool(X, signal, group_id=np.arange(ROWS) // 20)
    model = CatBoost(COMMON | {"loss_function": "YetiRank"}).fit(pool)
    np.testing.assert_array_equal(loaded(model).predict(X).scores[:, 0], model.predict(X))


@pytest.mark.parametrize(
    "pair", [("no", "yes"), (3, 5), (2.5, 7.0), (False, True)], ids=["text", "int", "float", "bool"]
)
def test_classes_come_from_the_artifact_in_their_own_type(
    X: FloatArray, signal: FloatArray, pair: tuple[Any, Any]
) -> None:
    model = classifier().fit(X, np.where(signal > 0.3, pair[1], pair[0]))
    classes = loaded(model).classes
    assert classes == pair
    assert [type(label) for label in classes or ()] == [type(label) for label in pair]


def test_rows_of_a_batch_get_what_they_get_alone(X: FloatArray, signal: FloatArray) -> None:
    served = loaded(classifier().fit(X, np.digitize(signal, [-0.3, 0.5])))
    batch = served.predict(X)
    for index in range(0, ROWS, 17):
        alone = served.predict(X[index : index + 1])
        np.testing.assert_array_equal(alone.scores[0], batch.scores[index])
        np.testing.assert_array_equal(alone.outputs[0], batch.outputs[index])


def test_threads_share_a_model(X: FloatArray, signal: FloatArray) -> None:
    served = loaded(regressor(iterations=100).fit(X, signal))
    expected = served.predict(X).scores
    with ThreadPoolExecutor(4) as threads:
        parts = threads.map(lambda index: served.predict(X[index : index + 1]).scores, range(ROWS))
        np.testing.assert_array_equal(np.vstack(list(parts)), expected)


def test_only_trees_up_to_the_best_iteration_are_served(X: FloatArray, signal: FloatArray) -> None:
    noise = np.random.default_rng(2).normal(size=ROWS)
    model = regressor(iterations=60, learning_rate=1.0)
    model.fit(X, signal, eval_set=(X, signal + noise), early_stopping_rounds=3)
    served = loaded(model)
    assert served.trees_used == model.tree_count_ < 60
    np.testing.assert_array_equal(served.predict(X).scores[:, 0], model.predict(X))


def test_scale_and_bias_are_served(X: FloatArray, signal: FloatArray) -> None:
    model = regressor().fit(X, signal)
    model.set_scale_and_bias(0.3, 7.0)
    np.testing.assert_array_equal(loaded(model).predict(X).scores[:, 0], model.predict(X))


def test_names_come_from_the_artifact_or_the_caller(X: FloatArray, signal: FloatArray) -> None:
    names = ("a", "b", "c", "d")
    unnamed = regressor().fit(X, signal)
    assert loaded(unnamed, names=names).columns.raw.names == names
    named = regressor().fit(pd.DataFrame(X, columns=list("wxyz")), signal)
    assert loaded(named, names=names).columns.raw.names == tuple("wxyz")
    np.testing.assert_array_equal(loaded(named).predict(X).scores[:, 0], named.predict(X))


def test_categories_are_served_under_the_levels_the_caller_lists(
    frame: pd.DataFrame, coded: FloatArray, category_model: CatBoostClassifier
) -> None:
    served = loaded(category_model, categories=CATEGORIES)
    np.testing.assert_array_equal(served.predict(coded).scores, category_model.predict_proba(frame))
    assert served.columns.accepts_missing == (True, False, True, False)
    assert served.columns.unknown == ("refuse",) * 4
    with pytest.raises(UnsupportedModelError, match=r"OneHotFeature|OnlineCtr"):
        served.form()


def test_categories_without_levels_are_refused_with_the_way_out(
    category_model: CatBoostClassifier,
) -> None:
    with pytest.raises(UnknownCategoriesError, match=r"'colour'.*hashes.*--categories"):
        loaded(category_model)


@pytest.mark.parametrize("levels", [(1.5, 2.5), (True, False), ()], ids=["float", "bool", "none"])
def test_levels_that_catboost_cannot_have_are_refused(
    category_model: CatBoostClassifier, levels: tuple[Any, ...]
) -> None:
    with pytest.raises(ModelLoadError, match=r"'rooms'.*(whole numbers|no levels)"):
        loaded(category_model, categories=CATEGORIES | {"rooms": levels})


def test_a_missing_category_is_refused(
    coded: FloatArray, category_model: CatBoostClassifier
) -> None:
    rows = coded[:3].copy()
    rows[1, 1] = np.nan
    with pytest.raises(ValueError, match="'colour' may not be missing"):
        loaded(category_model, categories=CATEGORIES).predict(rows)


def test_categories_no_tree_uses_leave_the_model_exact(
    frame: pd.DataFrame, coded: FloatArray
) -> None:
    target = np.nan_to_num(frame["mass"]) * np.nan_to_num(frame["width"])
    flat = frame.assign(colour="blue", rooms=10)
    model = regressor(cat_features=["colour", "rooms"]).fit(flat, target)
    served = loaded(model, categories={"colour": ("blue",), "rooms": (10,)})
    form = served.form()
    assert set(form.ensemble.column[form.ensemble.left >= 0]) == {0, 2}
    rows = coded.copy()
    rows[:, [1, 3]] = 0
    np.testing.assert_array_equal(served.predict(rows).scores[:, 0], model.predict(flat))


def test_an_ordered_category_split_by_numbers_takes_levels(
    X: FloatArray, signal: FloatArray
) -> None:
    rows = np.column_stack([X, np.arange(ROWS) % 3])
    model = regressor().fit(rows, signal + rows[:, 4])
    served = loaded(model, categories={"4": ("low", "middle", "high")})
    np.testing.assert_array_equal(served.predict(rows).scores[:, 0], model.predict(rows))


@pytest.mark.parametrize(
    ("model", "targets", "message"),
    [
        (classifier(loss_function="MultiClassOneVsAll"), 1, "train with MultiClass"),
        (classifier(loss_function="MultiLogloss"), 2, "one model per label"),
        (regressor(loss_function="MultiRMSE"), 2, "one model per target"),
        (regressor(loss_function="RMSEWithUncertainty"), 1, "variance"),
        (regressor(loss_function="MultiQuantile:alpha=0.1,0.9"), 1, "per quantile"),
        (regressor(loss_function="LogLinQuantile"), 1, "known are CrossEntropy"),
    ],
    ids=["one-vs-all", "labels", "targets", "uncertainty", "quantiles", "unknown"],
)
def test_losses_that_cannot_be_served_are_refused_by_name(
    X: FloatArray, signal: FloatArray, model: CatBoost, targets: int, message: str
) -> None:
    labels = (signal > 0).astype(int)
    model.fit(X, np.column_stack([labels, 1 - labels])[:, :targets])
    with pytest.raises(UnsupportedModelError, match=message):
        loaded(model)


def test_text_columns_are_refused() -> None:
    words = pd.DataFrame({"note": ["good house", "bad house", "no house at all"] * 200})
    model = classifier(text_features=["note"]).fit(words, np.arange(ROWS) % 3 == 0)
    with pytest.raises(ModelLoadError, match="text columns cannot be served"):
        loaded(model)


def test_what_is_no_fitted_catboost_model_is_not_dumped() -> None:
    with pytest.raises(ModelLoadError, match="not fitted"):
        dump_catboost(regressor())
    with pytest.raises(ModelLoadError, match="no CatBoost model"):
        dump_catboost(Pool([[1.0]]))
