"""Where nothing was found: which constraints stand in the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from explainers.base import FloatArray
from explainers.counterfactual.constraints import ColumnRule
from explainers.counterfactual.evaluating import Evaluator
from explainers.counterfactual.problem import Candidates, Problem

BindingKind = Literal[
    "immutable", "direction", "range", "levels", "missing", "changes", "rows", "model"
]
VALUES = 24
"""Of each column that are tried, of a category too."""

FEWEST_VALUES = 6
"""Of them where the rows do not suffice for as many: the nearest and the farthest, either way."""

MORE_CHANGES = 8
"""Further ones that are tried on top of the best row's."""

SHARE = 4
"""Of the budget a fourth at least, whatever the search left of it."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint without which the score would come closer; suffices: without it alone the target
    was reached. column: None for the number of changes, the budget of rows, and the model itself,
    which nothing that was tried moved.
    """

    kind: BindingKind
    column: int | None
    suffices: bool


def binding_constraints(problem: Problem, evaluator: Evaluator) -> tuple[Binding, ...]:
    """What keeps the best row that was seen from the target; that which helps most comes first of
    the columns. Cost: about 25 rows for each column, times the number of changes where the best row
    has as many as are allowed; and 25 for each column left and each further change; both together
    at most the rows that are left, or a fourth of the budget.
    """
    best, best_score = evaluator.best, evaluator.best_score
    allowance = max(evaluator.left, problem.rows // SHARE)
    evaluator.left = allowance // 2
    reached = _with_more_changes(problem, evaluator, best)
    evaluator.left += allowance - allowance // 2
    beyond = _beyond_rules(problem, evaluator, best)
    found = [Binding("rows", None, suffices=False)] if evaluator.was_short else []
    if reached > best_score:
        found.append(Binding("changes", None, suffices=reached >= problem.target))
    found += [
        Binding(kind, column, suffices=score >= problem.target)
        for score, column, kind in beyond
        if score > best_score
    ]
    found += [Binding("missing", column, suffices=False) for column in _missing(problem)]
    return tuple(found) or (Binding("model", None, suffices=False),)


def _missing(problem: Problem) -> Iterator[int]:
    for column, rule in enumerate(problem.rules):
        if not rule.is_immutable and rule.levels is None and np.isnan(problem.row[column]):
            yield column


def _values_each(left: int, rounds: int) -> int:
    """How many values of one column can be tried in so many rounds."""
    return min(VALUES, max(FEWEST_VALUES, left // max(1, rounds)))


def _with_more_changes(problem: Problem, evaluator: Evaluator, row: FloatArray) -> float:
    """The highest score that changing further columns gives, the best one at a time."""
    most = _values_each(evaluator.left, problem.changes * len(row))
    candidates = Candidates.of(problem.rules, problem.row, most).thinned(most)
    reached = -np.inf
    for _ in range(min(len(row), MORE_CHANGES)):
        before = reached
        left = candidates.without(problem.changed(row[None])[0])
        for rows in left.applied(row):
            states, scores = evaluator.scores(problem.states(rows))
            if len(states) and scores.max() > reached:
                row, reached = states.rows[int(np.argmax(scores))], float(scores.max())
        if reached == before or reached >= problem.target:
            break
    return reached


def _beyond_rules(
    problem: Problem, evaluator: Evaluator, best: FloatArray
) -> list[tuple[float, int, BindingKind]]:
    """The highest score that each kind of step beyond a column's rule gives, highest first."""
    found: list[tuple[float, int, BindingKind]] = []
    wider = problem.wider or tuple(rule.freed for rule in problem.rules)
    is_full = int(problem.changed(best[None]).sum()) >= problem.changes
    changed = problem.changed(best[None])[0]
    most = _values_each(evaluator.left, len(best) * (problem.changes if is_full else 1))
    for column, (rule, free) in enumerate(zip(problem.rules, wider, strict=True)):
        start = _freed_of_one(problem, best) if is_full and not changed[column] else best[None]
        present = float(problem.row[column])
        values = [v for v in free.values(present, most) if not rule.allows(present, v)][:most]
        found += [
            (score, column, kind)
            for kind, score in _highest(problem, evaluator, start, column, values).items()
        ]
    return sorted(found, key=lambda each: (-each[0], each[1]))


def _highest(
    problem: Problem, evaluator: Evaluator, start: FloatArray, column: int, values: list[float]
) -> dict[BindingKind, float]:
    """The highest score that one of the values gives any of the rows, by what forbids the value."""
    rows = np.tile(start, (len(values), 1))
    rows[:, column] = np.repeat(values, len(start))
    _, scores = evaluator.scores(problem.states(rows))
    highest: dict[BindingKind, float] = {}
    for value, score in zip(rows[:, column].tolist(), scores.tolist(), strict=False):
        kind = _kind(problem.rules[column], value)
        highest[kind] = max(score, highest.get(kind, -np.inf))
    return highest


def _freed_of_one(problem: Problem, row: FloatArray) -> FloatArray:
    """(changes, F) the row with each one of its changes undone, so that another has room."""
    columns = np.flatnonzero(problem.changed(row[None])[0])
    rows = np.repeat(row[None], len(columns), axis=0)
    rows[np.arange(len(columns)), columns] = problem.row[columns]
    return rows


def _kind(rule: ColumnRule, value: float) -> BindingKind:
    if rule.is_immutable:
        return "immutable"
    if rule.levels is not None:
        return "levels" if value not in rule.levels else "direction"
    if rule.low <= value <= rule.high:
        return "direction"
    return "range"
