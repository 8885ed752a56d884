"""`[models.NAME.recourse]`: defaults, goals, and misfits that name their place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import CLASSIFIER, REGRESSION, SCHEMA, policy, policy_file

from explainers.counterfactual import ColumnRule
from schemas import SeenRanges
from service.errors import InvalidInputError
from service.policy import Goal, Recourse

SEEN = SeenRanges.of(
    SCHEMA, {"amount": (100, 700), "duration": (4, 60), "credit amount": (5, 5), "value": (0, 0.37)}
)
SEEING = replace(CLASSIFIER, seen=SEEN)
DECISION = """
[models.loans.decision]
name = "decline"
otherwise = "accept"
class = "bad"
at_least = 0.4
"""


def recourse(folder: Path, text: str, *, decision: str = DECISION, **options: Any) -> Recourse:
    section = f"{decision}\n[models.loans.recourse]\n{text}"
    found = policy(folder, section, **{"vocabulary": SEEING} | options).recourse
    assert found is not None
    return found


def rules(folder: Path, columns: str, **options: Any) -> dict[str, ColumnRule]:
    text = f'target = "accept"\n[models.loans.recourse.columns]\n{columns}'
    return {rule.name: rule for rule in recourse(folder, text, **options).rules}


def test_nothing_may_change_that_is_not_named(tmp_path: Path) -> None:
    found = recourse(tmp_path, 'target = "accept"')
    assert (found.most, found.changes, found.rows) == (3, 4, 20_000)
    assert all(rule.is_immutable for rule in found.rules)
    assert policy(tmp_path, DECISION).recourse is None


def test_columns_that_are_free_have_the_range_seen_and_all_levels(tmp_path: Path) -> None:
    found = recourse(tmp_path, 'target = "accept"\nothers = "free"').rules
    assert found == (
        ColumnRule("amount", low=100, high=700, step=5, cost=1 / 600),
        ColumnRule("duration", low=4, high=60, step=1, cost=1 / 56),
        ColumnRule("status", levels=(0.0, 1.0)),
        ColumnRule("branch", levels=(0.0, 1.0)),
        ColumnRule("rating", levels=(0.0, 1.0, 2.0)),
        ColumnRule("is_owner", levels=(0.0, 1.0)),
        ColumnRule("credit amount", is_immutable=True),
        ColumnRule("value", low=0, high=0.37, step=0.002, cost=1 / 0.37),
    )


def test_what_the_file_says_of_a_column_stands_in_its_rule(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        'amount = { direction = "down", low = 50, high = 500, step = 10, cost = 0.5 }\n'
        'rating = { levels = [3, 1], direction = "up", cost = 2 }\n'
        'is_owner = { direction = "up" }\n'
        'duration = "immutable"',
    )
    assert found["amount"] == ColumnRule(
        "amount", direction="down", low=50, high=500, step=10, cost=0.5
    )
    assert found["rating"] == ColumnRule("rating", direction="up", levels=(2.0, 0.0), cost=2)
    assert found["is_owner"] == ColumnRule("is_owner", direction="up", levels=(0.0, 1.0))
    assert found["duration"].is_immutable


def test_the_widest_rules_are_what_was_seen_and_both_ways(tmp_path: Path) -> None:
    text = """target = "accept"
    [models.loans.recourse.columns]
    amount = { direction = "down", low = 50, high = 500 }
    rating = { levels = [1, 2], direction = "up" }"""
    wider = {rule.name: rule for rule in recourse(tmp_path, text).wider}
    assert (wider["amount"].low, wider["amount"].high) == (50, 700)
    assert wider["amount"].direction == "both"
    assert wider["rating"].levels == (0.0, 1.0, 2.0)
    assert not wider["duration"].is_immutable


def test_a_level_that_holds_personal_data_is_never_advised(tmp_path: Path) -> None:
    hiding = replace(SEEING, personal={"status": frozenset({"0DM"})})
    assert rules(tmp_path, 'status = "free"', vocabulary=hiding)["status"].levels == (1.0,)
    with pytest.raises(InvalidInputError, match="there is no level '0DM'; there are none"):
        rules(tmp_path, 'status = { levels = ["0DM"] }', vocabulary=hiding)


@pytest.mark.parametrize(
    ("target", "margin", "met", "reached"),
    [
        ("accept", 0.0, [0.0, 0.3999], [0.0, 0.3999]),
        ("accept", 0.1, [0.0, 0.3999], [0.0, 0.2999]),
        ("decline", 0.0, [0.4, 1.0], [0.4, 1.0]),
        ("decline", 0.1, [0.4, 1.0], [0.5, 1.0]),
    ],
)
def test_a_side_of_a_threshold_is_reached_with_its_margin(
    tmp_path: Path, target: str, margin: float, met: list[float], reached: list[float]
) -> None:
    goal = recourse(tmp_path, f'target = "{target}"\nmargin = {margin}').goal
    bad = np.array([0.0, 0.2999, 0.3001, 0.3999, 0.4, 0.4999, 0.5, 1.0])
    served = np.column_stack([1 - bad, bad])
    is_met = [goal.is_met(row) for row in served]
    assert is_met == [met[0] <= p <= met[1] for p in bad]
    assert (goal.scores(served) >= goal.limit).tolist() == [
        reached[0] <= p <= reached[1] for p in bad
    ]


def test_without_a_decision_the_target_is_a_class(tmp_path: Path) -> None:
    goal = recourse(tmp_path, 'target = "good"\nmargin = 0.2', decision="").goal
    served = np.array([[0.5, 0.5], [0.55, 0.45], [0.7, 0.3], [0.4, 0.6]])
    assert [goal.is_met(row) for row in served] == [True, True, True, False]
    assert (goal.scores(served) >= goal.limit).tolist() == [False, False, True, False]
    any_lead = Goal("good", 0.0, 0, float(np.nextafter(0, 1)))
    assert (any_lead.scores(served) >= any_lead.limit).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "models.loans.recourse.target: Field required"),
        ('target = "accep"', "no outcome of the decision 'accep'; did you mean 'accept'?"),
        ('target = "good"', "there is no outcome of the decision 'good'"),
        ('target = "accept"\nmargin = 0.4', "no probability is that far beyond the threshold"),
        ('target = "decline"\nmargin = 0.61', "no probability is that far beyond the threshold"),
        ('target = "accept"\nmargin = -1', "models.loans.recourse.margin"),
        ('target = "accept"\nmost = 0', "models.loans.recourse.most"),
        ('target = "accept"\nchanges = 9', "models.loans.recourse.changes"),
        ('target = "accept"\nrows = 10', "models.loans.recourse.rows"),
        ('target = "accept"\nothers = "some"', "models.loans.recourse.others"),
        ('target = "accept"\nmargins = 1', "models.loans.recourse.margins"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        recourse(tmp_path, text)
    assert place in str(refused.value)
    assert "models.loans.recourse" in str(refused.value)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ('amout = "free"', "there is no column 'amout'; did you mean 'amount'?"),
        ('amount = "fee"', 'recourse.columns.amount: give "immutable", "free" or a table'),
        ("amount = { cost = 0 }", "recourse.columns.amount.cost"),
        ("amount = { costs = 1 }", "recourse.columns.amount.costs"),
        ("amount = { low = 9, high = 8 }", "recourse.columns.amount: low is above high"),
        ("amount = { immutable = true, low = 1 }", "what is immutable has no limits"),
        ('amount = { direction = "left" }', "recourse.columns.amount.direction"),
        ("amount = { levels = [1] }", "column 'amount': only categories have levels"),
        ("amount = { low = 800 }", "column 'amount': give low and high"),
        ("duration = { step = 0.5 }", "column 'duration': an integer column needs a whole step"),
        ("rating = { low = 1 }", "column 'rating': low, high and step are for numbers"),
        ("rating = { levels = [1, 4] }", "column 'rating': there is no level 4"),
        ("rating = { levels = [1, true] }", "column 'rating': there is no level True"),
        ("rating = { levels = [1, 1] }", "column 'rating': levels names one twice"),
        ("rating = { levels = [] }", "recourse.columns.rating.levels"),
        ('status = { direction = "up" }', "column 'status': a direction needs levels"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_with_its_place(
    tmp_path: Path, column: str, reason: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        rules(tmp_path, column)
    assert reason in str(refused.value)
    assert "models.loans.recourse" in str(refused.value)


def test_a_number_needs_a_range_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="column 'amount': give low and high"):
        rules(tmp_path, 'amount = "free"', vocabulary=CLASSIFIER)
    found = rules(tmp_path, "amount = { low = 0, high = 10 }", vocabulary=CLASSIFIER)
    assert (found["amount"].low, found["amount"].high, found["amount"].step) == (0, 10, 0.1)


def test_a_regression_needs_a_decision(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="a regression needs"):
        recourse(tmp_path, 'target = "low"', decision="", vocabulary=REGRESSION)
    decided = '[models.loans.decision]\nname = "high"\notherwise = "low"\nat_least = 3.5\n'
    goal = recourse(
        tmp_path, 'target = "low"\nmargin = 1', decision=decided, vocabulary=REGRESSION
    ).goal
    assert (goal.scores(np.array([[2.4], [2.5], [3.4]])) >= goal.limit).tolist() == [
        True,
        False,
        False,
    ]


def test_recourse_is_about_one_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"default: recourse is about one model"):
        policy_file(tmp_path, '[default.recourse]\ntarget = "accept"')


def test_another_recourse_is_another_version_of_the_policy(tmp_path: Path) -> None:
    section = DECISION + '[models.loans.recourse]\ntarget = "accept"\nmargin = {}'
    versions = {
        policy(tmp_path, section.format(margin), vocabulary=SEEING).version for margin in (0, 0.1)
    }
    assert len(versions) == 2
