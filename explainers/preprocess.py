"""From raw rows to the columns a fitted scikit-learn pipeline feeds its model, and whose they are.

Each derived column must be made from one raw column: only then are the one-hot dummies, scaled
copies and missing flags of a column one player, and attributions of raw columns exact.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import (
    Derivation,
    FloatArray,
    IntArray,
    Level,
    MalformedModelError,
    RawColumns,
    UnsupportedModelError,
)
from explainers.steps import trace_steps

UNSEEN_TEXT = "\x00unseen"
"""Stands for a text level no training data has."""

SPECIAL_SHARE = 0.2
"""Share of the rows in which confirm_players puts each special code."""


def decode_frame(
    X: FloatArray, columns: RawColumns, *, none_is_missing: Collection[int] = ()
) -> Any:  # noqa: ANN401
    """The pandas.DataFrame whose coded form is X.

    Text and bool levels become object columns, numeric levels and numbers float64. The code -1
    becomes a level beyond all known ones; missing becomes np.nan, or None in the columns (by
    number) of none_is_missing, which are then object columns too.
    """
    import pandas as pd

    names = _labels(columns.names)
    if not none_is_missing and all(levels is None for levels in columns.levels):
        # A fifth of the cost, and in memory as columns put together are: one after the other.
        return pd.DataFrame(np.array(X, order="F"), columns=names)
    series, rows = {}, pd.RangeIndex(len(X))
    for index, (name, levels) in enumerate(zip(columns.names, columns.levels, strict=True)):
        decoded = _decode_column(X[:, index], levels, none=index in none_is_missing)
        series[name] = pd.Series(decoded, index=rows, dtype=decoded.dtype, copy=False)
    return pd.DataFrame(series, index=rows, copy=True)


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...]) -> Any:  # noqa: ANN401
    import pandas as pd

    return pd.Index(names)


def unseen_level(levels: tuple[Level, ...]) -> Level:
    """A level of the same kind as the levels and equal to none of them."""
    if not levels or any(isinstance(level, str) for level in levels):
        return UNSEEN_TEXT
    return max(float(level) for level in levels) + 1.0


class PreparedFrame:
    """Runs fitted steps on decoded raw rows and hands back what the library's model would get."""

    def __init__(self, steps: Any, columns: RawColumns) -> None:  # noqa: ANN401
        self.trace = trace_steps(steps, len(columns))
        self._steps = steps
        self._columns = columns
        self._is_named = input_names(steps) is not None

    def __call__(self, X: FloatArray) -> Any:  # noqa: ANN401
        """The steps' own output, dense or sparse, for (N, F) raw rows."""
        frame = decode_frame(X, self._columns, none_is_missing=self.trace.none_is_missing)
        return self._steps.transform(frame if self._is_named else frame.to_numpy())


class PipelineDerivation:
    """The derived columns of a fitted transformer, pipeline or column transformer.

    absent is what the model reads where a sparse output stores nothing. Raises
    UnsupportedModelError when a derived column may be made from several raw columns.
    """

    players: IntArray

    def __init__(self, steps: object, columns: RawColumns, *, absent: float = 0.0) -> None:
        self.matrix = PreparedFrame(steps, columns)
        self.trace = self.matrix.trace
        self.absent = absent
        self.players = self.trace.players
        if self.trace.refusals:
            raise UnsupportedModelError("; ".join(self.trace.refusals))

    def __call__(self, X: FloatArray) -> FloatArray:
        """(N, F) raw rows to (N, P) derived rows."""
        return self.dense(self.matrix(X))

    def dense(self, matrix: Any) -> FloatArray:  # noqa: ANN401
        """The derived rows in the steps' own output, as `matrix` makes it of raw rows."""
        derived = dense(matrix, absent=self.absent)
        if derived.shape[1] != len(self.players):
            raise MalformedModelError(
                f"the steps make {derived.shape[1]} columns, their fitted state says "
                f"{len(self.players)}"
            )
        return derived


def input_names(steps: object) -> tuple[str, ...] | None:
    """The columns a fitted estimator or transformer expects by name, None when by position."""
    names = getattr(steps, "feature_names_in_", None)
    return None if names is None else tuple(str(name) for name in names)


def is_sparse(matrix: object) -> bool:
    """Whether a library's matrix leaves out what is not stored."""
    if isinstance(matrix, np.ndarray):
        return False
    from scipy.sparse import issparse

    return bool(issparse(matrix))


def dense(matrix: Any, *, absent: float = 0.0) -> FloatArray:  # noqa: ANN401
    """A library's matrix as (N, P) float64, with `absent` where a sparse one stores nothing."""
    if not is_sparse(matrix):
        return np.ascontiguousarray(matrix, dtype=np.float64)
    stored = matrix.tocoo()
    filled = np.full(stored.shape, absent)
    filled[stored.row, stored.col] = stored.data
    return filled


@dataclass(frozen=True, slots=True)
class Reach:
    """For each raw column, whether it may be missing, and whether it may hold an unseen level."""

    missing: tuple[bool, ...]
    unseen: tuple[bool, ...]


def confirm_players(
    derivation: Derivation,
    rows: FloatArray,
    rng: np.random.Generator,
    *,
    reach: Reach | None = None,
) -> None:
    """Check the player map by moving one raw column at a time, and that rows stand alone.

    rows: (N, F) valid raw rows; missing and unseen are tried as well where reach allows them.
    Raises UnsupportedModelError when a derived column moves that belongs to another raw column.
    Cost: F + 2 derivations.
    """
    base = derivation(rows)
    if base.shape[1] != len(derivation.players):
        raise UnsupportedModelError(
            f"{base.shape[1]} derived columns but {len(derivation.players)} players"
        )
    if not same_values(base[:1], derivation(rows[:1])).all():
        raise UnsupportedModelError("a derived row depends on the rows beside it")
    for column in range(rows.shape[1]):
        swapped = rows.copy()
        swapped[:, column] = _moved(rows[:, column], rng, specials=_specials(column, reach))
        moved = ~same_values(base, derivation(swapped)).all(axis=0)
        strangers = np.flatnonzero(moved & (derivation.players != column))
        if len(strangers):
            raise UnsupportedModelError(
                f"raw column {column} moves derived column {strangers[0]}, "
                f"which belongs to raw column {derivation.players[strangers[0]]}"
            )


def _specials(column: int, reach: Reach | None) -> list[float]:
    if reach is None:
        return []
    return [np.nan] * reach.missing[column] + [-1.0] * reach.unseen[column]


def _moved(values: FloatArray, rng: np.random.Generator, *, specials: list[float]) -> FloatArray:
    moved = rng.permutation(values)
    for special in specials:
        moved[rng.random(len(moved)) < SPECIAL_SHARE] = special
    return moved


def same_values(left: FloatArray, right: FloatArray) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _decode_column(
    codes: FloatArray, levels: tuple[Level, ...] | None, *, none: bool
) -> NDArray[Any]:
    missing = np.isnan(codes)
    if levels is None:
        decoded = codes.astype(object) if none else codes.copy()
    else:
        is_number = all(isinstance(level, int | float) for level in levels)
        is_object = none or not is_number or any(isinstance(level, bool) for level in levels)
        table = np.empty(len(levels) + 1, dtype=object if is_object else np.float64)
        table[:-1] = levels
        table[-1] = unseen_level(levels)
        position = np.where(missing | (codes < 0), len(levels), codes)
        decoded = table[position.astype(np.intp)]
    decoded[missing] = None if none else np.nan
    return decoded
