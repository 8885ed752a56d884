"""The search: several cheap answers of different columns, or what stands in the way."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explainers.base import FloatArray
from explainers.counterfactual.beam import Pool, beam_search, combinations_of, enumerate_all
from explainers.counterfactual.diagnosis import Binding, binding_constraints
from explainers.counterfactual.evaluating import Evaluator, Mask
from explainers.counterfactual.problem import Candidates, Problem
from explainers.counterfactual.shrinking import shrink

VALUES = 40
"""Of each number column that combinations are made of; shrinking looks at those between."""

SHRUNK = 12
"""Sets of columns whose cheapest combination is made cheaper after each beam search."""

ENUMERATED_SHARE = 0.5
"""Of the budget: so few combinations are all put to the model."""

__all__ = ["Counterfactual", "Found", "Problem", "search"]


@dataclass(frozen=True, slots=True, eq=False)
class Counterfactual:
    """A row (F,) that reaches the target, which columns it changes, in their order, and what that
    costs.
    """

    row: FloatArray
    columns: tuple[int, ...]
    cost: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Answers, cheapest first, each of a set of columns that holds no cheaper one's; without any,
    what stands in the way. is_exact: every allowed combination was tried, so none is cheaper.
    """

    answers: tuple[Counterfactual, ...]
    constraints: tuple[Binding, ...]
    is_exact: bool
    rows_used: int


def search(problem: Problem) -> Found:
    """Look for cheap changes that reach the target. The same problem has the same answer.

    All combinations are tried where they are few; else single changes, then combinations of the
    most promising ones, whose costs are brought down as long as they reach the target; then again
    without the columns of the cheapest answer, so that the others are no variants of it.
    Cost: problem.rows model rows, and up to a fourth as many more where nothing was found.
    """
    start = float(problem.score(problem.row[None])[0])
    evaluator = Evaluator(problem.score, problem.rows, problem.row, start, used=1)
    pool = Pool()
    n_combinations = combinations_of(problem.counts, problem.changes)
    is_exact = n_combinations <= ENUMERATED_SHARE * problem.rows
    if is_exact:
        enumerate_all(problem, evaluator, pool)
    else:
        _search_promising(problem, evaluator, pool)
    chosen = _diverse(problem, pool)
    constraints = () if chosen else binding_constraints(problem, evaluator)
    answers = tuple(_answer(problem, row) for row in chosen)
    return Found(answers, constraints, is_exact, evaluator.used)


def _search_promising(problem: Problem, evaluator: Evaluator, pool: Pool) -> None:
    candidates = Candidates.of(problem.rules, problem.row, VALUES)
    beam_search(problem, evaluator, pool, candidates)
    _shrink_cheapest(problem, evaluator, pool, candidates)
    for number, banned in enumerate(_bans(problem, pool)):
        if problem.most == 1 or (number and len(_diverse(problem, pool)) >= problem.most):
            return
        others, apart = candidates.without(banned), Pool()
        beam_search(problem, evaluator, apart, others)
        _shrink_cheapest(problem, evaluator, apart, others)
        for _, row in apart.by_cost:
            pool.add(problem.states(row[None]))


def _shrink_cheapest(
    problem: Problem, evaluator: Evaluator, pool: Pool, candidates: Candidates
) -> None:
    for _, row in pool.by_cost[:SHRUNK]:
        pool.add(problem.states(shrink(problem, evaluator, row, candidates)[None]))


def _bans(problem: Problem, pool: Pool) -> Sequence[Mask]:
    """All columns of the cheapest answer, then each of them alone."""
    if not pool.by_cost:
        return []
    changed = problem.changed(pool.by_cost[0][1][None])[0]
    alone = [np.arange(len(changed)) == column for column in np.flatnonzero(changed)]
    return [changed] if len(alone) == 1 else [changed, *alone]


def _diverse(problem: Problem, pool: Pool) -> list[FloatArray]:
    """The cheapest ones, without those that change all that a cheaper one does, and more."""
    chosen: list[FloatArray] = []
    sets: list[Mask] = []
    for _, row in pool.by_cost:
        changed = problem.changed(row[None])[0]
        if not any((changed >= other).all() for other in sets):
            chosen.append(row)
            sets.append(changed)
        if len(chosen) == problem.most:
            break
    return chosen


def _answer(problem: Problem, row: FloatArray) -> Counterfactual:
    columns = np.flatnonzero(problem.changed(row[None])[0]).tolist()
    cost, score = float(problem.costs(row[None])[0]), float(problem.score(row[None])[0])
    return Counterfactual(row, tuple(columns), cost, score)
