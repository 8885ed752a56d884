"""Token buckets in instances a minute: what passes, what waits, and for how long exactly."""

from dataclasses import dataclass, replace
from timeit import timeit

import pytest

from service.auth import LOCAL, Caller
from service.errors import QuotaExceededError
from service.quotas import MOST_SHOWN, Quotas

ANN = Caller("ann", "default", frozenset({"predict", "explain"}), "api_key")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused_for(quotas: Quotas, caller: Caller, instances: int, *, explain: bool = True) -> int:
    """Seconds the refusal names; 0 where the request passes."""
    try:
        quotas.take(caller, instances, predict=True, explain=explain)
    except QuotaExceededError as error:
        return error.retry_after_seconds or -1
    return 0


def test_a_minutes_worth_passes_at_once_and_then_as_much_as_flows_in(clock: Clock) -> None:
    quotas = Quotas(explain_per_minute=60, clock=clock)
    assert [refused_for(quotas, ANN, 1) for _ in range(61)] == [0] * 60 + [1]
    clock.now += 10
    assert [refused_for(quotas, ANN, 1) for _ in range(11)] == [0] * 10 + [1]
    clock.now += 1e6
    assert [refused_for(quotas, ANN, 1) for _ in range(61)] == [0] * 60 + [1]


@pytest.mark.parametrize("limit", [1, 7, 60, 600])
@pytest.mark.parametrize("instances", [1, 3, 50, 1000])
def test_who_comes_when_he_was_told_to_is_let_in_and_a_second_earlier_is_not(
    clock: Clock, limit: int, instances: int
) -> None:
    quotas = Quotas(explain_per_minute=limit, clock=clock)
    assert refused_for(quotas, ANN, limit) == 0
    clock.now += 0.01
    seconds = refused_for(quotas, ANN, instances)
    clock.now += seconds - 1
    assert refused_for(quotas, ANN, instances) == 1
    clock.now += 1
    assert refused_for(quotas, ANN, instances) == 0


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_off(
    clock: Clock,
) -> None:
    quotas = Quotas(explain_per_minute=60, clock=clock)
    assert refused_for(quotas, ANN, 600) == 0
    assert refused_for(quotas, ANN, 1) == 541
    clock.now += 541
    assert refused_for(quotas, ANN, 1) == 0


def test_a_refused_request_takes_nothing_of_either_quota(clock: Clock) -> None:
    quotas = Quotas(predict_per_minute=10, explain_per_minute=5, clock=clock)
    assert refused_for(quotas, ANN, 5) == 0
    assert refused_for(quotas, ANN, 5) > 0
    assert refused_for(quotas, ANN, 5, explain=False) == 0
    assert refused_for(quotas, ANN, 1, explain=False) > 0


def test_each_principal_has_a_bucket_and_a_key_its_own_limits(clock: Clock) -> None:
    quotas = Quotas(explain_per_minute=5, clock=clock)
    ben = replace(ANN, principal="ben", explain_per_minute=2)
    free = replace(ANN, principal="free", explain_per_minute=0)
    assert [refused_for(quotas, ANN, 5), refused_for(quotas, ben, 2)] == [0, 0]
    assert refused_for(quotas, ANN, 1) == 12
    assert refused_for(quotas, ben, 1) == 30
    assert refused_for(quotas, free, 10**6) == refused_for(quotas, free, 10**6) == 0


def test_a_renewed_key_does_not_fill_the_bucket(clock: Clock) -> None:
    quotas = Quotas(explain_per_minute=5, clock=clock)
    assert refused_for(quotas, ANN, 5) == 0
    assert refused_for(quotas, replace(ANN, explain_per_minute=5), 1) > 0


def test_what_was_shown_is_remembered_whatever_others_are_shown(clock: Clock) -> None:
    quotas = Quotas(explain_per_minute=MOST_SHOWN + 1, clock=clock)
    bob = replace(ANN, principal="bob")
    quotas.take_shown(ANN, "first", 1)
    for n in range(MOST_SHOWN):
        quotas.take_shown(bob, f"another-{n}", 1)
    assert quotas.was_shown(ANN, "first")
    for n in range(MOST_SHOWN):
        assert quotas.was_shown(ANN, "first")
        quotas.take_shown(ANN, f"later-{n}", 1)
    assert [quotas.was_shown(ANN, name) for name in ("first", "later-0")] == [True, False]


def test_without_keys_there_is_no_quota(clock: Clock) -> None:
    quotas = Quotas(1, 1, clock=clock)
    assert [refused_for(quotas, LOCAL, 1000) for _ in range(3)] == [0, 0, 0]


def test_counting_costs_a_microsecond_or_two() -> None:
    quotas = Quotas(10**9, 10**9)
    times = 20_000
    spent = min(
        timeit(lambda: quotas.take(ANN, 1, predict=True, explain=True), number=times)
        for _ in range(5)
    )
    assert spent / times < 10e-6  # a machine under test load; alone it takes 1.1 us


def searched(quotas: Quotas, caller: Caller) -> bool:
    try:
        quotas.take_recourse(caller)
    except QuotaExceededError:
        return False
    return True


def test_counterfactuals_have_a_quota_beside_the_others(clock: Clock) -> None:
    quotas = Quotas(predict_per_minute=5, explain_per_minute=5, recourse_per_minute=2, clock=clock)
    assert [searched(quotas, ANN) for _ in range(3)] == [True, True, False]
    assert refused_for(quotas, ANN, 5) == 0
    assert refused_for(quotas, ANN, 1) > 0
    clock.now += 30
    assert [searched(quotas, ANN) for _ in range(2)] == [True, False]
    assert searched(quotas, replace(ANN, principal="bob"))
    own = replace(ANN, principal="dora", recourse_per_minute=1)
    assert [searched(quotas, own) for _ in range(2)] == [True, False]
    assert all(searched(quotas, LOCAL) for _ in range(9))
