"""A row that reaches the target made cheaper, as long as it still does."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from explainers.base import FloatArray
from explainers.counterfactual.evaluating import Evaluator
from explainers.counterfactual.problem import Candidates, Problem

ROUNDS = 12
ONE_VALUES = 64
"""Values of one column that are tried at once; further rounds look between them."""

PAIR_VALUES = 14
"""Of each of two columns that are tried together."""

Tries = Callable[[Problem, FloatArray, Candidates], FloatArray]
"""(N, F) rows like a given one that may be cheaper."""


def shrink(
    problem: Problem, evaluator: Evaluator, row: FloatArray, candidates: Candidates
) -> FloatArray:
    """The cheapest row found from one that reaches the target: changes dropped, values moved back,
    two columns traded against each other, one column for another.

    Cost: at each round up to 65 rows for each change, then 14^2 for each pair of them, then as many
    as there are candidates for each change.
    """
    for _ in range(ROUNDS):
        for tries in (_moved_back, _traded, _swapped):
            better = _cheapest(problem, evaluator, tries(problem, row, candidates), row)
            if better is not None:
                row = better
                break
        else:
            break
    return row


def _cheapest(
    problem: Problem, evaluator: Evaluator, rows: FloatArray, than: FloatArray
) -> FloatArray | None:
    """The cheapest of these rows that reaches the target for less; of equal ones the first."""
    states = problem.states(rows)
    below = float(problem.costs(than[None])[0]) * (1 - 1e-12)
    states = states.take(states.costs < below)
    states = states.take(np.argsort(states.costs, kind="stable"))
    states, scores = evaluator.scores(states)
    reaching = np.flatnonzero(scores >= problem.target)
    return states.rows[reaching[0]].copy() if len(reaching) else None


def _moved_back(problem: Problem, row: FloatArray, _: Candidates) -> FloatArray:
    """One change dropped, or nearer to where it came from."""
    rows = []
    for column in _changed(problem, row):
        values = _nearer(problem, row, column, ONE_VALUES)
        moved = np.repeat(row[None], len(values) + 1, axis=0)
        moved[:, column] = [problem.row[column], *values]
        rows.append(moved)
    return np.concatenate(rows)


def _traded(problem: Problem, row: FloatArray, _: Candidates) -> FloatArray:
    """Two of the changed columns at any values."""
    rows = [row[None]]
    for pair in combinations(_changed(problem, row), 2):
        values = [
            problem.rules[column].values(float(problem.row[column]), PAIR_VALUES) for column in pair
        ]
        near = [_nearer(problem, row, column, PAIR_VALUES // 2) for column in pair]
        first, second = (np.concatenate([*both]) for both in zip(values, near, strict=True))
        moved = np.repeat(row[None], len(first) * len(second), axis=0)
        moved[:, pair[0]] = np.repeat(first, len(second))
        moved[:, pair[1]] = np.tile(second, len(first))
        rows.append(moved)
    return np.concatenate(rows)


def _swapped(problem: Problem, row: FloatArray, candidates: Candidates) -> FloatArray:
    """One change undone, and another column changed instead."""
    changed = problem.changed(row[None])[0]
    others = candidates.without(changed)
    rows = [row[None]]
    for column in _changed(problem, row):
        moved = np.repeat(row[None], len(others), axis=0)
        moved[:, column] = problem.row[column]
        moved[np.arange(len(others)), others.columns] = others.values
        rows.append(moved)
    return np.concatenate(rows)


def _nearer(problem: Problem, row: FloatArray, column: int, most: int) -> FloatArray:
    rule, present = problem.rules[column], float(problem.row[column])
    return rule.nearer(present, float(row[column]), most)


def _changed(problem: Problem, row: FloatArray) -> list[int]:
    return np.flatnonzero(problem.changed(row[None])[0]).tolist()
