"""The question: whose row, what it must reach, and what may change on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from explainers.base import FloatArray
from explainers.counterfactual.constraints import ColumnRule
from explainers.counterfactual.evaluating import Mask, Score, States

DEFAULT_ROWS = 20_000

ROWS_AT_ONCE = 2048
"""That are made before it is seen which of them are wanted: what bounds memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A row (F,) that does not reach the target, and F rules in the order of its columns.

    wider: the same columns as far as anybody could go, for what to name where nothing is found.
    most: how many answers; changes: in how many columns at most; rows: to evaluate at most, beside
    a fourth as many that find out what stands in the way. Raises ValueError where these do not fit
    together.
    """

    score: Score
    row: FloatArray
    target: float
    rules: tuple[ColumnRule, ...]
    wider: tuple[ColumnRule, ...] | None = None
    most: int = 3
    changes: int = 4
    rows: int = DEFAULT_ROWS

    def __post_init__(self) -> None:
        widths = {len(self.row), len(self.rules), len(self.wider or self.rules)}
        if len(widths) != 1:
            raise ValueError("row, rules and wider must be of the same columns")
        if min(self.most, self.changes, self.rows) < 1:
            raise ValueError("most, changes and rows must be at least 1")

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many values may be advised of each column."""
        pairs = zip(self.rules, self.row.tolist(), strict=True)
        return tuple(rule.count(present) for rule, present in pairs)

    def changed(self, rows: FloatArray) -> Mask:
        """(N, F) which cells are not as they were."""
        is_missing = np.isnan(rows) & np.isnan(self.row)
        changed: Mask = (rows != self.row) & ~is_missing
        return changed

    def costs(self, rows: FloatArray) -> FloatArray:
        """(N,) what the changes of each row cost together."""
        per_unit, per_change = self._prices
        changed = self.changed(rows)
        moved = np.where(changed, np.abs(rows - self.row), 0.0)
        priced = np.where(changed & (per_change > 0), per_change, per_unit * moved)
        total: FloatArray = priced.sum(axis=1)
        return total

    @cached_property
    def _prices(self) -> tuple[FloatArray, FloatArray]:
        """(F,) of a unit by which a number moves, and (F,) of changing a category."""
        is_number = np.array([rule.levels is None for rule in self.rules])
        costs = np.array([rule.cost for rule in self.rules])
        return np.where(is_number, costs, 0.0), np.where(is_number, 0.0, costs)

    def states(self, rows: FloatArray) -> States:
        """The rows with what they change and cost."""
        return States(rows, self.changed(rows), self.costs(rows))

    def allows(self, row: FloatArray) -> bool:
        """Every change keeps to its rule, and they are not too many."""
        cells = zip(self.rules, self.row.tolist(), row.tolist(), strict=True)
        is_kept = all(rule.allows(present, value) for rule, present, value in cells)
        return is_kept and int(self.changed(row[None]).sum()) <= self.changes


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """(K,) single changes: of which column, to which value."""

    columns: np.ndarray[tuple[int], np.dtype[np.intp]]
    values: FloatArray

    @classmethod
    def of(cls, rules: tuple[ColumnRule, ...], row: FloatArray, most: int) -> "Candidates":
        """Up to about `most` values of each column (all levels of a category), in their order."""
        present = row.tolist()
        found = [rule.values(present[i], most) for i, rule in enumerate(rules)]
        columns = np.repeat(np.arange(len(rules), dtype=np.intp), [len(each) for each in found])
        return cls(columns, np.concatenate(found) if found else np.empty(0))

    def __len__(self) -> int:
        return len(self.columns)

    def without(self, columns: Mask) -> "Candidates":
        """Those of other columns than these (F,)."""
        kept = ~columns[self.columns]
        return Candidates(self.columns[kept], self.values[kept])

    def thinned(self, most: int) -> "Candidates":
        """Of each column the first ones, as many as that at most."""
        nth = np.arange(len(self)) - np.searchsorted(self.columns, self.columns)
        return Candidates(self.columns[nth < most], self.values[nth < most])

    def applied(self, row: FloatArray) -> Iterator[FloatArray]:
        """(N, F) the row with each of them in turn, ROWS_AT_ONCE at most at a time."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            columns = self.columns[start : start + ROWS_AT_ONCE]
            rows = np.repeat(row[None], len(columns), axis=0)
            rows[np.arange(len(columns)), columns] = self.values[start : start + ROWS_AT_ONCE]
            yield rows
