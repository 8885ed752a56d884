"""Integrated gradients of a model whose gradient function is given. Not Shapley values."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainers.base import (
    FloatArray,
    MalformedModelError,
    Naming,
    OutputSpace,
    UnsupportedModelError,
    Values,
)
from explainers.sampled.calls import Evaluate, ModelCalls

Gradient = Callable[[FloatArray], FloatArray]
"""(N, F) raw rows to (N, F, C) derivatives of each output by each column."""

STEPS = 64


@dataclass(frozen=True, slots=True, eq=False)
class PathAttribution:
    """Attributions of N rows along the straight path from a baseline: (N, F, C), in output_space.

    baseline (F,). completeness_gap (N, C): the output less the baseline's output less the sum of
    the attributions, which is 0 but for the integration's error.
    """

    attributions: Values
    baseline: FloatArray
    completeness_gap: FloatArray
    steps: int
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    output_space: OutputSpace
    model_evaluations: int


def integrate_gradients(
    evaluate: Evaluate,
    gradient: Gradient,
    X: FloatArray,
    *,
    baseline: FloatArray,
    naming: Naming,
    steps: int = STEPS,
) -> PathAttribution:
    """Attribute each output of each row of X, (N, F), along the path from baseline, (F,).

    The integral is taken by Gauss-Legendre quadrature with so many steps: exact for models that
    are polynomials of degree 2 * steps along the path; the gap says what is missing for others.
    Every call has the shape of one row's path, so that no row's numbers depend on the rows beside
    it. Cost: steps gradients and 2 model rows a row.

    Raises UnsupportedModelError for rows or a baseline with missing cells, which no path joins,
    MalformedModelError for gradients of another shape, ValueError for a baseline of another shape
    or less than one step. Source: Sundararajan et al. 2017, section 3.
    """
    _check(X, baseline, len(naming.features), steps)
    attributions = np.empty((len(X), len(naming.features), len(naming.outputs)))
    gaps = np.empty((len(X), len(naming.outputs)))
    for i, x in enumerate(X):
        attributions[i] = _integrated(gradient, x, baseline, steps, len(naming.outputs))
        ends = ModelCalls(evaluate, len(naming.outputs), 2)(np.stack([x, baseline]))
        gaps[i] = ends[0] - ends[1] - attributions[i].sum(axis=0)
    return PathAttribution(
        attributions=attributions,
        baseline=baseline,
        completeness_gap=gaps,
        steps=steps,
        feature_names=naming.features,
        output_names=naming.outputs,
        output_space=naming.output_space,
        model_evaluations=len(X) * (steps + 2),
    )


def _check(X: FloatArray, baseline: FloatArray, n_columns: int, steps: int) -> None:
    if baseline.shape != (n_columns,) or steps < 1:
        raise ValueError(
            f"a baseline of {n_columns} columns and a step at least, "
            f"not {baseline.shape} and {steps}"
        )
    if np.isnan(X).any() or np.isnan(baseline).any():
        raise UnsupportedModelError("no path leads to or from a missing cell")


def _integrated(
    gradient: Gradient, x: FloatArray, baseline: FloatArray, steps: int, n_outputs: int
) -> FloatArray:
    """(F, C)."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    path = baseline + (nodes[:, None] + 1) / 2 * (x - baseline)
    slopes = gradient(path)
    expected = (steps, len(x), n_outputs)
    if slopes.shape != expected:
        raise MalformedModelError(f"the model gave {slopes.shape} gradients, not {expected}")
    mean: FloatArray = np.tensordot(weights / 2, slopes, axes=1)
    return (x - baseline)[:, None] * mean
