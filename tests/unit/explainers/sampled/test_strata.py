import numpy as np
import pytest
from scipy import stats

from explainers.base import FloatArray
from explainers.sampled.strata import StratifiedMean, student_quantile


def sampled(samples: FloatArray, can_vary: list[list[bool]] | None = None) -> StratifiedMean:
    """Of (P, B, F) samples."""
    possible = np.ones(samples.shape[1:], dtype=np.bool_)
    found = StratifiedMean(possible if can_vary is None else np.array(can_vary), 1)
    for sample in samples:
        found.add(sample[:, :, None])
    return found


@pytest.mark.parametrize("freedom", [3, 5, 15, 31, 300])
def test_the_quantile_is_students(freedom: int) -> None:
    found = student_quantile(np.array([float(freedom)]))
    np.testing.assert_allclose(found, stats.t.ppf(0.975, freedom), rtol=8e-3)
    np.testing.assert_allclose(student_quantile(np.array([np.inf])), stats.norm.ppf(0.975))


def test_the_error_is_that_of_the_strata_and_knows_nothing_of_their_differences() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(16, 400, 2)) + 100 * rng.normal(size=(1, 400, 2))
    found = sampled(samples)
    np.testing.assert_allclose(found.mean[:, 0], samples.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error[:, 0], 1 / np.sqrt(16 * 400), rtol=0.05)


def test_one_stratum_has_students_error() -> None:
    samples = np.random.default_rng(0).normal(size=(9, 1, 1))
    error = samples.std(ddof=1) / 3
    wider = stats.t.ppf(0.975, 8) / stats.norm.ppf(0.975)
    np.testing.assert_allclose(sampled(samples).standard_error[0, 0], error * wider, rtol=1e-3)


@pytest.mark.parametrize(("passes", "share"), [(4, 1.0), (20, 0.25)])
def test_columns_that_hardly_varied_may_have_jumps_that_were_missed(
    passes: int, share: float
) -> None:
    samples = np.zeros((passes, 3, 4))
    samples[:, 1, 0] = np.arange(passes) % 2
    samples[:, 2, 1] = 0.01 * (np.arange(passes) % 2)
    samples[:, :, 2:] = 7.0
    possible = [[True, True, True, False], [True, False, False, False], [True] * 3 + [False]]
    found = sampled(samples, possible)
    assert found.mean[:, 0].tolist() == pytest.approx([1 / 6, 0.01 / 6, 7, 7])
    errors = found.standard_error[:, 0]
    variance = samples[:, 1, 0].var(ddof=1) / passes / 9
    wider = stats.t.ppf(0.975, passes - 1) / stats.norm.ppf(0.975)
    expected = np.sqrt(np.array([1.0, share, share]) * variance) * wider
    np.testing.assert_allclose(errors[:3], expected, rtol=8e-3)
    assert errors[3] == 0


def test_where_nothing_varied_a_jump_as_large_as_outputs_differ_may_have_been_missed() -> None:
    possible = np.array([[True, False]] * 3)
    rounding, jump = np.array([1e-6, 1e-9]), np.array([2.0, 2.0])
    found = StratifiedMean(possible, 2, rounding=rounding, jump=jump)
    for number in range(10):
        found.add(np.full((3, 2, 2), 5 + 1e-8 * (number % 2)))
    assert found.is_flat.tolist() == [True, False]
    assert found.standard_error[:, 0] == pytest.approx([np.sqrt(5) * 2 / 30, 0], rel=1e-6, abs=1e-8)
    assert found.standard_error[0, 1] < 1e-8


def test_nothing_varied_and_nothing_is_uncertain() -> None:
    assert sampled(np.full((4, 3, 2), 5.0)).standard_error.tolist() == [[0.0], [0.0]]
