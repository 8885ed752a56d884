"""Figures of a tally with their standard errors, and how two of them differ."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from explainers.base import FloatArray
from service.performance.tally import (
    ABSOLUTE,
    COUNT,
    FORECAST,
    HITS,
    LOSS,
    LOSS_SQUARED,
    ROWS,
    SPREAD,
    Shape,
    Tally,
)

FEWEST_OF_A_CLASS = 10
"""Labelled instances of a class, and of all others, below which it has no AUC."""

WORSE_AUC = 0.05
WORSE_RMSE = 0.10
"""A fall of the AUC, and a rise of the RMSE as a share of the reference's, that is too much."""

RECOVERED = 0.5
"""The episode is over when the change is below this part of what began it."""

STANDARD_ERRORS = 2.0


class Estimate(NamedTuple):
    """A figure and its standard error, as if instances came independently of each other."""

    value: float
    standard_error: float


def figures(shape: Shape, tally: Tally) -> dict[str, Estimate]:
    """By name: of a classifier `auc`, `brier` and `calibration_error`, else `rmse` and `mae`.

    No `auc` where no class has ten instances and ten others.
    """
    if not tally[ROWS]:
        return {}
    if not shape.classes:
        return {"rmse": _rmse(tally), "mae": _mae(tally)}
    found = {"brier": _mean_loss(tally), "calibration_error": _calibration_error(shape, tally)}
    by_class = aucs(shape, tally)
    return found | ({"auc": _macro(list(by_class.values()))} if by_class else {})


def aucs(shape: Shape, tally: Tally) -> dict[str, Estimate]:
    """Of each ranked class against the rest."""
    counts = zip(shape.ranked, shape.scores(tally), strict=True)
    return {
        name: _auc(own, others)
        for name, (others, own) in counts
        if min(own.sum(), others.sum()) >= FEWEST_OF_A_CLASS
    }


@dataclass(frozen=True, slots=True)
class Change:
    """A version's leading figure by now and as it was. worse: the fall of an AUC, the rise of an
    RMSE as a share of it.
    """

    measure: str
    before: Estimate
    after: Estimate
    worse: float
    standard_error: float

    @property
    def limit(self) -> float:
        """How much worse is too much."""
        return WORSE_AUC if self.measure == "auc" else WORSE_RMSE

    @property
    def is_alarm(self) -> bool:
        """Too much, and more than two standard errors: beyond noise."""
        return self.worse > self.limit and self.worse > STANDARD_ERRORS * self.standard_error

    @property
    def is_over(self) -> bool:
        """So much better again that an alarm ends; between the two nothing changes."""
        return self.worse < RECOVERED * self.limit


def change(shape: Shape, before: Tally, after: Tally) -> Change | None:
    """None where either has no leading figure. Of several classes those count that both have."""
    if not shape.classes:
        return _rmse_change(before, after) if before[ROWS] and after[ROWS] else None
    then, now = aucs(shape, before), aucs(shape, after)
    both = [name for name in then if name in now]
    if not both:
        return None
    first, last = _macro([then[name] for name in both]), _macro([now[name] for name in both])
    noise = math.hypot(first.standard_error, last.standard_error)
    return Change("auc", first, last, first.value - last.value, noise)


def _rmse_change(before: Tally, after: Tally) -> Change | None:
    first, last = _rmse(before), _rmse(after)
    if first.value == 0:
        return None
    ratio = last.value / first.value
    noise = math.hypot(last.standard_error, ratio * first.standard_error) / first.value
    return Change("rmse", first, last, ratio - 1, noise)


def _auc(own: FloatArray, others: FloatArray) -> Estimate:
    """Source: DeLong et al. 1988, on bins: instances of one bin are ties, which count half."""
    m, n = own.sum(), others.sum()
    above_others = (np.cumsum(others) - others / 2) / n
    below_own = (m - np.cumsum(own) + own / 2) / m
    value = float(own @ above_others / m)
    spread_own = own @ (above_others - value) ** 2 / (m - 1)
    spread_others = others @ (below_own - value) ** 2 / (n - 1)
    return Estimate(value, math.sqrt(spread_own / m + spread_others / n))


def _macro(each: list[Estimate]) -> Estimate:
    """The mean. Its standard error is at most the mean of theirs, however they hang together."""
    values, errors = zip(*each, strict=True)
    return Estimate(float(np.mean(values)), float(np.mean(errors)))


def _mean(total: float, total_of_squares: float, rows: float) -> Estimate:
    mean = total / rows
    variance = max(0.0, total_of_squares / rows - mean**2)
    return Estimate(float(mean), math.sqrt(variance / rows))


def _mean_loss(tally: Tally) -> Estimate:
    return _mean(tally[LOSS], tally[LOSS_SQUARED], tally[ROWS])


def _rmse(tally: Tally) -> Estimate:
    """By the delta method: sd(e^2) / (2 rmse sqrt(n))."""
    squared = _mean_loss(tally)
    value = math.sqrt(squared.value)
    return Estimate(value, squared.standard_error / (2 * value) if value else 0.0)


def _mae(tally: Tally) -> Estimate:
    return _mean(tally[ABSOLUTE], tally[LOSS], tally[ROWS])


def _calibration_error(shape: Shape, tally: Tally) -> Estimate:
    """Mean over instances of |mean forecast - share that came true| of their bin.

    Source: Naeini et al. 2015. It is biased upwards by noise: about its standard error and more.
    """
    bins, rows = shape.calibration(tally), tally[ROWS]
    total = float(np.abs(bins[:, FORECAST] - bins[:, HITS]).sum())
    return Estimate(total / rows, math.sqrt(sum(_spreads(bins))) / rows)


def _spreads(bins: FloatArray) -> Iterator[float]:
    """Per bin the variance of the sum of its gaps."""
    for one in bins:
        if one[COUNT]:
            yield max(0.0, float(one[SPREAD] - (one[FORECAST] - one[HITS]) ** 2 / one[COUNT]))
