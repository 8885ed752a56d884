from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
from known_steps import COLUMNS, KNOWN_STEPS, NUMBERS, REACH, TEXT, coded_rows, fitted, one_hot
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)

from explainers.base import (
    FloatArray,
    IntArray,
    MalformedModelError,
    RawColumns,
    UnsupportedModelError,
)
from explainers.preprocess import (
    PipelineDerivation,
    confirm_players,
    decode_frame,
    dense,
    unseen_level,
)


@pytest.mark.parametrize("kind", KNOWN_STEPS)
def test_derived_columns_belong_to_the_raw_column_they_are_made_from(kind: str) -> None:
    steps, players = KNOWN_STEPS[kind]
    derivation = PipelineDerivation(fitted(steps), COLUMNS)
    if players is not None:
        assert derivation.players.tolist() == players
    rows = coded_rows()
    if kind == "infrequent categories":
        rows = rows[~np.isnan(rows).any(axis=1)]
    reach = REACH if kind.startswith("impute") else None
    confirm_players(derivation, rows, np.random.default_rng(0), reach=reach)


@pytest.mark.parametrize("kind", KNOWN_STEPS)
def test_a_row_derives_to_the_same_bits_alone_and_in_a_batch(kind: str) -> None:
    derivation = PipelineDerivation(fitted(KNOWN_STEPS[kind][0]), COLUMNS)
    rows = coded_rows()[:60]
    alone = np.vstack([derivation(rows[index : index + 1]) for index in range(len(rows))])
    np.testing.assert_array_equal(derivation(rows), alone)


@pytest.mark.parametrize("kind", KNOWN_STEPS)
def test_derived_rows_are_what_the_steps_make_of_the_original_frame(kind: str) -> None:
    steps = fitted(KNOWN_STEPS[kind][0])
    rows = coded_rows()
    text = decode_frame(rows, COLUMNS).to_csv(index=False)
    frame = pd.read_csv(StringIO(text))
    frame["grade"] = frame["grade"].astype(int)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "float64", "str", "int64", "bool"]
    expected = dense(steps.transform(frame))
    np.testing.assert_array_equal(PipelineDerivation(steps, COLUMNS)(rows), expected)


@pytest.mark.parametrize(
    ("mixing", "name"),
    [
        (PCA(2), "PCA"),
        (PolynomialFeatures(2), "PolynomialFeatures"),
        (Normalizer(), "Normalizer"),
        (FunctionTransformer(np.cumsum, kw_args={"axis": 1}), "FunctionTransformer"),
    ],
)
def test_steps_that_mix_columns_are_refused_by_name(mixing: Any, name: str) -> None:
    steps = make_column_transformer(
        (make_pipeline(SimpleImputer(), mixing, StandardScaler()), NUMBERS), (one_hot(), TEXT)
    )
    with pytest.raises(UnsupportedModelError, match=f"{name}.* 2 raw columns"):
        PipelineDerivation(fitted(steps), COLUMNS)


class StandardScalerOfRows(StandardScaler):
    def transform(self, X: Any) -> Any:
        return super().transform(X).cumsum(axis=1)


def test_a_subclass_is_not_taken_for_its_base() -> None:
    steps = make_column_transformer((StandardScalerOfRows(), NUMBERS))
    with pytest.raises(UnsupportedModelError, match="StandardScalerOfRows"):
        PipelineDerivation(fitted(steps), COLUMNS)


class Relabelled:
    def __init__(self, derivation: PipelineDerivation, players: IntArray) -> None:
        self.derivation = derivation
        self.players = players

    def __call__(self, X: FloatArray) -> FloatArray:
        return self.derivation(X)


@pytest.mark.parametrize("column", range(10))
def test_a_wrong_player_map_is_contradicted(column: int) -> None:
    derivation = PipelineDerivation(fitted(next(iter(KNOWN_STEPS.values()))[0]), COLUMNS)
    wrong = derivation.players.copy()
    wrong[column] = (wrong[column] + 1) % len(COLUMNS)
    with pytest.raises(UnsupportedModelError, match="belongs to raw column"):
        confirm_players(
            Relabelled(derivation, wrong), coded_rows(), np.random.default_rng(0), reach=REACH
        )


def test_a_map_of_the_wrong_length_is_contradicted() -> None:
    derivation = PipelineDerivation(fitted(KNOWN_STEPS["logarithm"][0]), COLUMNS)
    short = Relabelled(derivation, derivation.players[:-1])
    with pytest.raises(UnsupportedModelError, match="2 derived columns but 1 players"):
        confirm_players(short, coded_rows(), np.random.default_rng(0))


class Centred(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, _X: Any, _y: Any = None) -> "Centred":
        return self

    def transform(self, X: Any) -> Any:
        return X - X.mean()

    def get_feature_names_out(self, _names: Any = None) -> Any:
        return ["centred"]


