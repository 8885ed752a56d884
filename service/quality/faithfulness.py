"""How well attributions foretell what the output loses when columns are taken away."""

from collections.abc import Callable
from itertools import product

import numpy as np

from explainers.base import BoolArray, FloatArray

SUBSETS = 64
MOST_ENUMERATED = 6
"""Columns: all 64 subsets of so many are looked at, instead of a sample of them."""

SUBSETS_AT_ONCE = 8


def subsets_of(n_columns: int, draws: np.random.Generator) -> BoolArray:
    """(S, F) columns to take away: every subset of up to 6 columns, of more 64 random ones of half
    the columns each. All have one size because sums grow with it: subsets of several sizes
    correlate even for values in the wrong order.
    """
    if n_columns <= MOST_ENUMERATED:
        return np.array(list(product((False, True), repeat=n_columns)), dtype=np.bool_)
    taken = np.zeros((SUBSETS, n_columns), dtype=np.bool_)
    for subset in taken:
        subset[draws.choice(n_columns, n_columns // 2, replace=False)] = True
    return taken


def drops(
    evaluate: Callable[[FloatArray], FloatArray],
    x: FloatArray,
    outputs: FloatArray,
    background: FloatArray,
    subsets: BoolArray,
    *,
    beat: Callable[[], None],
) -> FloatArray:
    """(S, C) what the served outputs (C,) of a row (F,) lose without each of (S, F) subsets: the
    columns are the background's, (B, F), and the outputs averaged over its rows, as interventional
    Shapley values understand absence.

    beat: called between model calls; what it raises ends this. Cost: S * B model rows.
    """
    found = []
    for start in range(0, len(subsets), SUBSETS_AT_ONCE):
        beat()
        taken = subsets[start : start + SUBSETS_AT_ONCE]
        rows = np.where(taken[:, None, :], background[None], x)
        left = evaluate(rows.reshape(-1, len(x))).reshape(len(taken), len(background), -1)
        found.append(outputs - left.mean(axis=1))
    return np.concatenate(found)


def correlation(summed: FloatArray, dropped: FloatArray) -> float:
    """Pearson's, of (S, C) sums of values and the drops they foretell; outputs are centred apart
    and weigh by how much they vary, so one that hardly does cannot spoil the others'.

    NaN where either does not vary at all. Source: Bhatt, Weller and Moura 2020, definition 3.
    """
    summed, dropped = summed - summed.mean(axis=0), dropped - dropped.mean(axis=0)
    scale = float(np.linalg.norm(summed) * np.linalg.norm(dropped))
    return float((summed * dropped).sum() / scale) if scale > 0 else float("nan")
