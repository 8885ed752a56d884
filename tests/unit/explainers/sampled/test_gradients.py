import numpy as np
import pytest
from called_models import naming_of

from explainers.base import FloatArray, MalformedModelError, UnsupportedModelError
from explainers.sampled.gradients import PathAttribution, integrate_gradients

ZERO = np.zeros(2)


def product_and_cubic(X: FloatArray) -> FloatArray:
    """R14: x0 x1, and x0^2 x1."""
    a, b = X.T
    return np.column_stack([a * b, a**2 * b])


def its_gradient(X: FloatArray) -> FloatArray:
    a, b = X.T
    return np.stack([np.column_stack([b, 2 * a * b]), np.column_stack([a, a**2])], axis=1)


def step(X: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-40 * (X.sum(axis=1, keepdims=True) - 1))))


def step_gradient(X: FloatArray) -> FloatArray:
    value = step(X)
    return np.repeat((40 * value * (1 - value))[:, None, :], 2, axis=1)


def integrated(X: list[list[float]], baseline: FloatArray = ZERO) -> PathAttribution:
    return integrate_gradients(
        product_and_cubic, its_gradient, np.array(X), baseline=baseline, naming=naming_of(2, 2)
    )


def test_the_reference_cases() -> None:
    found = integrated([[2.0, 3.0], [1.0, 2.0]])
    np.testing.assert_allclose(found.attributions[0, :, 0], [3, 3], atol=1e-12)
    np.testing.assert_allclose(found.attributions[1, :, 1], [4 / 3, 2 / 3], atol=1e-12)
    np.testing.assert_allclose(found.completeness_gap, 0, atol=1e-12)
    assert found.model_evaluations == 2 * (64 + 2)


def test_it_starts_at_the_baseline() -> None:
    found = integrated([[2.0, 3.0]], np.array([2.0, 1.0]))
    assert found.attributions[0, 0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found.attributions[0, 1], [4.0, 8.0], atol=1e-12)
    assert found.baseline.tolist() == [2.0, 1.0]


def test_the_gap_tells_when_the_steps_are_too_few() -> None:
    x = np.array([[1.3, 0.9]])
    gaps, found = [], []
    for steps in (3, 64):
        one = integrate_gradients(
            step, step_gradient, x, baseline=ZERO, naming=naming_of(2), steps=steps
        )
        gaps.append(abs(float(one.completeness_gap[0, 0])))
        found.append(one.attributions[0, :, 0].sum() + one.completeness_gap[0, 0])
    assert gaps[0] > 0.1
    assert gaps[1] < 0.01
    np.testing.assert_allclose(found, step(x)[0, 0] - step(ZERO[None])[0, 0], atol=1e-12)


def test_a_row_has_the_same_bytes_alone_and_in_a_batch() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 2)).tolist()
    batch = integrated(rows)
    alone = np.concatenate([integrated([row]).attributions for row in rows])
    assert alone.tobytes() == batch.attributions.tobytes()


def test_what_cannot_be_integrated_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="missing cell"):
        integrated([[np.nan, 1.0]])
    with pytest.raises(UnsupportedModelError, match="missing cell"):
        integrated([[1.0, 1.0]], np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="a baseline of 2 columns"):
        integrated([[1.0, 1.0]], np.zeros(3))
    with pytest.raises(ValueError, match="and 0"):
        integrate_gradients(
            step, step_gradient, np.ones((1, 2)), baseline=ZERO, naming=naming_of(2), steps=0
        )
    with pytest.raises(MalformedModelError, match=r"\(64, 2\) gradients, not \(64, 2, 1\)"):
        integrate_gradients(step, lambda X: X, np.ones((1, 2)), baseline=ZERO, naming=naming_of(2))
