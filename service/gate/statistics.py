"""Figures that two versions are compared by. Pure: arrays in, numbers out."""

from statistics import NormalDist

import numpy as np

from explainers.base import FloatArray, IntArray, Values
from service.drift.statistics import psi as psi_of_counts

PSI_BINS = 10


def psi(old: FloatArray, new: FloatArray) -> float:
    """Population stability index of (N,) and (M,) numbers, over the deciles of the old ones.

    Cost: one sort.
    """
    edges = np.unique(np.quantile(old, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    before, after = (
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        for values in (old, new)
    )
    return psi_of_counts(before, after)


def shares_of(values: Values) -> FloatArray:
    """(F,) share of each column in the sum of mean |value| of (N, F, C); zeros where all is 0."""
    sizes = np.abs(values).mean(axis=0).sum(axis=1)
    total = float(sizes.sum())
    found: FloatArray = sizes / total if total > 0 else sizes
    return found


def spearman(old: FloatArray, new: FloatArray) -> float:
    """Rank correlation of two (F,) arrays; 1 where neither orders anything."""
    from scipy.stats import rankdata

    return correlation(rankdata(old), rankdata(new))


def correlation(old: FloatArray, new: FloatArray) -> float:
    """Pearson's, of two (N,) arrays: 1 where both are constant, 0 where one is."""
    a, b = old - old.mean(), new - new.mean()
    sizes = float(np.sqrt((a @ a) * (b @ b)))
    if sizes > 0:
        return float(a @ b) / sizes
    return float(not a.any() and not b.any())


def sign_agreement(old: Values, new: Values) -> float:
    """Share of the old attribution, by size, that points the same way in the new one."""
    sizes = np.abs(old)
    total = float(sizes.sum())
    return float(sizes[np.sign(old) == np.sign(new)].sum()) / total if total > 0 else 1.0


def z_of(alpha: float, n_tests: int) -> float:
    """Two-sided normal quantile at level alpha over so many tests (Bonferroni)."""
    return NormalDist().inv_cdf(1 - alpha / (2 * max(1, n_tests)))


def resampled(n_rows: int, count: int, seed: int) -> IntArray:
    """(count, n_rows) row numbers drawn with replacement."""
    drawn: IntArray = np.random.default_rng(seed).integers(n_rows, size=(count, n_rows))
    return drawn
