from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from misreadings import (
    Misreading,
    no_base,
    other_cast,
    other_missing_direction,
    other_missing_direction_of_categories,
    strict_comparison,
    swapped_members,
)
from plain_trees import edges_of, traverse
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from explainers.base import Background, FloatArray, Naming, RawColumns
from explainers.choose import build_explainer
from explainers.exact import interventional_values
from explainers.preprocess import PipelineDerivation
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.histogram import codes_in, parse_histogram_boosting

ROWS = 2_000
COMMON = {"max_iter": 12, "max_leaf_nodes": 9, "min_samples_leaf": 5, "random_state": 0}
COLOUR, SHAPE = 0, 1
"""The category columns, which come first among the columns the trees read."""


def classifier(**options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**COMMON | options)


def regressor(**options: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(**COMMON | options)


def raw_predictions(model: Any, rows: FloatArray) -> FloatArray:
    """What the library's trees make of rows its preprocessor has made, in its own order."""
    raw = np.zeros((len(rows), model.n_trees_per_iteration_), order="F")
    raw += model._baseline_prediction
    model._predict_iterations(rows, model._predictors, raw, is_binned=False, n_threads=1)
    return raw


def assert_same_decisions(model: Any, rows: FloatArray) -> TreeEnsemble:
    ensemble = parse_histogram_boosting(model)
    edges = edges_of(ensemble, rows)
    np.testing.assert_array_equal(traverse(ensemble, edges), raw_predictions(model, edges))
    return ensemble


@pytest.fixture(scope="module")
def numbers() -> FloatArray:
    X = np.random.default_rng(0).normal(size=(500, 4))
    X[:, 1] = np.round(X[:, 1], 1)
    X[:, 2] *= 1e-3
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    return X


@pytest.fixture(scope="module")
def target(numbers: FloatArray) -> FloatArray:
    filled = np.nan_to_num(numbers, nan=0.6)
    return filled[:, 0] * filled[:, 1] + 300 * filled[:, 2] + filled[:, 3]


@pytest.fixture(scope="module")
def coded(numbers: FloatArray) -> FloatArray:
    """Columns 1 and 3 hold codes; 3 has some that are rare or missing."""
    rng = np.random.default_rng(3)
    X = numbers.copy()
    X[:, 1] = rng.integers(0, 5, len(X))
    X[:, 3] = np.minimum(rng.geometric(0.03, len(X)), 80)
    X[::7, 3] = np.nan
    return X


@pytest.fixture(scope="module")
def signal(coded: FloatArray) -> FloatArray:
    shape = np.nan_to_num(coded[:, 3], nan=1.5)
    return np.nan_to_num(coded[:, 0]) + 2 * np.isin(coded[:, 1], [1, 3]) + shape % 3


@pytest.fixture(scope="module")
def category_model(coded: FloatArray, signal: FloatArray) -> HistGradientBoostingRegressor:
    return regressor(categorical_features=[1, 3]).fit(coded, signal)


@pytest.fixture(scope="module")
def derived(category_model: HistGradientBoostingRegressor, coded: FloatArray) -> FloatArray:
    rows = category_model._preprocessor.transform(coded)
    assert set(rows[:, COLOUR]) == {0, 1, 2, 3, 4}
    return np.ascontiguousarray(rows)


@pytest.mark.parametrize(
    "model",
    [
        regressor(),
        regressor(loss="absolute_error"),
        regressor(loss="quantile", quantile=0.3),
        regressor(loss="poisson"),
        regressor(loss="gamma"),
        regressor(learning_rate=0.7, max_bins=7, l2_regularization=2.0),
        regressor(max_features=0.5, interaction_cst="pairwise"),
        regressor(monotonic_cst=[1, 0, -1, 0]),
        regressor(early_stopping=True, n_iter_no_change=2, tol=1.0),
    ],
    ids=str,
)
def test_regressors_are_read_bit_by_bit(
    numbers: FloatArray, target: FloatArray, model: Any
) -> None:
    model.fit(numbers, np.abs(target) + 0.1)
    assert assert_same_decisions(model, numbers).n_outputs == 1


def test_two_classes_have_one_output(numbers: FloatArray, target: FloatArray) -> None:
    model = classifier().fit(numbers, target > 0)
    ensemble = assert_same_decisions(model, numbers)
    np.testing.assert_array_equal(
        traverse(ensemble, numbers)[:, 0], model.decision_function(numbers)
    )


def test_trees_of_several_classes_take_turns(numbers: FloatArray, target: FloatArray) -> None:
    model = classifier().fit(numbers, np.digitize(target, [-0.5, 0.5]))
    ensemble = assert_same_decisions(model, numbers)
    np.testing.assert_array_equal(ensemble.tree_output[:4], [0, 1, 2, 0])


def test_missing_values_unknown_in_training_are_read_as_the_library_does(
    numbers: FloatArray, target: FloatArray
) -> None:
    filled = np.nan_to_num(numbers)
    assert_same_decisions(regressor().fit(filled, target), filled)


def test_categories_missing_and_unknown_codes_take_the_librarys_side(
    category_model: HistGradientBoostingRegressor, derived: FloatArray
) -> None:
    ensemble = assert_same_decisions(category_model, derived)
    by_code = ensemble.is_category
    assert set(ensemble.column[by_code]) == {COLOUR, SHAPE}
    assert set(ensemble.missing_left[by_code]) == {True, False}


def test_codes_the_bitset_lists_left_but_training_never_saw_go_left(
    coded: FloatArray, signal: FloatArray
) -> None:
    model = regressor(categorical_features=[1, 3]).fit(coded, signal)
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        nodes["missing_go_to_left"] ^= nodes["is_categorical"]
    rows = np.ascontiguousarray(model._preprocessor.transform(coded))
    assert_same_decisions(model, rows)


def test_category_columns_come_first(
    coded: FloatArray, category_model: HistGradientBoostingRegressor
) -> None:
    ensemble = parse_histogram_boosting(category_model)
    right = category_model.predict(coded)
    rows = category_model._preprocessor.transform(coded)
    np.testing.assert_array_equal(traverse(ensemble, rows)[:, 0], right)
    assert not np.array_equal(traverse(ensemble, coded)[:, 0], right)


def unknown_codes_to_the_right(ensemble: TreeEnsemble) -> TreeEnsemble:
    """Every set lists the codes that go left, whatever happens to unknown ones."""
    flipped = ensemble.is_category & ~ensemble.member_left
    bits = ensemble.category_bits.copy()
    for start, words in zip(
        ensemble.category_start[flipped], ensemble.category_words[flipped], strict=True
    ):
        bits[start : start + words] = ~bits[start : start + words]
    return replace(ensemble, category_bits=bits, member_left=ensemble.is_category)


@pytest.mark.parametrize(
    "breakage",
    [
        strict_comparison,
        other_cast,
        other_missing_direction,
        other_missing_direction_of_categories,
        no_base,
        swapped_members,
        unknown_codes_to_the_right,
    ],
)
def test_edge_rows_tell_a_misreading(
    category_model: HistGradientBoostingRegressor, derived: FloatArray, breakage: Misreading
) -> None:
    ensemble = parse_histogram_boosting(category_model)
    rows = edges_of(ensemble, derived)
    broken = traverse(breakage(ensemble), rows)
    assert np.any(broken != raw_predictions(category_model, rows), axis=1).sum() >= 5


@pytest.mark.parametrize("codes", [[], [0], [31, 32], [5, 64, 255]])
def test_sets_are_read_lowest_code_first(codes: list[int]) -> None:
    words = np.zeros(8, dtype=np.uint32)
    for code in codes:
        words[code // 32] |= np.uint32(1) << np.uint32(code % 32)
    np.testing.assert_array_equal(codes_in(words), codes)


def test_values_with_categories_equal_brute_force_through_the_library(
    coded: FloatArray, category_model: HistGradientBoostingRegressor
) -> None:
    levels = category_model._preprocessor.named_transformers_["encoder"].categories_
    known = [tuple(level for level in column if level == level) for column in levels]  # noqa: PLR0124
    columns = RawColumns(("size", "colour", "weight", "shape"), (None, known[0], None, known[1]))
    rows = coded.copy()
    for column in (1, 3):
        rows[:, column] = [
            np.nan if np.isnan(cell) else columns.levels[column].index(cell)
            for cell in coded[:, column]
        ]
    explainer = build_explainer(
        parse_histogram_boosting(category_model),
        Background.of(rows[:40]),
        PipelineDerivation(category_model._preprocessor, columns),
        naming=Naming(columns.names, ("value",), "raw"),
        tolerance=1e-9,
        engine="walk",
    )
    back = {column: np.array(columns.levels[column], dtype=float) for column in (1, 3)}

    def outputs(X: FloatArray) -> FloatArray:
        decoded = X.copy()
        for column, table in back.items():
            present = ~np.isnan(X[:, column])
            decoded[present, column] = table[X[present, column].astype(int)]
        return category_model.predict(decoded)[:, None]

    for row in rows[40:60]:
        expected = interventional_values(outputs, row, rows[:40])
        np.testing.assert_allclose(
            explainer.explain(row[None, :]).values[0], expected, rtol=1e-11, atol=1e-12
        )
