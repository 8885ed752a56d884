"""Means of a stratified sample, and how far they may be off."""

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray

NORMAL_QUANTILE = 1.959963984540054
"""97.5 % of a normal distribution lie below."""

MISSED = 5.0
"""How often a jump was to be met that never was. With 2, single values of trees lay 7 standard
errors off; with 8, a background of one row covers 98 %.
"""

LEAST_PAIRS = 32
"""Drawn from all strata together, at least: the standard error is a sample's too."""


class StratifiedMean:
    """The mean over B strata of equal weight of F columns' gains, each sampled once a pass.

    can_vary: (B, F) where the sample may differ from pass to pass. rounding and jump (C,): gains
    that differ by less do not vary, and how large a jump may be where none was seen. The strata's
    sample means and squared deviations are kept up pass by pass (Welford 1962).
    """

    def __init__(
        self,
        can_vary: NDArray[np.bool_],
        n_outputs: int,
        *,
        rounding: FloatArray | float = 0.0,
        jump: FloatArray | float = 0.0,
    ) -> None:
        self.passes = 0
        self._rounding = rounding
        self._jump = jump
        self._can_vary = can_vary
        self._means = np.zeros((*can_vary.shape, n_outputs))
        self._squares = np.zeros_like(self._means)

    def add(self, sample: FloatArray) -> None:
        """Add one pass: a sample of every stratum, (B, F, C)."""
        self.passes += 1
        gap = sample - self._means
        self._means += gap / self.passes
        self._squares += gap * (sample - self._means)

    @property
    def mean(self) -> FloatArray:
        """(F, C) the estimate."""
        mean: FloatArray = self._means.mean(axis=0)
        return mean

    @property
    def is_flat(self) -> NDArray[np.bool_]:
        """(C,) where no column varied although some can: its gains are the same in every order, or
        what makes them differ was missed.
        """
        varied = self._squares.max(axis=(0, 1), initial=0.0)
        flat: NDArray[np.bool_] = varied <= self.passes * np.square(self._rounding)
        return flat & self._can_vary.any()

    @property
    def standard_error(self) -> FloatArray:
        """(F, C) so that 1.96 of it to each side cover 95 %; of two passes at least.

        Passes are independent, so a stratum's variance is its sample's over all passes, and the
        mean's is their sum over B squared passes. A sample may know little of its own variance, so
        that is widened twice. Where it rests on few degrees of freedom (Satterthwaite 1946), such
        as of a column in which few background rows differ, by what Student's quantile is larger
        than the normal one. And a column may have a jump that few orders show and none of those
        drawn did: one to be met MISSED times in all passes is missed by chance once in 150
        samples. So no column that can vary has less than the variance of such jumps in one
        stratum, as large as what the most varying stratum of all columns shows. Where nothing
        varied at all, such a jump is as large as `jump`, and met MISSED times in all strata.
        """
        squares = self._squares.sum(axis=0)
        concentration = np.square(self._squares).sum(axis=0)
        can_vary = np.any(self._can_vary, axis=0, keepdims=True).T
        missed = min(1.0, MISSED / self.passes) * self._squares.max(axis=(0, 1)) * can_vary
        freedom = self.passes - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            effective = np.where(concentration > 0, freedom * squares**2 / concentration, freedom)
        error = np.sqrt(np.maximum(squares, missed) / (freedom * self.passes)) / len(self._squares)
        widened: FloatArray = error * student_quantile(effective) / NORMAL_QUANTILE
        unseen = np.sqrt(MISSED) * self._jump / (self.passes * len(self._squares))
        floor = np.where(self.is_flat, unseen, 0.0) * can_vary
        floored: FloatArray = np.maximum(widened, floor)
        return floored


def student_quantile(freedom: FloatArray) -> FloatArray:
    """97.5 % of Student's distribution lie below; within 0.8 % from 3 degrees of freedom.

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    x = NORMAL_QUANTILE
    first = (x**3 + x) / 4
    second = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    third = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    quantile: FloatArray = x + (first + (second + third / freedom) / freedom) / freedom
    return quantile
