"""Combinations of changes: all of them where they are few, else the most promising."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from explainers.counterfactual.evaluating import Evaluator, Mask, States
from explainers.counterfactual.problem import Candidates, Problem

WIDTH = 48
"""Combinations that are taken further at each number of changes."""

OF_ONE_SET = 3
"""Of them of the same columns at most, or all would be neighbours."""

ENUMERATED_AT_ONCE = 4096


class Pool:
    """The cheapest reaching row of each set of columns."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[float, FloatArray]] = {}

    def add(self, states: States) -> None:
        """Rows that reach the target."""
        for place in np.argsort(states.costs, kind="stable").tolist():
            key, cost = states.changed[place].tobytes(), float(states.costs[place])
            if key not in self._found or cost < self._found[key][0]:
                self._found[key] = cost, states.rows[place].copy()

    @property
    def by_cost(self) -> list[tuple[float, FloatArray]]:
        """Cost and row of each set, cheapest first; of equal cost those of fewer columns, then of
        earlier ones.
        """

        def rank(item: tuple[bytes, tuple[float, FloatArray]]) -> tuple[float, int, list[bool]]:
            flags = [not changed for changed in item[0]]
            return item[1][0], len(flags) - sum(flags), flags

        return [found for _, found in sorted(self._found.items(), key=rank)]


def combinations_of(counts: tuple[int, ...], changes: int) -> int:
    """How many rows differ from one in 1 to `changes` columns of so many values each."""
    ways = [1] + [0] * changes
    for count in counts:
        for size in range(changes, 0, -1):
            ways[size] += ways[size - 1] * count
    return sum(ways[1:])


def enumerate_all(problem: Problem, evaluator: Evaluator, pool: Pool) -> None:
    """Put every allowed combination to the model."""
    present = problem.row.tolist()
    most = max(problem.counts, default=0)
    values = [rule.values(present[i], most + 2) for i, rule in enumerate(problem.rules)]
    movable = [column for column, found in enumerate(values) if len(found)]
    for block in _blocks(problem.row, values, movable, problem.changes):
        states, scores = evaluator.scores(problem.states(block))
        pool.add(states.take(scores >= problem.target))


def _blocks(
    row: FloatArray, values: list[FloatArray], movable: list[int], changes: int
) -> Iterator[FloatArray]:
    rows: list[FloatArray] = []
    for size in range(1, changes + 1):
        for columns in combinations(movable, size):
            for cells in product(*(values[column].tolist() for column in columns)):
                changed = row.copy()
                changed[list(columns)] = cells
                rows.append(changed)
                if len(rows) == ENUMERATED_AT_ONCE:
                    yield np.array(rows)
                    rows = []
    if rows:
        yield np.array(rows)


def beam_search(problem: Problem, evaluator: Evaluator, pool: Pool, candidates: Candidates) -> None:
    """Add changes one by one to the combinations that come closest, or closest for their cost.

    Cost: K rows, then up to WIDTH * K for each change more, of K candidates.
    """
    front = problem.states(problem.row[None])
    base = float(evaluator.of_rows(front.rows)[0])
    for _ in range(problem.changes):
        states, scores = evaluator.scores(
            _expanded(problem, front, candidates, pool, evaluator.left)
        )
        reaches = scores >= problem.target
        pool.add(states.take(reaches))
        states, scores = states.take(~reaches), scores[~reaches]
        if not len(states):
            return
        front = states.take(_promising(states, scores - base))


def _expanded(
    problem: Problem, front: States, candidates: Candidates, pool: Pool, left: int
) -> States:
    """Each of the front with each candidate of a column it has not changed, cheap enough to be
    among the answers; the front's order is kept, so what a budget cuts off is the least promising.
    What comes after more than are left is not made at all.

    Rows are told apart by their bytes, so that a missing cell is the same as another; to sort them
    would hold all other threads up meanwhile.
    """
    known = pool.by_cost
    below = known[problem.most - 1][0] if len(known) >= problem.most else np.inf
    found: dict[bytes, None] = {}
    parents = zip(front.rows, front.changed, strict=True)
    for rows in (r for row, changed in parents for r in candidates.without(changed).applied(row)):
        found |= dict.fromkeys(row.tobytes() for row in rows[problem.costs(rows) < below])
        if len(found) > left:
            break
    joined = np.frombuffer(bytearray().join(found), front.rows.dtype)
    return problem.states(joined.reshape(-1, len(problem.row)))


def _promising(states: States, gains: FloatArray) -> NDArray[np.intp]:
    """Places of those to take further: half by what they gained, half by that for their cost."""
    by_gain = np.argsort(-gains, kind="stable")
    by_rate = np.argsort(-gains / states.costs, kind="stable")
    chosen: dict[int, None] = {}
    for order in (by_rate, by_gain):
        chosen |= dict.fromkeys(_spread(order, states.changed, WIDTH // 2))
    return np.array(list(chosen), dtype=np.intp)


def _spread(order: NDArray[np.intp], changed: Mask, most: int) -> list[int]:
    """The first ones, of one set of columns OF_ONE_SET at most."""
    taken: list[int] = []
    of_set: dict[bytes, int] = {}
    for place in order.tolist():
        key = changed[place].tobytes()
        of_set[key] = of_set.get(key, 0) + 1
        if of_set[key] <= OF_ONE_SET:
            taken.append(place)
        if len(taken) == most:
            break
    return taken
