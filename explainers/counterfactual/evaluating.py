"""Rows put to the model, counted, and the best of what came back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray

Score = Callable[[FloatArray], FloatArray]
"""(N, F) rows to (N,) numbers; the target is reached at or above a number. A row's must not depend
on the rows beside it."""

Mask = NDArray[np.bool_]

CALL_ROWS = 8192
"""Of one call: what bounds memory."""


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Rows on the way: (N, F) rows, (N, F) which columns have changed, (N,) costs."""

    rows: FloatArray
    changed: Mask
    costs: FloatArray

    def take(self, places: NDArray[np.intp] | Mask) -> "States":
        """Those at these places."""
        return States(self.rows[places], self.changed[places], self.costs[places])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(slots=True, eq=False)
class Evaluator:
    """Scores rows while the budget lasts. best, best_score: the highest that was seen."""

    score: Score
    left: int
    best: FloatArray
    best_score: float
    used: int = 0
    was_short: bool = field(default=False, init=False)
    """Something was left out for want of budget."""

    def scores(self, states: States) -> tuple[States, FloatArray]:
        """As many of the states, from the first, as the budget allows, and their scores (N,)."""
        if len(states) > self.left:
            self.was_short = True
            states = states.take(np.arange(self.left))
        self.left -= len(states)
        scored = self.of_rows(states.rows)
        if len(scored) and scored.max() > self.best_score:
            place = int(np.argmax(scored))
            self.best, self.best_score = states.rows[place].copy(), float(scored[place])
        return states, scored

    def of_rows(self, rows: FloatArray) -> FloatArray:
        """(N,) scores of any rows, whatever is left."""
        self.used += len(rows)
        calls = range(0, len(rows), CALL_ROWS)
        parts = [np.asarray(self.score(rows[i : i + CALL_ROWS]), np.float64) for i in calls]
        return np.concatenate(parts) if parts else np.empty(0)
