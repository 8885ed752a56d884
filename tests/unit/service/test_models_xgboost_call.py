"""XGBoost called without its Python layer: the same bits, or not at all."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xgboost

from explainers.base import FloatArray
from service.models.xgboost import dump_xgboost, load_xgboost
from service.models.xgboost_call import MOST_ROWS, DenseMargins

COLUMNS = 5
ROUNDS = 12


@pytest.fixture(scope="module", name="X")
def rows_with_gaps() -> FloatArray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2 * MOST_ROWS + 7, COLUMNS))
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def booster_of(X: FloatArray, **parameters: Any) -> xgboost.Booster:
    classes = parameters.get("num_class", 2)
    labels = np.nan_to_num(X[:, 0] + X[:, 1]).round().astype(int) % classes
    parameters = {"objective": "binary:logistic", "nthread": 1, "seed": 0, **parameters}
    return xgboost.train(parameters, xgboost.DMatrix(X, labels), ROUNDS)


KINDS: list[dict[str, Any]] = [
    {},
    {"objective": "multi:softprob", "num_class": 3},
    {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5},
    {"booster": "dart", "rate_drop": 0.3},
    {"objective": "count:poisson", "max_depth": 9},
]


@pytest.mark.parametrize("parameters", KINDS)
@pytest.mark.parametrize("iterations", [1, ROUNDS])
def test_margins_have_the_bits_of_the_public_call(
    X: FloatArray, parameters: dict[str, Any], iterations: int
) -> None:
    booster = booster_of(X, **parameters)
    margins = DenseMargins.proven(booster, COLUMNS, iterations=iterations)
    assert margins is not None
    for rows in (X, X[:1], X[3:20], np.asfortranarray(X[:MOST_ROWS])):
        public = booster.inplace_predict(
            rows, iteration_range=(0, iterations), predict_type="margin"
        )
        assert np.array_equal(margins(rows), public.reshape(len(rows), -1))


def test_an_answer_outlives_the_next_call(X: FloatArray) -> None:
    margins = DenseMargins.proven(booster_of(X), COLUMNS, iterations=ROUNDS)
    assert margins is not None
    first = margins(X[:10])
    kept = first.copy()
    margins(X[10:20])
    assert np.array_equal(first, kept)
    first += 1  # kernels need it to be writeable


def test_threads_do_not_disturb_each_other(X: FloatArray) -> None:
    margins = DenseMargins.proven(booster_of(X), COLUMNS, iterations=ROUNDS)
    assert margins is not None
    expected = margins(X)
    spans = [slice(start, start + 1 + start % 40) for start in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        for span, found in zip(spans, pool.map(lambda span: margins(X[span]), spans), strict=True):
            assert np.array_equal(found, expected[span])


@dataclass
class Disguised:
    """A booster whose public call gives another model's numbers, as if the private one moved."""

    handle: Any
    other: xgboost.Booster

    def inplace_predict(self, *rows: Any, **options: Any) -> Any:
        return self.other.inplace_predict(*rows, **options)


def test_other_numbers_than_the_public_calls_are_not_used(X: FloatArray) -> None:
    booster, other = booster_of(X), booster_of(X, max_depth=2)
    disguised = Disguised(booster.handle, other)
    assert DenseMargins.proven(disguised, COLUMNS, iterations=ROUNDS) is None
    assert DenseMargins.proven(booster, COLUMNS, iterations=ROUNDS) is not None


@pytest.mark.parametrize("handle", [None, 3.5])
def test_a_private_function_that_moved_is_not_used(X: FloatArray, handle: Any) -> None:
    disguised = Disguised(handle, booster_of(X))
    assert DenseMargins.proven(disguised, COLUMNS, iterations=ROUNDS) is None


def test_what_the_library_refuses_is_an_error_and_the_next_call_works(X: FloatArray) -> None:
    booster = booster_of(X)
    with pytest.raises(RuntimeError, match="refuses"):
        DenseMargins(booster, COLUMNS + 1, iterations=ROUNDS)(np.zeros((1, COLUMNS + 1)))
    assert DenseMargins(booster, COLUMNS, iterations=ROUNDS)(X[:1]).shape == (1, 1)


@pytest.mark.parametrize("width", [1, COLUMNS - 1, COLUMNS + 1])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_rows_of_another_width_are_refused_as_the_library_does(
    X: FloatArray, width: int, n_rows: int
) -> None:
    booster = booster_of(X)
    margins = DenseMargins.proven(booster, COLUMNS, iterations=ROUNDS)
    assert margins is not None
    rows = np.zeros((n_rows, width))
    with pytest.raises(ValueError, match="Number of columns"):
        booster.inplace_predict(rows, validate_features=False)
    with pytest.raises(ValueError, match="columns for a booster that reads"):
        margins(rows)


def test_a_loaded_model_calls_the_library_directly(X: FloatArray) -> None:
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, X[:, 1] > 0)
    loaded = load_xgboost(dump_xgboost(model)[0], format="ubj")
    direct, loaded.dense_margins = loaded.predict(X), None
    public = loaded.predict(X)
    assert np.array_equal(direct.outputs, public.outputs)
    assert np.array_equal(direct.scores, public.scores)
