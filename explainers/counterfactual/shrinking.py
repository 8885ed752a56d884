"""A row that reaches the target made cheaper, as long as it still does."""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from explainers.counterfactual.evaluating import Evaluator
from explainers.counterfactual.problem import Candidates, Problem

ROUNDS = 12
ONE_VALUES = 64
"""Values of one column that are tried at once; further rounds look between them."""

PAIR_VALUES = 14
"""Of each of two columns that are tried together."""

Tries = Callable[[Problem, FloatArray, Candidates], Iterator[FloatArray]]
"""(N, F) rows like a given one that may be cheaper, few at a time: most of them are not."""


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
    problem: Problem, evaluator: Evaluator, tried: Iterator[FloatArray], than: FloatArray
) -> FloatArray | None:
    """The cheapest of these rows that reaches the target for less; of equal ones the first."""
    below = float(problem.costs(than[None])[0]) * (1 - 1e-12)
    cheaper = than[None][:0]
    for rows in tried:
        cheaper = np.concatenate([cheaper, rows[problem.costs(rows) < below]])
        if len(cheaper) > evaluator.left:
            cheaper = cheaper[_by_cost(problem, cheaper)[: evaluator.left + 1]]
    states, scores = evaluator.scores(problem.states(cheaper[_by_cost(problem, cheaper)]))
    reaching = np.flatnonzero(scores >= problem.target)
    return states.rows[reaching[0]].copy() if len(reaching) else None


def _by_cost(problem: Problem, rows: FloatArray) -> NDArray[np.intp]:
    return np.argsort(problem.costs(rows), kind="stable")


def _moved_back(problem: Problem, row: FloatArray, _: Candidates) -> Iterator[FloatArray]:
    """One change dropped, or nearer to where it came from."""
    for column in _changed(problem, row):
        values = _nearer(problem, row, column, ONE_VALUES)
        moved = np.repeat(row[None], len(values) + 1, axis=0)
        moved[:, column] = [problem.row[column], *values]
        yield moved


def _traded(problem: Problem, row: FloatArray, _: Candidates) -> Iterator[FloatArray]:
    """Two of the changed columns at any values; not two categories, which cost the same at any."""
    for pair in combinations(_changed(problem, row), 2):
        if all(problem.rules[column].levels is not None for column in pair):
            continue
        first, second = (_around(problem, row, column) for column in pair)
        moved = np.repeat(row[None], len(first) * len(second), axis=0)
        moved[:, pair[0]] = np.repeat(first, len(second))
        moved[:, pair[1]] = np.tile(second, len(first))
        yield moved


def _around(problem: Problem, row: FloatArray, column: int) -> FloatArray:
    """(V,) values to trade against another column's: of a category the first ones."""
    values = problem.rules[column].values(float(problem.row[column]), PAIR_VALUES)
    near = _nearer(problem, row, column, PAIR_VALUES // 2)
    return np.concatenate([values[:ONE_VALUES], near])


def _swapped(problem: Problem, row: FloatArray, candidates: Candidates) -> Iterator[FloatArray]:
    """One change undone, and another column changed instead."""
    others = candidates.without(problem.changed(row[None])[0])
    for column in _changed(problem, row):
        undone = row.copy()
        undone[column] = problem.row[column]
        yield from others.applied(undone)


def _nearer(problem: Problem, row: FloatArray, column: int, most: int) -> FloatArray:
    rule, present = problem.rules[column], float(problem.row[column])
    return rule.nearer(present, float(row[column]), most)


def _changed(problem: Problem, row: FloatArray) -> list[int]:
    return np.flatnonzero(problem.changed(row[None])[0]).tolist()
