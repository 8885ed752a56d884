"""Small problems of recourse, and every combination of changes written out the plain way."""

from itertools import product

import numpy as np

from explainers.base import FloatArray
from explainers.counterfactual import ColumnRule, Problem

RULES = (
    ColumnRule("amount", direction="down", low=0, high=20, step=1, cost=0.3),
    ColumnRule("months", low=4, high=12, step=2, cost=0.5),
    ColumnRule("status", levels=(0.0, 1.0, 2.0, 3.0), direction="up", cost=1.5),
    ColumnRule("owner", levels=(0.0, 1.0), cost=2.0),
    ColumnRule("age", is_immutable=True),
)
ROW = np.array([17.0, 10.0, 1.0, 0.0, 33.0])


def score(rows: FloatArray) -> FloatArray:
    """Neither additive nor monotone: every trap for a greedy search."""
    amount, months, status, owner, age = rows.T
    return (
        -0.2 * amount
        - 0.15 * np.abs(months - 7)
        + np.where((status == 2) & (amount < 12), 1.4, 0.1 * status)
        + owner * np.where(months > 8, 0.9, -0.3)
        + 0.02 * age
    )


def problem(target: float, **changes: object) -> Problem:
    return Problem(**{"score": score, "row": ROW, "target": target, "rules": RULES} | changes)  # type: ignore[arg-type]


def plain_best(asked: Problem) -> float:
    """The least cost that reaches the target, by trying all cells that integers can stand in."""
    cells = []
    for rule, present in zip(asked.rules, asked.row.tolist(), strict=True):
        values = [float(value) for value in range(-40, 41)]
        cells.append([present, *(v for v in values if v != present and rule.allows(present, v))])
    best = np.inf
    for combination in product(*cells):
        row = np.array(combination)
        changed = row != asked.row
        if changed.sum() > asked.changes or not asked.score(row[None])[0] >= asked.target:
            continue
        cost = sum(
            rule.cost * (abs(new - old) if rule.levels is None else 1)
            for rule, old, new, is_new in zip(asked.rules, asked.row, row, changed, strict=True)
            if is_new
        )
        best = min(best, cost)
    return best
