"""What a model that says little of itself shows when it is asked."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from service.models.errors import ModelLoadError

Probed = Callable[[FloatArray], FloatArray]
"""One raw row, (1, F), to what the model gives for it, (1, K); ValueError where it cannot."""

SUM_TOLERANCE = 1e-4


def first_answer(probed: Probed, n_columns: int) -> FloatArray:
    """(1, K) for a row of zeros; ModelLoadError when the model does not run."""
    try:
        return probed(np.zeros((1, n_columns)))
    except ValueError as error:
        raise ModelLoadError(f"the model does not run: {error}") from error


def check_rows(shape: Sequence[int], n_rows: int, *, giver: str) -> None:
    """ValueError unless so many rows can be told apart in a result of this shape.

    One row's result may have lost its first dimension, where the model squeezes it away.
    """
    is_squeezed = n_rows == 1 and len(shape) < 2
    if 0 in shape or (tuple(shape[:1]) != (n_rows,) and not is_squeezed):
        raise ValueError(f"{giver} gives {tuple(shape)} for {n_rows} rows")


def check_shares(first: FloatArray) -> None:
    """ModelLoadError unless the answer can be class probabilities: two or more that sum to one.

    A row of zeros may be none that the model was made for: where it gives NaN, this is no news.
    Registration asks the same of every row of the data.
    """
    is_silent = np.isnan(first).any() and not np.any((first < 0) | np.isinf(first))
    if first.shape[1] == 1 or not (is_silent or are_shares(first)[0]):
        raise ModelLoadError(
            "the model gives no class probabilities: those of a row must sum to one; export it "
            "with its softmax, and without raw scores"
        )


def are_shares(scores: FloatArray) -> NDArray[np.bool_]:
    """(N,) whether a row's scores, (N, K), are finite, not negative and sum to one."""
    with np.errstate(invalid="ignore"):
        is_one = np.abs(scores.sum(axis=1) - 1) <= SUM_TOLERANCE
    answer: NDArray[np.bool_] = is_one & np.all(scores >= 0, axis=1)
    return answer


def accepts_missing(has_nan: Sequence[bool], probed: Probed) -> tuple[bool, ...]:
    """By column, whether it may be NaN: its numbers have one, and the answer is finite."""
    count = len(has_nan)
    return tuple(has_nan[column] and _is_taken(column, count, probed) for column in range(count))


def _is_taken(column: int, n_columns: int, probed: Probed) -> bool:
    row = np.zeros((1, n_columns))
    row[0, column] = np.nan
    try:
        return bool(np.all(np.isfinite(probed(row))))
    except ValueError:
        return False
