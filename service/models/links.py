"""Links in the libraries' own arithmetic: the C library's exp in float64, whose last bits numpy's
does not share. They save the second pass over the trees where they are proven.
"""

import math
from collections.abc import Callable

import numpy as np

from explainers.base import FloatArray, Link

MarginLink = Callable[[FloatArray], FloatArray]
"""From margins (N, K) to values of the same shape."""

PROOF_MARGINS = 4096
FEWEST_PROOF_ROWS = 64
LARGEST_MARGIN = 100.0


def c_link(link: Link) -> MarginLink | None:
    """The link as C++ code computes it with std::exp, None where there is nothing to compute."""
    return {"logit": logistic, "log": exponential, "softmax": softmax}.get(link)


def proof_margins(n_outputs: int) -> FloatArray:
    """(N, n_outputs) about PROOF_MARGINS margins, dense around zero and out to LARGEST_MARGIN."""
    n_rows = max(PROOF_MARGINS // n_outputs, FEWEST_PROOF_ROWS)
    ends = np.geomspace(1e-3, LARGEST_MARGIN, n_rows)
    return np.random.default_rng(0).uniform(-1.0, 1.0, (n_rows, n_outputs)) * ends[:, None]


def logistic(margins: FloatArray) -> FloatArray:
    """1 / (1 + exp(-m))."""
    from scipy.special import expit

    values: FloatArray = expit(margins)
    return values


def exponential(margins: FloatArray) -> FloatArray:
    """exp(m), infinite where it overflows."""
    values = [_exp(margin) for margin in margins.ravel().tolist()]
    return np.array(values).reshape(margins.shape)


def softmax(margins: FloatArray) -> FloatArray:
    """exp(m - max) over their sum, added class by class."""
    shares = exponential(margins - margins.max(axis=1, keepdims=True))
    return shares / np.add.accumulate(shares, axis=1)[:, -1:]


def _exp(margin: float) -> float:
    try:
        return math.exp(margin)
    except OverflowError:
        return math.inf
