"""The statistics of drift, against closed forms, SciPy, and samples without any drift."""

import numpy as np
import pytest
from scipy import stats

from service.drift.statistics import (
    chi_square_tail,
    joined,
    ks_statistic,
    mean_shift_p_value,
    ndcg,
    psi,
    psi_expected,
    psi_p_value,
)


def counts(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 10, 49, 300])
def test_chi_square_tail_is_scipys(degrees: int) -> None:
    for x in (0.0, 1e-6, 0.3, 1.0, degrees - 0.5, degrees + 1.0, 3.0 * degrees, 40.0, 600.0):
        assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9)


def test_an_index_far_beyond_chance_has_a_p_value_near_zero_instead_of_an_error() -> None:
    assert 0.0 <= chi_square_tail(1e6, 9) < 1e-200
    assert psi_p_value(8.0, 10, 10**6, 10**6) < 1e-200


def test_psi_is_zero_for_the_same_shares_and_the_textbook_number_for_others() -> None:
    assert psi(counts(100, 300, 600), counts(100, 300, 600)) == 0.0
    p, q = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    expected = float(np.sum((q - p) * np.log(q / p)))
    found = psi((p * 10**9).astype(np.int64), (q * 10**9).astype(np.int64))
    assert found == pytest.approx(expected, rel=1e-6)


def test_an_empty_cell_gives_a_large_but_finite_index() -> None:
    assert 1.0 < psi(counts(500, 500, 0), counts(300, 300, 400)) < 10.0


def test_psi_without_drift_has_the_mean_and_the_tail_it_is_said_to_have() -> None:
    rng = np.random.default_rng(3)
    m, n, cells, alpha = 5000, 1000, 10, 0.05
    shares = np.full(cells, 1 / cells)
    found = np.array(
        [psi(rng.multinomial(m, shares), rng.multinomial(n, shares)) for _ in range(4000)]
    )
    assert found.mean() == pytest.approx(psi_expected(cells, m, n), rel=0.05)
    rate = np.mean([psi_p_value(value, cells, m, n) < alpha for value in found])
    assert rate == pytest.approx(alpha, abs=0.012)


def test_psi_of_few_rows_exceeds_a_fixed_threshold_by_chance_but_not_its_own_null() -> None:
    rng = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    found = [psi(rng.multinomial(10**6, shares), rng.multinomial(100, shares)) for _ in range(2000)]
    assert 0.25 < np.mean(np.array(found) > 0.1) < 0.5
    assert np.mean([psi_p_value(value, 10, 10**6, 100) < 0.01 for value in found]) < 0.02


def test_rare_cells_are_joined_and_empty_ones_left_out() -> None:
    before, after = joined(counts(500, 3, 0, 497, 0), counts(400, 0, 0, 590, 10))
    assert before.tolist() == [500, 497, 3]
    assert after.tolist() == [400, 590, 10]


def test_ks_statistic_is_scipys_where_numbers_only_lie_on_the_cells() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 10, 700), rng.integers(0, 8, 300)
    expected = stats.ks_2samp(first, second).statistic
    found = ks_statistic(np.bincount(first, minlength=10), np.bincount(second, minlength=10))
    assert found == pytest.approx(expected, abs=1e-12)
    assert ks_statistic(counts(0, 0), counts(1, 1)) == 0.0


def test_ndcg_is_one_for_the_same_order_and_loses_most_at_the_top() -> None:
    weights = np.array([8.0, 4.0, 2.0, 1.0])
    assert ndcg(weights, weights * 10) == 1.0
    top, bottom = np.array([4.0, 8.0, 2.0, 1.0]), np.array([8.0, 4.0, 1.0, 2.0])
    best = 8 + 4 / np.log2(3) + 2 / 2 + 1 / np.log2(5)
    swapped = 4 + 8 / np.log2(3) + 2 / 2 + 1 / np.log2(5)
    assert ndcg(weights, top) == pytest.approx(swapped / best)
    assert ndcg(weights, top) < ndcg(weights, bottom) < 1.0


def test_ndcg_takes_columns_that_never_counted_for_equal() -> None:
    assert ndcg(np.array([1.0, 0.0, 0.0]), np.array([5.0, 0.0, 0.0])) == 1.0
    assert ndcg(np.zeros(3), np.zeros(3)) == 1.0


def test_a_shift_of_the_mean_is_judged_by_its_standard_error() -> None:
    assert mean_shift_p_value(1.96, 1.0) == pytest.approx(2 * stats.norm.sf(1.96))
    assert mean_shift_p_value(0.0, 0.0) == 1.0
    assert mean_shift_p_value(0.1, 0.0) == 0.0
