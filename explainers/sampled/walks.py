"""The hybrids of one row and its background rows, in the orders that were drawn."""

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray


def differing(x: FloatArray, background_rows: FloatArray) -> NDArray[np.bool_]:
    """(B, F) where a background row's cell is not the row's; missing equals missing."""
    both_missing = np.isnan(x) & np.isnan(background_rows)
    unequal: NDArray[np.bool_] = (x != background_rows) & ~both_missing
    return unequal


def places_of(keys: NDArray[np.uint64]) -> IntArray:
    """(..., F) each key's place among those of the last axis."""
    places: IntArray = keys.argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable")
    return places


class Walks:
    """From each background row to row x, one differing column at a time, there and back.

    A pass has one pair of walks for each background row: forward in a drawn order of the columns,
    and in the reverse of that order. The hybrid after `step` columns of the second is the forward
    walk's complement after d - step, so a pair's hybrids are (forward at step, its complement)
    for step 1 to d - 1, d being the number of columns in which the two rows differ; both walks
    begin and end at rows whose outputs are known already. Equal columns are not walked: they cost
    nothing, and gain exactly 0.
    """

    def __init__(self, x: FloatArray, background_rows: FloatArray) -> None:
        self._x = x
        self._background_rows = background_rows
        self._differs = differing(x, background_rows)
        self._lengths: IntArray = self._differs.sum(axis=1)
        steps = np.maximum(self._lengths - 1, 0)
        self._row: IntArray = np.repeat(np.arange(len(steps)), steps)
        first = np.repeat(np.cumsum(steps) - steps, steps)
        self._step: IntArray = np.arange(len(first)) - first + 1

    @property
    def hybrids_per_pass(self) -> int:
        """Model rows of one pass; 0 where no order matters."""
        return 2 * len(self._row)

    @property
    def can_vary(self) -> NDArray[np.bool_]:
        """(B, F) where a column's gain may depend on the order: the pair takes both of two."""
        order_matters = self._lengths > 2
        found: NDArray[np.bool_] = self._differs & order_matters[:, None]
        return found

    def places(self, draws: NDArray[np.uint64]) -> IntArray:
        """(P, B, F) each column's place in the drawn order, equal columns behind the others.

        draws (P, B, F): random 64-bit numbers, a column's place being that of its number.
        """
        halved = draws >> np.uint64(1)
        behind = np.where(self._differs, np.uint64(0), np.uint64(1 << 63))
        return places_of(halved | behind)

    def hybrids(self, places: IntArray, start: int, stop: int) -> FloatArray:
        """(stop - start, F) of the hybrids of all passes laid end to end."""
        number, within = np.divmod(np.arange(start, stop), self.hybrids_per_pass)
        is_complement, which = np.divmod(within, len(self._row))
        rows = self._row[which]
        is_before = places[number, rows] < self._step[which, None]
        from_x = is_before != is_complement[:, None].astype(np.bool_)
        return np.where(from_x, self._x, self._background_rows[rows])

    def gains(
        self, places: IntArray, hybrids: FloatArray, starts: FloatArray, end: FloatArray
    ) -> FloatArray:
        """(B, F, C) what each column gains in one pass, mean of both walks.

        places (B, F); hybrids (hybrids_per_pass, C) outputs; starts (B, C) outputs of the
        background rows; end (C,) the output of row x.
        """
        whole = end - starts
        # What the forward walk has reached, less what its complement has: half of a step's change
        # is the mean gain of the two walks.
        reached = np.repeat(whole[:, None, :], places.shape[1] + 1, axis=1)
        reached[self._lengths > 0, 0] *= -1
        forward, complement = hybrids.reshape(2, len(self._row), len(end))
        reached[self._row, self._step] = forward - complement
        steps = np.diff(reached, axis=1) / 2
        gained: FloatArray = np.take_along_axis(steps, places[:, :, None], axis=1)
        return gained
