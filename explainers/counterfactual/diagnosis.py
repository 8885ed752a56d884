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
"""Of each column beyond its rule that are tried."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint without which the score would come closer; suffices: without it alone the target
    was reached. column: None for the number of changes, the budget of rows, and the model itself,
    which nothing that was tried moved.
    """

    kind: BindingKind
    column: int | None
    suffices: bool


def binding_constraints(
    problem: Problem, evaluator: Evaluator, *, is_exact: bool
) -> tuple[Binding, ...]:
    """What keeps the best row that was seen from the target; that which helps most comes first of
    the columns. Cost: about 25 rows for each column, times the number of changes where the best row
    has as many as are allowed; and 25 for each column left and each further change.
    """
    found = []
    best, best_score = evaluator.best, evaluator.best_score
    if evaluator.was_short and not is_exact:
        found.append(Binding("rows", None, suffices=False))
    reached = _with_more_changes(problem, evaluator, best)
    if reached > best_score:
        found.append(Binding("changes", None, suffices=reached >= problem.target))
    found += [
        Binding(kind, column, suffices=score >= problem.target)
        for score, column, kind in _beyond_rules(problem, evaluator, best)
        if score > best_score
    ]
    found += [Binding("missing", column, suffices=False) for column in _missing(problem)]
    return tuple(found) or (Binding("model", None, suffices=False),)


def _missing(problem: Problem) -> Iterator[int]:
    for column, rule in enumerate(problem.rules):
        if not rule.is_immutable and rule.levels is None and np.isnan(problem.row[column]):
            yield column


def _with_more_changes(problem: Problem, evaluator: Evaluator, row: FloatArray) -> float:
    """The highest score that changing further columns gives, the best one at a time."""
    candidates = Candidates.of(problem.rules, problem.row, VALUES)
    reached = -np.inf
    for _ in range(len(row)):
        left = candidates.without(problem.changed(row[None])[0])
        if not len(left):
            break
        rows = np.repeat(row[None], len(left), axis=0)
        rows[np.arange(len(left)), left.columns] = left.values
        scores = evaluator.of_rows(rows)
        place = int(np.argmax(scores))
        if scores[place] <= reached:
            break
        row, reached = rows[place], float(scores[place])
        if reached >= problem.target:
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
    for column, (rule, free) in enumerate(zip(problem.rules, wider, strict=True)):
        start = _freed_of_one(problem, best) if is_full and not changed[column] else best[None]
        found += _beyond_rule(problem, evaluator, start, column, (rule, free))
    return sorted(found, key=lambda each: (-each[0], each[1]))


def _beyond_rule(
    problem: Problem,
    evaluator: Evaluator,
    start: FloatArray,
    column: int,
    rules: tuple[ColumnRule, ColumnRule],
) -> list[tuple[float, int, BindingKind]]:
    rule, free = rules
    present = float(problem.row[column])
    highest: dict[BindingKind, float] = {}
    values = [value for value in free.values(present, VALUES) if not rule.allows(present, value)]
    if not values:
        return []
    rows = np.repeat(start, len(values), axis=0)
    rows[:, column] = np.tile(values, len(start))
    scores = evaluator.of_rows(rows).reshape(len(start), -1).max(axis=0)
    for value, score in zip(values, scores.tolist(), strict=True):
        kind = _kind(rule, value)
        highest[kind] = max(score, highest.get(kind, -np.inf))
    return [(score, column, kind) for kind, score in highest.items()]


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
