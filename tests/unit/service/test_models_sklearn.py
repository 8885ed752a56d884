from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mixed_pipelines import (
    BOOSTING,
    FINALS,
    FOREST,
    LOGISTIC,
    coded,
    labels,
    library_scores,
    loaded,
    mixed_frame,
    preprocessing,
    unusual_rows,
)
from plain_trees import traverse
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PowerTransformer

from explainers.base import FloatArray, UnsupportedModelError
from service.models.base import LinearForm, TreeForm


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_frame()


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("final", FINALS, ids=name_of)
def test_pipeline_serves_the_librarys_own_numbers(
    frame: pd.DataFrame, final: Any, *, sparse: bool
) -> None:
    model = Pipeline([("prepare", preprocessing(sparse=sparse)), ("model", final)])
    model.fit(frame, labels(frame))
    rows = unusual_rows(frame)[::25]
    adapter = loaded(model)
    X = coded(rows, adapter.columns.raw)
    served = adapter.predict(X)
    np.testing.assert_array_equal(served.scores, library_scores(model, rows))
    alone = adapter.predict(X[3:4])
    np.testing.assert_array_equal(alone.outputs, served.outputs[3:4])
    np.testing.assert_array_equal(alone.scores, served.scores[3:4])


def test_a_thousand_rows_equal_the_librarys_to_the_bit(frame: pd.DataFrame) -> None:
    model = Pipeline([("prepare", preprocessing()), ("model", FOREST)]).fit(frame, labels(frame))
    rows = unusual_rows(frame)
    adapter = loaded(model)
    served = adapter.predict(coded(rows, adapter.columns.raw))
    np.testing.assert_array_equal(served.scores, model.predict_proba(rows))
    np.testing.assert_array_equal(served.outputs, served.scores[:, 1:])


def form_outputs(form: TreeForm | LinearForm, X: FloatArray) -> FloatArray:
    derived = form.derivation(X)
    if isinstance(form, LinearForm):
        return derived @ form.coefficients + form.intercept
    return traverse(form.ensemble, derived)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("final", [FOREST, BOOSTING, LOGISTIC], ids=name_of)
def test_the_form_gives_the_served_outputs(frame: pd.DataFrame, final: Any, n_classes: int) -> None:
    model = Pipeline([("prepare", preprocessing(sparse=True)), ("model", final)])
    adapter = loaded(model.fit(frame, labels(frame, n_classes=n_classes)))
    X = coded(unusual_rows(frame)[::40], adapter.columns.raw)
    outputs = form_outputs(adapter.form(), X)
    np.testing.assert_allclose(outputs, adapter.predict(X).outputs, rtol=1e-12, atol=1e-12)


def test_the_form_names_the_raw_column_of_every_derived_one(frame: pd.DataFrame) -> None:
    model = Pipeline([("prepare", preprocessing()), ("model", FOREST)]).fit(frame, labels(frame))
    players = loaded(model).form().derivation.players
    assert players.tolist() == [0, 1, 2, 0, 3, 3, 3, 5, 4]


def test_columns_come_from_the_fitted_encoders(frame: pd.DataFrame) -> None:
    model = Pipeline([("prepare", preprocessing()), ("model", LOGISTIC)]).fit(frame, labels(frame))
    columns = loaded(model).columns
    assert columns.raw.names == tuple(frame.columns)
    assert columns.raw.levels == (
        None, None, None, ("north", "south", "west"), None, ("no", "unknown", "yes"),
    )  # fmt: skip
    # grade passes straight to the logistic regression, which takes no missing value.
    assert columns.accepts_missing == (True, True, True, True, False, True)
    assert columns.unknown == ("refuse", "refuse", "refuse", "ignore", "refuse", "refuse")


@pytest.mark.parametrize(
    ("final", "unknown"),
    [
        (GradientBoostingClassifier(n_estimators=3), "refuse"),
        (LOGISTIC, "refuse"),
        (FOREST, "ignore"),
    ],
    ids=name_of,
)
def test_unseen_levels_are_refused_where_the_estimator_refuses_what_they_become(
    final: Any, unknown: str
) -> None:
    frame = pd.DataFrame({"colour": ["red", "green", "blue"] * 9, "size": [1.5, 2.0, 3.0] * 9})
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    steps = ColumnTransformer([("text", encoder, ["colour"]), ("n", "passthrough", ["size"])])
    model = make_pipeline(steps, final).fit(frame, [0, 1, 1] * 9)
    assert loaded(model).columns.unknown == (unknown, "refuse")
    unseen = pd.DataFrame({"colour": ["mauve"], "size": [2.0]})
    if unknown == "ignore":
        assert library_scores(model, unseen).shape == (1, 2)
    else:
        with pytest.raises(ValueError, match="NaN"):
            library_scores(model, unseen)


def test_a_level_is_not_refused_because_zeros_are() -> None:
    frame = pd.DataFrame({"colour": ["red", "green", "blue"] * 9, "size": [1.5, 2.0, 3.0] * 9})
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    power = PowerTransformer("box-cox")
    steps = ColumnTransformer([("text", encoder, ["colour"]), ("n", power, ["size"])])
    model = make_pipeline(steps, LOGISTIC).fit(frame, [0, 1, 1] * 9)
    assert loaded(model).columns.unknown == ("ignore", "refuse")


