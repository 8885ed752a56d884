"""What is told of drift, and when it is over."""

from dataclasses import replace

import pytest
from drifts import baseline_of_people, rows_of_people, tally_of

from service.drift.comparing import Comparison, compare
from service.drift.episodes import facts_of, is_over

BASELINE = baseline_of_people()
OF_INPUTS = {"kind": "feature", "order_lost": []}
OF_ATTRIBUTIONS = {"kind": "attribution", "order_lost": []}
OF_ORDER = {"kind": "order", "order_lost": ["value"]}


def quiet() -> Comparison:
    tally = tally_of(BASELINE, rows_of_people(3000, 2))
    return compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally)


def with_share_shift(found: Comparison, shift: float) -> Comparison:
    first, *others = found.of("attribution")
    moved = replace(first, share_before=0.2, share_after=0.2 + shift)
    return replace(found, findings=(moved, *others, *found.of("feature")))


def without_explained(found: Comparison) -> Comparison:
    return replace(found, explained=(2000, 10), findings=tuple(found.of("feature")), ndcg={})


def test_drift_is_over_when_everything_is_as_it_was() -> None:
    for facts in (OF_INPUTS, OF_ATTRIBUTIONS, OF_ORDER):
        assert is_over(quiet(), facts)


@pytest.mark.parametrize(("shift", "expected"), [(0.045, False), (-0.045, False), (0.03, True)])
def test_a_share_near_its_limit_is_not_over(*, shift: float, expected: bool) -> None:
    assert is_over(with_share_shift(quiet(), shift), OF_ATTRIBUTIONS) is expected


@pytest.mark.parametrize(("ndcg", "expected"), [(0.91, False), (0.93, True)])
def test_an_order_near_its_limit_is_not_over(*, ndcg: float, expected: bool) -> None:
    assert is_over(replace(quiet(), ndcg={"value": ndcg}), OF_ORDER) is expected


def test_without_explained_rows_only_drift_of_inputs_is_over() -> None:
    found = without_explained(quiet())
    assert is_over(found, OF_INPUTS)
    assert not is_over(found, OF_ATTRIBUTIONS)
    assert not is_over(found, OF_ORDER)


def test_few_rows_end_nothing() -> None:
    assert not is_over(replace(quiet(), rows=(5000, 10)), OF_INPUTS)


def test_an_order_that_was_lost_names_its_outputs() -> None:
    found = replace(quiet(), ndcg={"yes": 0.8, "no": 0.95, "maybe": 0.7})
    assert facts_of(found) == {
        "kind": "order",
        "feature": "maybe",
        "ndcg": 0.7,
        "order_lost": ["maybe", "yes"],
    }


def test_an_attribution_that_moved_is_told_with_its_shares() -> None:
    found = with_share_shift(quiet(), 0.1)
    moved = replace(found.findings[0], is_alarm=True)
    facts = facts_of(replace(found, findings=(moved, *found.findings[1:])))
    assert facts["kind"] == "attribution"
    assert (facts["share_before"], facts["share_after"]) == (0.2, pytest.approx(0.3))
