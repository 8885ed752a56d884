"""Orders of the columns in which every two of them are neighbours once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray
from explainers.sampled.calls import ModelCalls
from explainers.sampled.strata import StratifiedMean
from explainers.sampled.walks import differing, places_of


@dataclass(frozen=True, slots=True, eq=False)
class PairSample:
    """Of K columns: halves of the interactions (K * K, C), with a diagonal of zeros; main effects
    (K, C); and the values these add up to (K, C).
    """

    pairs: StratifiedMean
    main_effects: StratifiedMean
    values: StratifiedMean

    @property
    def matrix(self) -> tuple[FloatArray, FloatArray]:
        """(K, K, C) as `Interactions` lays them out, and their standard errors."""
        shape = (*2 * self.values.mean.shape[:1], self.values.mean.shape[1])
        matrix = self.pairs.mean.reshape(shape)
        errors = self.pairs.standard_error.reshape(shape)
        each = np.arange(len(matrix))
        matrix[each, each] = self.main_effects.mean
        errors[each, each] = self.main_effects.standard_error
        return matrix, errors


class PairWalks:
    """From each background row to row x, there and back, in blocks of orders of the K columns in
    which some background row differs from x.

    A block has K / 2 orders: the zigzags i, i + 1, i - 1, i + 2, ... around a circle of K places,
    of which every two places are neighbours exactly once, with the columns drawn onto the places
    (an odd K is made even by a place of no column). What two neighbours do together after the
    columns before them, and after those behind them, is a sample of their interaction, and a
    walk's steps are one of the columns' values; so a block samples all of the matrix. A pass is a
    block for each background row. Sources: Grabisch and Roubens 1999 (the index); Walecki's
    decomposition of the complete graph, Lucas 1892.
    """

    def __init__(self, x: FloatArray, background_rows: FloatArray, n_passes: int) -> None:
        differs = differing(x, background_rows)
        self.columns: IntArray = np.flatnonzero(differs.any(axis=0))
        self._differs = differs[:, self.columns]
        self._x = x
        self._background_rows = background_rows
        n_columns = len(self.columns)
        self._n_places = n_columns + n_columns % 2
        self._zigzags = _zigzags(self._n_places)
        self._passes = n_passes

    @property
    def model_rows(self) -> int:
        """Of all passes, and of x itself."""
        return pair_rows(len(self.columns), len(self._background_rows), self._passes)

    def sampled(self, seed: int, calls: ModelCalls, starts: FloatArray) -> PairSample:
        """Of one row, by all passes. starts (B, C): outputs of the background rows."""
        places = self._drawn(seed)
        end_row = self._x[None, :]
        outputs = calls.of(
            self.model_rows,
            lambda start, stop: np.concatenate(
                [end_row[start:], self._hybrids(places, max(start - 1, 0), stop - 1)]
            ),
        )
        end, walked = outputs[0], outputs[1:]
        lengths = self._differs.sum(axis=1)[:, None]
        both = self._differs[:, :, None] & self._differs[:, None, :]
        can_vary = self._differs & (lengths > 2)
        sample = PairSample(
            StratifiedMean((both & (lengths > 3)[..., None]).reshape(len(starts), -1), len(end)),
            StratifiedMean(can_vary, len(end)),
            StratifiedMean(can_vary, len(end)),
        )
        shape = (self._passes, len(starts), 2, 2, *self._steps, len(end))
        for place, reached in zip(places, walked.reshape(shape), strict=True):
            pairs, values = self._block(place, reached, starts, end)
            sample.pairs.add(pairs.reshape(len(starts), -1, len(end)))
            sample.main_effects.add(values - pairs.sum(axis=2))
            sample.values.add(values)
        return sample

    @property
    def _steps(self) -> tuple[int, int]:
        """Orders of a block, and the neighbours in each."""
        return len(self._zigzags), max(self._n_places - 1, 0)

    def _drawn(self, seed: int) -> IntArray:
        """(P, B, K / 2, K) each column's place in each order."""
        shape = (self._passes, len(self._background_rows), self._n_places)
        drawn = np.random.Philox(key=seed).random_raw(int(np.prod(shape)))
        return np.argsort(self._zigzags, axis=1).T[places_of(drawn.reshape(shape))].swapaxes(2, 3)

    def _hybrids(self, places: IntArray, start: int, stop: int) -> FloatArray:
        """(stop - start, F) of all passes laid end to end: for each background row the walks and
        their complements; of each the steps, and the steps with two neighbours exchanged.
        """
        orders, neighbours = self._steps
        shape = (self._passes, len(self._background_rows), 2, 2, orders, neighbours)
        number, row, is_complement, is_exchanged, order, step = np.unravel_index(
            np.arange(start, stop), shape
        )
        place = places[number, row, order]
        # Step k has passed k + 1 columns; exchanged, the last of these is the one after it.
        is_exchanged, step = is_exchanged[:, None].astype(np.bool_), step[:, None]
        last = place == step + is_exchanged
        is_before = ((place < step) | last)[:, : len(self.columns)]
        from_x = np.ones((stop - start, len(self._x)), dtype=np.bool_)
        from_x[:, self.columns] = is_before != is_complement[:, None].astype(np.bool_)
        return np.where(from_x, self._x, self._background_rows[row])

    def _block(
        self, places: IntArray, walked: FloatArray, starts: FloatArray, end: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """(B, K, K, C) pairs, with a diagonal of zeros, and (B, K, C) values of one pass.

        places (B, K / 2, K); walked (B, 2, 2, K / 2, K - 1, C) outputs.
        """
        n_columns = len(self.columns)
        orders, _ = self._steps
        ends = np.broadcast_to(end, starts.shape)
        first, last = (
            np.repeat(np.stack(pair, axis=1)[:, :, None, None], orders, axis=2)
            for pair in ((starts, ends), (ends, starts))
        )
        reached = np.concatenate([first, walked[:, :, 0], last], axis=3)
        level = reached.mean(axis=1)
        together = level[:, :, 2:] - level[:, :, 1:-1] + level[:, :, :-2]
        together -= walked[:, :, 1].mean(axis=1)
        steps = np.diff(reached[:, 0] - reached[:, 1], axis=2) / 2
        values = np.take_along_axis(steps, places[..., None], axis=2).mean(axis=1)[:, :n_columns]
        players = np.argsort(places, axis=2)
        pairs = np.zeros((len(starts), self._n_places, self._n_places, len(end)))
        which = np.arange(len(starts))[:, None, None]
        pairs[which, players[:, :, :-1], players[:, :, 1:]] = together / 2
        pairs += pairs.swapaxes(1, 2)
        pairs = pairs[:, :n_columns, :n_columns]
        # The outputs of equal rows of one call may differ in the last bit.
        pairs *= (self._differs[:, :, None] & self._differs[:, None, :])[..., None]
        return pairs, values * self._differs[..., None]


def pair_rows(n_columns: int, n_background_rows: int, n_passes: int) -> int:
    """Model rows of so many passes over columns that all vary, and of the row itself."""
    places = n_columns + n_columns % 2
    return n_passes * n_background_rows * 2 * places * max(places - 1, 0) + 1


def _zigzags(n_places: int) -> NDArray[np.int64]:
    """(n / 2, n) for even n: orders of a circle's places, every two neighbours in exactly one."""
    turns = np.arange(n_places)
    offsets = np.where(turns % 2 == 1, (turns + 1) // 2, -turns // 2)
    return (np.arange(n_places // 2)[:, None] + offsets) % max(n_places, 1)
