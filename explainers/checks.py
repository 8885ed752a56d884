"""Invariants every answer is held to. Each returns one entry per row, and none lets NaN pass."""

import numpy as np
from numpy.typing import NDArray

from explainers.base import Explanation, FloatArray, IntArray, Link, Values


def additivity_error(explanation: Explanation, *, output_scale: FloatArray) -> FloatArray:
    """(N,) largest gap over the outputs between base + sum of values and the served output.

    Relative to the largest of |output|, |base| + sum |values| and output_scale (C,), the standard
    deviation of the outputs over the background: an absolute floor would pass all-zero values of
    a model with small outputs. inf where anything is not finite.
    """
    outputs = explanation.outputs
    if outputs is None:
        raise ValueError("the explanation carries no served outputs to be checked against")
    values, base = explanation.values, explanation.base_values
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(base + values.sum(axis=1) - outputs)
        size = np.abs(base) + np.abs(values).sum(axis=1)
        scale = np.maximum(np.maximum(np.abs(outputs), size), output_scale)
    return _worst(gap, scale)


def link_error(outputs: FloatArray, scores: FloatArray, link: Link) -> FloatArray:
    """(N,) largest gap between the inverse link of outputs (N, C) and served scores (N, K).

    Absolute for probabilities (K >= 2), relative for a single score. inf where not finite.
    """
    expected = _inverse_link(outputs, link)
    if expected.shape[1] == 1 and scores.shape[1] == 2:
        expected = np.column_stack([1.0 - expected, expected])
    if expected.shape != scores.shape:
        raise ValueError(f"outputs give scores {expected.shape}, but served were {scores.shape}")
    with np.errstate(invalid="ignore"):
        gap = np.abs(expected - scores)
    if scores.shape[1] == 1:
        scale = np.maximum(np.abs(expected), np.abs(scores))
    else:
        scale = np.ones_like(gap)
    return _worst(gap, scale)


def dummy_violations(values: Values, unused_columns: IntArray) -> NDArray[np.bool_]:
    """(N,) whether a column the model never reads got anything but exactly 0."""
    violated: NDArray[np.bool_] = (values[:, unused_columns] != 0).any(axis=(1, 2))
    return violated


def all_finite(explanation: Explanation) -> NDArray[np.bool_]:
    """(N,) whether all numbers of a row's explanation are finite."""
    finite = np.ones(len(explanation.values), dtype=np.bool_)
    for part in (
        explanation.values,
        explanation.base_values,
        explanation.outputs,
        explanation.standard_errors,
    ):
        if part is not None:
            finite &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    return finite


def _worst(gap: FloatArray, scale: FloatArray) -> FloatArray:
    # An infinite scale would make any gap vanish; a gap of 0 needs no scale.
    usable = np.isfinite(gap) & np.isfinite(scale)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(gap == 0, 0.0, gap / scale)
    worst: FloatArray = np.where(usable, ratio, np.inf).max(axis=1)
    return worst


def _inverse_link(outputs: FloatArray, link: Link) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):
        if link == "logit":
            return 1.0 / (1.0 + np.exp(-outputs))
        if link == "softmax":
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
            return shares
        if link == "log":
            return np.exp(outputs)
    return outputs
