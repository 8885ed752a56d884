from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, PowerTransformer

from explainers.base import FloatArray, RawColumns
from explainers.chains import is_above, yeo_johnson
from explainers.derive import CompiledDerivation, compiled, is_same
from explainers.preprocess import PipelineDerivation, Reach

COLUMNS = RawColumns(("radius", "texture"), (None, None))
THRESHOLD = 15.0


@pytest.fixture(scope="module", name="X")
def rows_with_gaps() -> FloatArray:
    X: FloatArray = load_breast_cancer(return_X_y=True)[0][:, :2].copy()
    X[::7] *= -1.0
    X[::11, 0] = np.nan
    return X


def derivation_of(steps: Any, X: FloatArray, *, missing: bool) -> CompiledDerivation:
    pipeline = PipelineDerivation(steps.fit(X), COLUMNS)
    derivation = compiled(pipeline, COLUMNS, Reach((missing,) * 2, (False,) * 2))
    assert derivation is not None
    return derivation


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        (PowerTransformer(), True),
        (PowerTransformer(standardize=False), True),
        (make_pipeline(SimpleImputer(), Binarizer(threshold=THRESHOLD)), True),
        (make_pipeline(SimpleImputer(), PowerTransformer(), Binarizer()), True),
    ],
    ids=["power", "power alone", "threshold", "both"],
)
def test_numbers_are_the_steps_own_to_the_bit(steps: Any, X: FloatArray, *, missing: bool) -> None:
    derivation = derivation_of(steps, X, missing=missing)
    edges = np.array([THRESHOLD, 0.0, -0.0, 5e-324, 1e-9, 1e9, -1e9, np.nan])
    near = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    rows = np.concatenate([X, np.column_stack([near, near[::-1]])])
    assert derivation.plan.accepts(rows).all()
    expected = derivation.pipeline(rows)
    assert is_same(derivation(rows), expected)
    alone = np.concatenate([derivation(row[None, :]) for row in rows])
    assert is_same(alone, expected)


def test_what_a_power_makes_infinite_is_left_to_the_steps(X: FloatArray) -> None:
    derivation = derivation_of(PowerTransformer(standardize=False), X, missing=True)
    # One end overflows, whichever side of 1 the fitted power is on.
    rows = np.array([[1.0, 1.0], [1.0, 1e308], [1.0, -1e308]])
    accepted = derivation.plan.accepts(rows)
    assert accepted[0]
    assert not accepted[1:].all()


def test_a_threshold_itself_is_not_above_and_missing_is_neither() -> None:
    values = np.array([[1.0], [np.nextafter(1.0, 2.0)], [np.nan]])
    assert is_above(values, np.array([1.0])).ravel().tolist() == [0.0, 1.0, 0.0]


def test_each_column_has_its_own_power() -> None:
    values = np.array([[3.0, 3.0, -3.0]])
    made = yeo_johnson(values, np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(made, [[3.0, np.log(4.0), -3.0]], rtol=1e-15)
