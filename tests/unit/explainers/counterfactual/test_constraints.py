"""Which values a rule leaves: on the step's grid, within the range, on the right side."""

import math

import pytest

from explainers.counterfactual import ColumnRule


def number(**changes: object) -> ColumnRule:
    return ColumnRule(**{"name": "x", "low": 0.0, "high": 10.0, "step": 2.0} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "present", "expected"),
    [
        (number(), 5.0, [4, 2, 0, 6, 8, 10]),
        (number(), 4.0, [2, 0, 6, 8, 10]),
        (number(direction="down"), 5.0, [4, 2, 0]),
        (number(direction="up"), 4.0, [6, 8, 10]),
        (number(), 25.0, [10, 8, 6, 4, 2, 0]),
        (number(direction="up"), 25.0, []),
        (number(direction="up"), -3.0, [0, 2, 4, 6, 8, 10]),
        (number(low=1.0, high=1.5, step=1.0), 9.0, [1]),
        (number(low=1.2, high=1.8, step=1.0), 9.0, []),
        (number(low=0.0, high=0.5, step=0.1), 0.3, [0.2, 0.1, 0.0, 0.4, 0.5]),
        (number(low=0.0, high=0.5, step=0.1), 0.30000001, [0.3, 0.2, 0.1, 0.0, 0.4, 0.5]),
        (number(), math.nan, []),
        (number(is_immutable=True), 5.0, []),
        (ColumnRule("x", levels=(2.0, 0.0, 1.0)), 0.0, [2, 1]),
        (ColumnRule("x", levels=(2.0, 0.0, 1.0), direction="up"), 0.0, [1]),
        (ColumnRule("x", levels=(2.0, 0.0, 1.0), direction="down"), 0.0, [2]),
        (ColumnRule("x", levels=(2.0, 0.0), direction="up"), 1.0, []),
        (ColumnRule("x", levels=(2.0, 0.0)), math.nan, [2, 0]),
    ],
)
def test_the_values_that_may_be_advised(
    rule: ColumnRule, present: float, expected: list[float]
) -> None:
    values = rule.values(present, 100)
    assert values.tolist() == expected
    assert rule.count(present) == len(expected)
    assert all(rule.allows(present, value) for value in values.tolist())


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (number(), 5.5),
        (number(), 12.0),
        (number(), -2.0),
        (number(direction="up"), 4.0),
        (number(direction="down"), 6.0),
        (number(is_immutable=True), 6.0),
        (number(), math.nan),
        (ColumnRule("x", levels=(0.0, 1.0)), 2.0),
        (ColumnRule("x", levels=(0.0, 5.0), direction="up"), 0.0),
    ],
)
def test_what_a_rule_forbids_is_told_from_what_it_allows(rule: ColumnRule, value: float) -> None:
    assert not rule.allows(5.0, value)
    assert rule.allows(5.0, 5.0)


def test_many_values_are_thinned_the_near_ones_last() -> None:
    rule = number(low=0.0, high=1e6, step=1.0)
    values = rule.values(5e5, 40)
    below = 5e5 - values[values < 5e5]
    assert len(values) <= 40
    assert below[:10].tolist() == list(range(1, 11))
    assert {0.0, 1e6} <= {*values.tolist()}


def test_a_grid_point_just_outside_the_range_is_left_out() -> None:
    rule = number(low=0.3 + 1e-12, high=0.5 - 1e-12, step=0.1)
    assert rule.values(0.0, 10).tolist() == [0.4]


@pytest.mark.parametrize(
    ("present", "expected"),
    [(1.7e9, [-1, -2, 1, 2]), (1.7e9 + 0.5, [-0.5, -1.5, -2.5, 0.5, 1.5])],
)
def test_neighbours_on_the_grid_are_told_apart_however_large(
    present: float, expected: list[float]
) -> None:
    rule = number(low=1.7e9 - 2, high=1.7e9 + 2, step=1.0)
    assert (rule.values(present, 100) - present).tolist() == expected
    assert rule.count(present) == len(expected)
    assert not rule.allows(1.7e9, 1.7e9 + 0.5)


def test_what_is_nearer_is_on_the_same_side_and_cheaper() -> None:
    rule = number(high=100.0, step=5.0)
    assert rule.nearer(52.0, 75.0, 50).tolist() == [55, 60, 65, 70]
    assert rule.nearer(52.0, 40.0, 50).tolist() == [50, 45]
    assert rule.nearer(52.0, 55.0, 50).tolist() == []
    assert ColumnRule("x", levels=(0.0, 1.0)).nearer(0.0, 1.0, 50).tolist() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost": 0.0},
        {"cost": math.inf},
        {"step": 0.0},
        {"step": math.nan},
        {"low": 11.0},
        {"high": math.inf},
        {"low": math.nan},
    ],
)
def test_a_rule_that_leaves_nothing_to_search_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"x: (cost|step|low and high) must be"):
        number(**wrong)


def test_an_immutable_column_without_a_range_cannot_be_freed() -> None:
    fixed = ColumnRule("x", is_immutable=True)
    assert fixed.freed is fixed
    assert number(is_immutable=True, direction="up").freed == number()
