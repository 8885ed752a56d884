"""Whatever the rules, no answer breaks one, and none is cheaper where all were tried."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from recourse_problems import plain_best

from explainers.base import FloatArray
from explainers.counterfactual import ColumnRule, Problem, search

DIRECTIONS = st.sampled_from(["up", "down", "both"])
COSTS = st.sampled_from([0.1, 0.5, 1.0, 3.0])


@st.composite
def rules(draw: st.DrawFn) -> ColumnRule:
    if draw(st.booleans()):
        levels = draw(st.permutations([0.0, 1.0, 2.0]))[: draw(st.integers(1, 3))]
        kind = {"levels": tuple(levels)}
    else:
        low = draw(st.integers(-4, 4))
        kind = {"low": low, "high": low + draw(st.integers(0, 5)), "step": draw(st.integers(1, 3))}
    is_immutable = draw(st.integers(0, 3)) == 0
    return ColumnRule(
        *("column", is_immutable), direction=draw(DIRECTIONS), cost=draw(COSTS), **kind
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n = draw(st.integers(1, 4))
    cells = st.integers(-5, 5).map(float)
    row = np.array([draw(st.one_of(cells, st.just(np.nan)) if i else cells) for i in range(n)])
    weights = np.array([draw(st.integers(-3, 3)) for _ in range(n)], dtype=np.float64)
    cross = draw(st.integers(-2, 2))

    def score(rows: FloatArray) -> FloatArray:
        known = np.nan_to_num(rows)
        total: FloatArray = known @ weights + cross * known[:, 0] * known[:, -1]
        return total

    return Problem(
        score=score,
        row=row,
        target=float(score(row[None])[0]) + draw(st.integers(1, 15)),
        rules=tuple(draw(rules()) for _ in range(n)),
        most=draw(st.integers(1, 4)),
        changes=draw(st.integers(1, 4)),
        rows=draw(st.sampled_from([30, 200, 100_000])),
    )


@given(problems())
@settings(max_examples=200, deadline=None)
def test_no_answer_breaks_a_rule_and_no_other_is_cheaper(problem: Problem) -> None:
    found = search(problem)
    assert len(found.answers) <= problem.most
    assert bool(found.answers) != bool(found.constraints)
    for answer in found.answers:
        assert problem.allows(answer.row)
        assert problem.score(answer.row[None])[0] >= problem.target
        assert len(answer.columns) <= problem.changes
    if found.is_exact and not np.isnan(problem.row).any():
        best = min((answer.cost for answer in found.answers), default=np.inf)
        assert best == plain_best(problem) or abs(best - plain_best(problem)) < 1e-9
