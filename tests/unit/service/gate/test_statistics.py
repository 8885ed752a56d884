"""The figures of a comparison against their definitions and other libraries."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score, roc_auc_score

from service.drift.statistics import ndcg
from service.gate.statistics import (
    correlation,
    psi,
    shares_of,
    sign_agreement,
    spearman,
    z_of,
)
from service.registry.fit import auc

RNG = np.random.default_rng(5)


def test_psi_is_nothing_for_the_same_numbers_and_grows_with_a_shift() -> None:
    numbers = RNG.normal(size=2000)
    assert psi(numbers, numbers) == 0
    shifts = [psi(numbers, numbers + shift) for shift in (0.1, 0.3, 1.0)]
    assert shifts == sorted(shifts)
    assert shifts[-1] > 0.25


def test_psi_under_no_drift_has_the_mean_of_its_null() -> None:
    """(B - 1)(1/n + 1/m)."""
    n, m = 1000, 500
    found = [psi(RNG.normal(size=n), RNG.normal(size=m)) for _ in range(300)]
    assert np.mean(found) == pytest.approx(9 * (1 / n + 1 / m), rel=0.2)


def test_rank_figures_are_those_of_scipy_and_scikit_learn() -> None:
    old, new = RNG.random(12), RNG.random(12)
    assert spearman(old, new) == pytest.approx(stats.spearmanr(old, new).statistic)
    assert ndcg(old, new) == pytest.approx(ndcg_score([old], [new]))
    assert ndcg(old, old) == pytest.approx(1)
    assert correlation(old, new) == pytest.approx(np.corrcoef(old, new)[0, 1])


def test_constants_agree_with_constants_only() -> None:
    assert correlation(np.ones(4), np.zeros(4)) == 1
    assert correlation(np.ones(4), np.arange(4.0)) == 0


def test_auc_is_scikit_learns_ties_included() -> None:
    positive = RNG.random(200) < 0.3
    scores = np.round(RNG.random(200) + positive * 0.3, 1)
    assert auc(positive, scores) == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(auc(np.ones(3, dtype=bool), np.arange(3.0)))


def test_attribution_figures_follow_their_definitions() -> None:
    values = np.array([[[1.0], [-3.0]], [[1.0], [3.0]]])
    assert shares_of(values).tolist() == [0.25, 0.75]
    assert shares_of(values * 0).tolist() == [0.0, 0.0]
    other = values.copy()
    other[0, 1] = 3.0
    assert sign_agreement(values, other) == pytest.approx(5 / 8)


def test_more_tests_take_a_larger_deviation() -> None:
    assert z_of(0.05, 1) == pytest.approx(1.96, abs=0.001)
    assert z_of(0.05, 100) > 3.4