def test_rows_that_depend_on_their_neighbours_are_contradicted() -> None:
    derivation = PipelineDerivation(
        fitted(make_column_transformer((Centred(), ["grade"]))), COLUMNS
    )
    with pytest.raises(UnsupportedModelError, match="rows beside it"):
        confirm_players(derivation, coded_rows(), np.random.default_rng(0))


def test_state_that_contradicts_the_output_is_malformed() -> None:
    steps = fitted(KNOWN_STEPS["bins"][0])
    steps.named_transformers_["pipeline"][-1].n_bins_ = np.array([7])
    with pytest.raises(MalformedModelError, match=r"4 columns.* 8"):
        PipelineDerivation(steps, COLUMNS)(coded_rows())


def test_steps_fitted_on_different_widths_are_malformed() -> None:
    steps = fitted(make_column_transformer((make_pipeline(SimpleImputer()), NUMBERS)))
    imputer = steps.named_transformers_["pipeline"][-1]
    imputer.statistics_ = imputer.statistics_[:1]
    with pytest.raises(MalformedModelError, match="fitted on 1 columns receives 2"):
        PipelineDerivation(steps, COLUMNS)


def test_an_imputer_of_none_gets_none() -> None:
    frame = pd.DataFrame({"colour": pd.Series(["red", None, "red"], dtype=object)})
    imputer = SimpleImputer(missing_values=None, strategy="most_frequent")
    steps = make_pipeline(imputer, OneHotEncoder(sparse_output=False)).fit(frame)
    derivation = PipelineDerivation(steps, RawColumns(("colour",), (("red",),)))
    np.testing.assert_array_equal(derivation(np.array([[0.0], [np.nan]])), [[1.0], [1.0]])


def test_columns_without_any_value_vanish() -> None:
    rows = coded_rows()
    rows[:, 0] = np.nan
    steps = make_column_transformer((SimpleImputer(), NUMBERS))
    with pytest.warns(UserWarning, match="Skipping features"):
        steps.fit(decode_frame(rows, COLUMNS))
    derivation = PipelineDerivation(steps, COLUMNS)
    assert derivation.players.tolist() == [1]
    with pytest.warns(UserWarning, match="Skipping features"):
        assert derivation(rows).shape == (len(rows), 1)


def test_decoding_gives_each_level_its_own_type_back() -> None:
    rows = np.array([[0.5, 1.0, 2, 3, 1], [np.nan, np.nan, -1, -1, -1], [1, 1, np.nan, 0, np.nan]])
    frame = decode_frame(rows, COLUMNS)
    assert [str(dtype) for dtype in frame.dtypes] == [
        "float64", "float64", "object", "float64", "object",
    ]  # fmt: skip
    assert frame["colour"].tolist()[0] == "red"
    assert frame["is_old"].tolist()[0] is True
    assert frame["grade"].tolist() == [4.0, 5.0, 1.0]
    assert np.isnan(frame["colour"].tolist()[2])
    assert np.isnan(frame["is_old"].tolist()[2])
    assert list(frame.columns) == list(COLUMNS.names)


def test_missing_is_none_where_the_steps_know_none() -> None:
    frame = pd.DataFrame({"colour": pd.Series(["red", None, "blue"], dtype=object)})
    steps = make_column_transformer((OneHotEncoder(sparse_output=False), ["colour"])).fit(frame)
    columns = RawColumns(("colour",), (("blue", "red"),))
    derived = PipelineDerivation(steps, columns)(np.array([[1.0], [np.nan], [0.0]]))
    np.testing.assert_array_equal(derived, steps.transform(frame))


def test_steps_fitted_without_names_get_arrays() -> None:
    rows = np.nan_to_num(coded_rows()[:, :2])
    columns = RawColumns(("a", "b"), (None, None))
    steps = make_pipeline(StandardScaler()).fit(rows)
    np.testing.assert_array_equal(PipelineDerivation(steps, columns)(rows), steps.transform(rows))


def test_what_a_sparse_matrix_does_not_store_is_absent() -> None:
    rows = coded_rows()[:5]
    steps = fitted(make_column_transformer((one_hot(), ["grade"]), sparse_threshold=1.0))
    derived = PipelineDerivation(steps, COLUMNS, absent=np.nan)(rows)
    assert np.isnan(derived).sum() == 15
    assert np.nansum(derived) == 5


@pytest.mark.parametrize(
    "levels", [("a", "b"), (1, 2, 3), (0.5, 7.25), (False, True), (True,), ("",), (-3,)]
)
def test_the_unseen_level_equals_no_level(levels: Any) -> None:
    assert unseen_level(levels) not in levels