def test_missing_is_no_level_but_accepted_where_the_encoder_knows_it() -> None:
    frame = pd.DataFrame({"colour": ["red", np.nan, "blue"] * 9, "size": [1, 2, 3] * 9})
    encoder = OneHotEncoder()
    model = make_pipeline(
        ColumnTransformer([("text", encoder, ["colour"]), ("size", OneHotEncoder(), ["size"])]),
        LOGISTIC,
    ).fit(frame, [0, 1, 1] * 9)
    columns = loaded(model).columns
    assert columns.raw.levels == (("blue", "red"), (1, 2, 3))
    assert columns.accepts_missing == (True, False)
    assert columns.unknown == ("refuse", "refuse")


@pytest.mark.parametrize("lenient", [True, False])
def test_numbers_read_by_an_encoder_and_the_model_are_levels_only_if_it_is_strict(
    *, lenient: bool
) -> None:
    frame = pd.DataFrame({"size": [1, 2, 3] * 9})
    encoder = OneHotEncoder(handle_unknown="ignore" if lenient else "error", sparse_output=False)
    steps = ColumnTransformer([("e", encoder, ["size"]), ("n", "passthrough", ["size"])])
    model = make_pipeline(steps, LOGISTIC).fit(frame, [0, 1, 1] * 9)
    adapter = loaded(model)
    assert adapter.columns.raw.levels == ((None,) if lenient else ((1, 2, 3),))
    rows = pd.DataFrame({"size": [1.0, 3.0, 7.0] if lenient else [1.0, 2.0, 3.0]})
    X = coded(rows, adapter.columns.raw)
    np.testing.assert_array_equal(adapter.predict(X).scores, library_scores(model, rows))


def test_pipeline_that_mixes_columns_predicts_but_has_no_form(frame: pd.DataFrame) -> None:
    model = make_pipeline(preprocessing(), PCA(4), LOGISTIC).fit(frame, labels(frame))
    rows = unusual_rows(frame)[::40]
    adapter = loaded(model)
    served = adapter.predict(coded(rows, adapter.columns.raw))
    np.testing.assert_array_equal(served.scores, library_scores(model, rows))
    with pytest.raises(UnsupportedModelError, match="PCA may make one column from"):
        adapter.form()


def test_encoders_beside_a_mixing_step_still_give_levels(frame: pd.DataFrame) -> None:
    steps = ColumnTransformer(
        [
            ("mixed", make_pipeline(SimpleImputer(), PCA(1)), ["radius", "texture"]),
            ("text", make_pipeline(OneHotEncoder()), ["clinic"]),
        ]
    )
    model = make_pipeline(steps, LOGISTIC).fit(frame, labels(frame))
    assert loaded(model).columns.raw.levels[3] == ("north", "south", "west")


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosting_libraries_are_served_behind_a_pipeline(
    frame: pd.DataFrame, library: str, *, sparse: bool
) -> None:
    final = booster_of(library)
    steps = preprocessing(sparse=sparse).set_output(transform="default")
    model = Pipeline([("prepare", steps), ("model", final)]).fit(frame, labels(frame))
    adapter = loaded(model)
    assert (adapter.library, adapter.output_space) == (library, "log_odds")
    rows = unusual_rows(frame)
    X = coded(rows, adapter.columns.raw)
    served = adapter.predict(X)
    np.testing.assert_array_equal(served.scores, model.predict_proba(rows))
    outputs = form_outputs(adapter.form(), X[:200])
    np.testing.assert_allclose(outputs, served.outputs[:200], rtol=1e-4, atol=1e-5)


def booster_of(library: str) -> Any:
    if library == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=9, max_depth=3, n_jobs=1)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=9, num_leaves=5, verbose=-1, n_jobs=1)


def test_a_frame_between_the_steps_does_not_make_rows_depend_on_each_other(
    frame: pd.DataFrame,
) -> None:
    steps = preprocessing().set_output(transform="pandas")
    model = Pipeline([("prepare", steps), ("model", LOGISTIC)]).fit(frame, labels(frame))
    adapter = loaded(model)
    rows = unusual_rows(frame)[:40]
    served = adapter.predict(coded(rows, adapter.columns.raw))
    np.testing.assert_array_equal(served.scores, library_scores(model, rows))


@pytest.mark.parametrize("final", [FOREST, BOOSTING, LOGISTIC], ids=name_of)
def test_eight_threads_get_the_numbers_of_one(frame: pd.DataFrame, final: Any) -> None:
    model = Pipeline([("prepare", preprocessing()), ("model", final)]).fit(frame, labels(frame))
    adapter = loaded(model)
    X = coded(unusual_rows(frame), adapter.columns.raw)[:160]
    expected = adapter.predict(X).scores
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(adapter.predict, np.array_split(X, 40)))
    np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), expected)
