"""The search: nothing cheaper than its best, every rule kept, and what stands in the way named."""

from dataclasses import replace

import numpy as np
import pytest
from recourse_problems import ROW, RULES, plain_best, problem, score

from explainers.base import FloatArray
from explainers.counterfactual import Binding, ColumnRule, Problem, search
from explainers.counterfactual.beam import Pool, beam_search, combinations_of
from explainers.counterfactual.evaluating import Evaluator
from explainers.counterfactual.problem import ROWS_AT_ONCE, Candidates
from explainers.counterfactual.shrinking import shrink


def candidates_of(asked: Problem) -> Candidates:
    return Candidates.of(asked.rules, asked.row, 40)


TARGETS = (-2.5, -1.5, -0.5, 0.5)
HEURISTIC = 1000
"""Rows of a budget too small to try all combinations, of which half of it may be spent on."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("changes", [1, 2, 4])
def test_no_combination_is_cheaper_than_the_best_answer(target: float, changes: int) -> None:
    asked = problem(target, changes=changes)
    found = search(asked)
    assert found.is_exact
    best = plain_best(asked)
    expected = [] if best == np.inf else [best]
    assert [answer.cost for answer in found.answers[:1]] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_without_trying_all_the_best_answer_is_as_cheap(target: float) -> None:
    asked = problem(target, rows=HEURISTIC)
    assert combinations_of(asked.counts, asked.changes) > HEURISTIC / 2
    found = search(asked)
    assert not found.is_exact
    assert found.answers[0].cost == pytest.approx(plain_best(asked), abs=1e-12)


def test_costs_are_of_the_units_a_number_moves_and_of_changing_a_category() -> None:
    asked = problem(0.0, row=np.array([17.0, 10.0, np.nan, 0.0, 33.0]))
    rows = np.tile(asked.row, (4, 1))
    rows[1, 0], rows[2, 1], rows[3, :4] = 15.0, 12.0, (16.0, 9.0, 2.0, 1.0)
    assert asked.costs(rows).tolist() == pytest.approx([0.0, 0.6, 1.0, 0.3 + 0.5 + 1.5 + 2.0])


def test_answers_are_of_different_columns_cheapest_first_and_reach_the_target() -> None:
    asked = problem(-2.3, most=4)
    answers = search(asked).answers
    assert len(answers) > 1
    assert [answer.cost for answer in answers] == sorted(answer.cost for answer in answers)
    for place, answer in enumerate(answers):
        assert asked.allows(answer.row)
        assert answer.score == score(answer.row[None])[0] >= asked.target
        assert tuple(np.flatnonzero(answer.row != ROW)) == answer.columns
        assert not any({*other.columns} <= {*answer.columns} for other in answers[:place])


@pytest.mark.parametrize("rows", [100_000, HEURISTIC])
def test_every_change_of_an_answer_is_needed(rows: int) -> None:
    for answer in search(problem(-0.5, rows=rows)).answers:
        for column in answer.columns:
            without = answer.row.copy()
            without[column] = ROW[column]
            assert score(without[None])[0] < -0.5


def test_the_same_problem_has_the_same_answer() -> None:
    first, second = (search(problem(-1.5, rows=HEURISTIC)) for _ in range(2))
    assert [a.row.tolist() for a in first.answers] == [a.row.tolist() for a in second.answers]
    assert first.rows_used == second.rows_used


def test_the_budget_is_kept() -> None:
    rows = []

    def counted(X: FloatArray) -> FloatArray:
        rows.append(len(X))
        return score(X)

    found = search(problem(-1.5, rows=500, score=counted))
    told = len(found.answers)
    assert sum(rows) == found.rows_used + told
    assert found.rows_used <= 500 + 3  # and the row itself, at the start of each beam


class Costed(Problem):
    """Records how many rows are made at a time, and how many altogether."""

    made: list[int]

    def costs(self, rows: FloatArray) -> FloatArray:
        self.__dict__.setdefault("made", []).append(len(rows))
        return super().costs(rows)


def linear(columns: int, **changes: object) -> Costed:
    """Many columns, of which no changes reach the target."""
    rules = tuple(ColumnRule(f"x{i}", low=-100, high=100) for i in range(columns))
    given = {"score": lambda rows: rows @ np.linspace(1, 2, columns), "row": np.zeros(columns)}
    return Costed(**given | {"target": 1e9, "rules": rules} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [0, 1, 700, 5000])
def test_a_beam_makes_hardly_more_rows_than_are_left(left: int) -> None:
    asked = linear(60)
    evaluator = Evaluator(asked.score, left, asked.row, -np.inf)
    beam_search(asked, evaluator, Pool(), candidates_of(asked))
    assert evaluator.was_short
    assert evaluator.used == left + 1  # and the row itself
    assert max(asked.made) <= left + ROWS_AT_ONCE


def test_what_a_short_beam_puts_to_the_model_is_what_a_longer_one_begins_with() -> None:
    seen: dict[int, list[FloatArray]] = {3000: [], 9000: []}
    for left, rows in seen.items():
        asked = linear(30, score=lambda X, rows=rows: (rows.append(X), X.sum(axis=1))[1])
        beam_search(
            asked, Evaluator(asked.score, left, asked.row, -np.inf), Pool(), candidates_of(asked)
        )
    short, long = (np.concatenate(rows) for rows in seen.values())
    assert (len(short), len(long)) == (3001, 9001)
    assert (long[: len(short)] == short).all()


def of_categories(levels: int, **changes: object) -> Costed:
    rules = [ColumnRule(f"x{i}", levels=tuple(map(float, range(levels)))) for i in range(2)]
    rules.append(ColumnRule("n", low=0, high=100, cost=0.1))
    return linear(3, rules=tuple(rules), **changes)


def test_shrinking_trades_no_two_categories_and_few_levels_of_one() -> None:
    asked = of_categories(1000, target=1300.0)
    evaluator = Evaluator(asked.score, 20_000, asked.row, -np.inf)
    row = np.array([500.0, 500.0, 90.0])
    found = shrink(asked, evaluator, row, candidates_of(asked))
    assert asked.costs(found[None])[0] < asked.costs(row[None])[0]
    assert max(asked.made) < 2 * ROWS_AT_ONCE


def test_shrinking_puts_the_cheapest_to_the_model_where_not_all_can_be() -> None:
    asked = linear(8, target=-1e9)
    evaluator = Evaluator(asked.score, 5, asked.row, -np.inf)
    found = shrink(asked, evaluator, np.full(8, 50.0), candidates_of(asked))
    assert evaluator.used == 5
    assert np.sort(found).tolist() == [0.0, *[50.0] * 7]


def unreachable(**changes: object) -> tuple[Binding, ...]:
    found = search(problem(**{"target": 3.0} | changes))  # type: ignore[arg-type]
    assert not found.answers
    return found.constraints


def test_an_immutable_column_in_the_way_is_named() -> None:
    wider = (*RULES[:4], ColumnRule("age", low=18, high=300))
    constraints = unreachable(wider=wider)
    assert Binding("immutable", 4, suffices=True) in constraints


def test_a_range_a_direction_and_levels_in_the_way_are_named() -> None:
    rules = (
        ColumnRule("a", low=0, high=3),
        ColumnRule("b", low=0, high=9, direction="down"),
        ColumnRule("c", levels=(0.0, 1.0)),
    )
    wider = (
        ColumnRule("a", low=0, high=9),
        ColumnRule("b", low=0, high=9),
        ColumnRule("c", levels=(0.0, 1.0, 2.0)),
    )

    def total(rows: FloatArray) -> FloatArray:
        return rows.sum(axis=1)

    asked = Problem(score=total, row=np.full(3, 1.0), target=10.0, rules=rules, wider=wider)
    assert search(asked).constraints == (
        Binding("direction", 1, suffices=True),
        Binding("range", 0, suffices=True),
        Binding("levels", 2, suffices=False),
    )


def test_the_number_of_changes_in_the_way_is_named() -> None:
    asked = problem(0.5, changes=1)
    found = search(asked)
    assert not found.answers
    assert Binding("changes", None, suffices=True) in found.constraints
    assert search(replace(asked, changes=4)).answers


@pytest.mark.parametrize("columns", [1, 8, 60, 200])
@pytest.mark.parametrize("rows", [40, 2000])
@pytest.mark.parametrize("changes", [1, 4])
def test_what_stands_in_the_way_is_found_out_within_a_fourth_of_the_budget(
    columns: int, rows: int, changes: int
) -> None:
    wider = tuple(ColumnRule(f"x{i}", low=-900, high=900) for i in range(columns))
    found = search(linear(columns, rows=rows, changes=changes, wider=wider))
    assert found.rows_used <= 1.25 * rows + 2  # and the row itself, twice
    assert columns < 60 or Binding("rows", None, suffices=False) in found.constraints
    assert "range" in {binding.kind for binding in found.constraints}


def test_of_a_category_beyond_its_rule_few_levels_are_tried() -> None:
    asked = of_categories(1000, score=lambda X: X[:, 0] + X[:, 1])
    fixed = tuple(replace(rule, is_immutable=True) for rule in asked.rules[:2])
    found = search(replace(asked, rules=(*fixed, asked.rules[2]), wider=asked.rules))
    assert {binding.column for binding in found.constraints} >= {0, 1}
    assert found.rows_used < 300


def test_no_more_than_eight_further_changes_are_tried() -> None:
    found = search(linear(60, changes=1, rows=1_000_000))
    assert found.is_exact
    assert found.rows_used <= 1 + 60 * 200 + 8 * 60 * 24


def test_a_budget_that_is_too_small_is_named() -> None:
    assert Binding("rows", None, suffices=False) in unreachable(rows=60, changes=3)
    assert Binding("rows", None, suffices=False) not in unreachable(rows=100_000)


def test_a_missing_number_is_left_alone_and_named() -> None:
    row = ROW.copy()
    row[0] = np.nan

    def known(rows: FloatArray) -> FloatArray:
        return np.where(np.isnan(rows[:, 0]), -9.0, 0.0) + rows[:, 2]

    found = search(problem(5.0, row=row, score=known))
    assert not found.answers
    assert Binding("missing", 0, suffices=False) in found.constraints
    assert all(np.isnan(a.row[0]) for a in search(problem(-6.5, row=row, score=known)).answers)


def test_a_model_that_nothing_moves_is_said_to_be_so() -> None:
    found = search(problem(1.0, score=lambda rows: np.zeros(len(rows))))
    assert found.constraints == (Binding("model", None, suffices=False),)


def test_the_search_is_not_helped_by_a_column_that_no_rule_lets_move() -> None:
    fixed = tuple(ColumnRule(rule.name, is_immutable=True) for rule in RULES)
    found = search(problem(0.0, rules=fixed))
    assert (found.answers, found.rows_used) == ((), 1)


def test_shrinking_brings_a_dear_answer_down_and_keeps_the_target() -> None:
    asked = problem(-1.5)
    dear = np.array([0.0, 8.0, 3.0, 1.0, 33.0])
    evaluator = Evaluator(score, 20_000, ROW, -np.inf)
    candidates = Candidates.of(RULES, ROW, 40)
    found = shrink(asked, evaluator, dear, candidates)
    assert score(found[None])[0] >= -1.5
    assert asked.costs(found[None])[0] < asked.costs(dear[None])[0] / 2
    again = shrink(asked, evaluator, found, candidates)
    assert again.tolist() == found.tolist()


def test_a_beam_adds_no_column_twice() -> None:
    pool, evaluator = Pool(), Evaluator(score, 20_000, ROW, -np.inf)
    asked = problem(-0.5)
    beam_search(asked, evaluator, pool, Candidates.of(RULES, ROW, 40))
    assert pool.by_cost
    assert all(asked.allows(row) for _, row in pool.by_cost)


@pytest.mark.parametrize("missing", [[], [0]])
def test_a_beam_puts_no_combination_to_the_model_twice(missing: list[int]) -> None:
    row, seen = ROW.copy(), []
    row[missing] = np.nan

    def recorded(rows: FloatArray) -> FloatArray:
        seen.extend(each.tobytes() for each in rows[:, 1:])
        return np.nan_to_num(rows).sum(axis=1)

    asked = problem(1e6, row=row, score=recorded, rules=(replace(RULES[4], name="a"), *RULES[1:]))
    beam_search(asked, Evaluator(recorded, 20_000, row, -np.inf), Pool(), candidates_of(asked))
    assert len(seen) == len({*seen}) > 20


@pytest.mark.parametrize("wrong", [{"most": 0}, {"changes": 0}, {"rows": 0}, {"rules": RULES[1:]}])
def test_a_problem_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        problem(0.0, **wrong)
