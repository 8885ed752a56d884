"""How far two distributions over the same cells are apart, and how far chance takes them."""

import math

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray

Counts = NDArray[np.int64]
"""Rows in each cell, (B,)."""

HALF = 0.5
"""Added to each cell (Jeffreys): an empty one would make the index infinite."""

FEWEST_EXPECTED = 5.0
"""Rows of a cell below which the chi-square approximation fails: such cells are joined."""

_TINY = 1e-300
_ROUNDS = 10_000


def joined(before: Counts, after: Counts) -> tuple[Counts, Counts]:
    """The same counts with all cells that `before` makes rare as one last cell.

    Rare: fewer than five rows expected on either side. Cells that are empty on both are left out.
    """
    m, n = int(before.sum()), int(after.sum())
    expected = before * min(1.0, n / m) if m else np.zeros(len(before))
    is_rare = expected < FEWEST_EXPECTED
    cells = [
        np.append(counts[~is_rare], counts[is_rare].sum()).astype(np.int64)
        for counts in (before, after)
    ]
    is_used = (cells[0] + cells[1]) > 0
    return cells[0][is_used], cells[1][is_used]


def psi(before: Counts, after: Counts) -> float:
    """Population stability index: sum of (q - p) ln(q / p) over the cells' shares.

    Half a row is added to each cell. 0 for equal shares; by convention 0.1 is noticeable and 0.25
    large. Source: Lewis 1994; Yurdakul 2018.
    """
    p = (before + HALF) / (before.sum() + HALF * len(before))
    q = (after + HALF) / (after.sum() + HALF * len(after))
    return float(np.sum((q - p) * np.log(q / p)))


def psi_expected(cells: int, m: int, n: int) -> float:
    """The mean of the index over samples of m and n rows of one distribution."""
    return (cells - 1) * (1 / m + 1 / n)


def psi_p_value(value: float, cells: int, m: int, n: int) -> float:
    """How often chance alone gives such an index: it is (1/m + 1/n) times a chi-square variable
    of cells - 1 degrees of freedom. Source: Yurdakul 2018, Statistical properties of PSI.
    """
    if cells < 2:
        return 1.0
    return chi_square_tail(value / (1 / m + 1 / n), cells - 1)


def ks_statistic(before: Counts, after: Counts) -> float:
    """Largest distance of the two distribution functions, looked at where the cells end."""
    if not before.sum() or not after.sum():
        return 0.0
    gaps = np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()
    return float(np.abs(gaps).max())


def ndcg(before: FloatArray, after: FloatArray) -> float:
    """How well the order of `after` serves the weights of `before`, both (F,) and not negative.

    1 for the same order; what stands first counts most. Blind to a change that keeps the order.
    Source: Järvelin and Kekäläinen 2002.
    """
    discounts = 1 / np.log2(np.arange(len(before)) + 2)
    # Of equals the weightier first: a column that never counted has no place to lose.
    order = np.lexsort((-before, -after))
    best = float(np.sort(before)[::-1] @ discounts)
    return float(before[order] @ discounts) / best if best > 0 else 1.0


def mean_shift_p_value(shift: float, standard_error: float) -> float:
    """How often chance moves a mean so far, either way; 0 for a shift of what never varied."""
    if shift == 0.0:
        return 1.0
    if standard_error == 0.0:
        return 0.0
    return math.erfc(abs(shift) / standard_error / math.sqrt(2))


def chi_square_tail(x: float, degrees: int) -> float:
    """P(a chi-square variable > x). Relative error below 1e-9 where it is above 1e-200.

    Source: Abramowitz and Stegun 6.5.29 (series) and 6.5.31 (continued fraction).
    """
    a, z = degrees / 2, x / 2
    if z <= 0:
        return 1.0
    scale = math.exp(max(-700.0, a * math.log(z) - z - math.lgamma(a)))
    return 1.0 - scale * _series(a, z) if z < a + 1 else scale * _fraction(a, z)


def _series(a: float, z: float) -> float:
    total = term = 1 / a
    for k in range(1, _ROUNDS):
        term *= z / (a + k)
        total += term
        if term < total * 1e-16:
            break
    return total


def _fraction(a: float, z: float) -> float:
    """Lentz's way from the front, so that it ends when it is exact enough."""
    b = z + 1 - a
    c, d = 1 / _TINY, 1 / b
    h = d
    for k in range(1, _ROUNDS):
        weight = -k * (k - a)
        b += 2
        d = 1 / (_kept(weight * d + b))
        c = _kept(b + weight / c)
        h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return h


def _kept(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
