"""How alike the attributions of rows that are almost the same are."""

from dataclasses import dataclass

import numpy as np

from explainers.base import BoolArray, FloatArray, Values
from service.registry import RegisteredModel

NEIGHBOURS = 10
NOISE_SHARE = 0.05
"""Of a number column's standard deviation over the background."""

SWITCH_PROBABILITY = 0.05
"""That a category or boolean becomes that of a random background row."""

NUMERIC = frozenset({"number", "integer"})


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What neighbours of a row are made of: background (B, F), the smallest and largest numbers
    seen in training (F,), and which columns are numbers, and whole ones (F,).
    """

    background: FloatArray
    lows: FloatArray
    highs: FloatArray
    is_numeric: BoolArray
    is_whole: BoolArray

    @classmethod
    def of(cls, model: RegisteredModel) -> "Surroundings":
        """A version's."""
        columns, rows = model.schema.columns, model.background.rows
        return cls(
            rows,
            np.array(model.seen.lows),
            np.array(model.seen.highs),
            np.array([column.kind in NUMERIC for column in columns]),
            np.array([column.kind == "integer" for column in columns]),
        )


def neighbours_of(
    x: FloatArray, around: Surroundings, draws: np.random.Generator, count: int = NEIGHBOURS
) -> FloatArray:
    """Up to (count, F) rows near a row (F,), each different from it: Gaussian noise on numbers, of
    5 % of their spread in the background and within the range seen in training (or the row's own
    number beyond it); categories mostly kept. What is missing stays so.

    A row that came out the same has one random column of a background row instead, and is left out
    if that is the same too. Sources: Alvarez-Melis and Jaakkola 2018 (neighbours in input space);
    Agarwal et al. 2022, OpenXAI (noise of 0.05, categories flipped rarely).
    """
    shape = (count, len(x))
    noise = draws.standard_normal(shape) * NOISE_SHARE * _spread(around.background)
    moved = np.clip(x + noise, np.fmin(around.lows, x), np.fmax(around.highs, x))
    moved[:, around.is_whole] = np.rint(moved[:, around.is_whole])
    other = around.background[draws.integers(len(around.background), size=shape), np.arange(len(x))]
    is_switched = (draws.random(shape) < SWITCH_PROBABILITY) & ~np.isnan(x)
    near: FloatArray = np.where(around.is_numeric, moved, np.where(is_switched, other, x))
    for row, others in zip(near, other, strict=True):
        if not _differs(row, x) and (present := np.flatnonzero(~np.isnan(x))).size:
            column = draws.choice(present)
            row[column] = others[column]
    return near[[_differs(row, x) for row in near]]


def mean_cosine(values: Values, others: Values, floor: float) -> float:
    """Of a row's values (F, C) and those of its neighbours (K, F, C), all outputs as one vector.

    Vectors no longer than the floor have no direction: a neighbour's counts as 0, no likeness.
    """
    own, near = values.ravel(), others.reshape(len(others), -1)
    lengths = np.linalg.norm(near, axis=1)
    safe = np.where(lengths > floor, lengths, np.inf)
    return float(np.mean(near @ own / (safe * np.linalg.norm(own))))


def _spread(background: FloatArray) -> FloatArray:
    """(F,) standard deviations of what is not missing; 0 for a column that is all missing."""
    is_there = ~np.isnan(background)
    count = np.maximum(is_there.sum(axis=0), 1)
    mean = np.where(is_there, background, 0).sum(axis=0) / count
    squares = np.where(is_there, (background - mean) ** 2, 0).sum(axis=0)
    spread: FloatArray = np.sqrt(squares / count)
    return spread


def _differs(row: FloatArray, x: FloatArray) -> bool:
    return not np.array_equal(row, x, equal_nan=True)
