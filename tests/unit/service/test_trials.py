"""When a candidate is given up: soon where it is worse, and seldom where it is not."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from service.evidence import Status
from service.trials import FIRST_LOOK, LEVEL, Arm, Trial, fisher_greater


@pytest.mark.parametrize(
    "table", [(3, 20, 5, 400), (20, 20, 0, 20), (1, 1, 0, 1), (7, 50, 60, 500), (0, 9, 3, 9)]
)
def test_the_test_is_fishers(table: tuple[int, int, int, int]) -> None:
    own, own_count, other, count = table
    expected = fisher_exact([[own, own_count - own], [other, count - other]], "greater").pvalue
    assert fisher_greater(*table) == pytest.approx(expected)


def trial(serving: Arm, requests: int, wrong: int) -> Trial:
    candidate = Arm(requests=requests)
    candidate.wrong["errors"] = wrong
    return Trial(serving, candidate)


def test_a_candidate_that_fails_is_given_up_at_the_first_look_and_not_before() -> None:
    serving = Arm(requests=400)
    assert trial(serving, FIRST_LOOK - 1, FIRST_LOOK - 1).breach() is None
    reason = trial(serving, FIRST_LOOK, FIRST_LOOK).breach()
    assert reason is not None
    assert reason.startswith("errors: 20 of 20 against 0 of 400")


def test_each_sli_can_be_the_reason() -> None:
    for sli in ("failed_explanations", "slow"):
        found = Trial(Arm(), Arm())
        for _ in range(200):
            found.serving.answered(0.01, "complete", is_wanted=True)
        for _ in range(FIRST_LOOK):
            seconds = 0.3 if sli == "slow" else 0.01
            status: Status = "failed" if sli == "failed_explanations" else "complete"
            found.candidate.answered(seconds, status, is_wanted=True)
        assert (found.breach() or "").startswith(sli)


@pytest.mark.parametrize(
    ("status", "is_wanted", "expected"),
    [
        ("complete", True, (0, 1)),
        ("failed", True, (1, 1)),
        ("skipped", True, (1, 1)),
        ("pending", True, (0, 0)),
        ("skipped", False, (0, 0)),
        (None, False, (0, 0)),
    ],
)
def test_an_explanation_that_is_wanted_and_not_made_went_wrong(
    status: Status | None,
    is_wanted: bool,  # noqa: FBT001
    expected: tuple[int, int],
) -> None:
    arm = Arm()
    arm.answered(0.01, status, is_wanted=is_wanted)
    assert arm.of("failed_explanations") == expected


def test_what_is_as_bad_as_the_serving_version_stays() -> None:
    serving = Arm(requests=4000)
    serving.wrong["errors"] = 400
    assert trial(serving, 100, 10).breach() is None


def test_a_difference_that_matters_to_nobody_is_none() -> None:
    serving = Arm(requests=10_000_000)
    assert trial(serving, 1_000_000, 5_000).breach() is None


def test_looking_again_and_again_gives_up_few_equal_candidates() -> None:
    """1,000 rollouts of up to 5,120 canary requests, both versions failing 5 % of them."""
    rng, given_up = np.random.default_rng(3), 0
    for _ in range(1000):
        own = np.cumsum(rng.random(5120) < 0.05)
        other = np.cumsum(rng.random(5120 * 4) < 0.05)
        found = Trial()
        for look in range(9):
            n = FIRST_LOOK << look
            found.candidate.requests, found.serving.requests = n, 4 * n
            found.candidate.wrong["errors"] = int(own[n - 1])
            found.serving.wrong["errors"] = int(other[4 * n - 1])
            if found.breach() is not None:
                given_up += 1
                break
    assert given_up <= 1000 * LEVEL


def test_a_look_is_taken_once_for_each_doubling() -> None:
    found = trial(Arm(requests=400), FIRST_LOOK, 0)
    assert found.breach() is None
    assert found.look == 1
    found.candidate.wrong["errors"] = FIRST_LOOK
    assert found.breach() is None
    found.candidate.requests = 2 * FIRST_LOOK
    assert found.breach() is not None
