"""What is called drift, and what is not."""

import numpy as np
import pytest
from drifts import baseline_of_people, rows_of_people, scores_of, tally_of, values_of

from explainers.base import FloatArray
from service.drift.bins import Bins
from service.drift.comparing import Comparison, Limits, compare

BASELINE = baseline_of_people()


def compared(rows: FloatArray, values_from: FloatArray | None = None) -> Comparison:
    tally = tally_of(BASELINE, rows)
    if values_from is not None:
        start = BASELINE.bins.attributed[0].cells.start
        tally[start:] = tally_of(BASELINE, values_from)[start:]
    return compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally)


def alarms(found: Comparison) -> set[tuple[str, str]]:
    return {(one.kind, one.feature) for one in found.findings if one.is_alarm}


def test_rows_like_the_baselines_raise_nothing() -> None:
    found = compared(rows_of_people(3000, 2))
    assert alarms(found) == set()
    assert not found.is_alarm
    assert len(found.findings) == 4 + 1 + 4
    assert found.ndcg == {"value": 1.0}


def test_a_column_that_moved_is_named_first_with_its_source() -> None:
    rows = rows_of_people(3000, 2)
    rows[:, 0] += 10
    found = compared(rows)
    assert found.is_alarm
    first = found.of("feature")[0]
    assert (first.feature, first.source, first.is_alarm) == ("age", "crm.people", True)
    assert ("feature", "visits") not in alarms(found)


@pytest.mark.parametrize(
    ("column", "value", "share"),
    [(2, -1.0, "unseen"), (0, np.nan, "missing"), (1, 99.0, "out_of_range")],
)
def test_unknown_levels_gaps_and_numbers_never_seen_are_shares_and_drift(
    column: int, value: float, share: str
) -> None:
    rows = rows_of_people(2000, 2)
    rows[:800, column] = value
    found = compared(rows)
    one = next(f for f in found.of("feature") if f.feature == BASELINE.bins.names[column])
    assert getattr(one, share) == pytest.approx(0.4, abs=0.07)
    assert one.is_alarm


def test_attributions_that_moved_alone_are_named() -> None:
    rows = rows_of_people(2000, 2)
    swapped = rows.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    found = compared(rows, values_from=swapped)
    assert {feature for kind, feature in alarms(found) if kind == "attribution"} >= {"age"}
    assert not any(kind == "feature" for kind, _ in alarms(found))


def test_an_order_that_is_lost_is_an_alarm_of_its_own() -> None:
    tally = tally_of(BASELINE, rows_of_people(2000, 2))
    first, *_, last = BASELINE.bins.attributed
    tally[first.sums][0], tally[last.sums][0] = 0, tally[first.sums][0] * 10
    found = compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally)
    assert found.ndcg["value"] < 0.9
    assert found.is_order_lost
    assert found.is_alarm


@pytest.mark.parametrize(("is_baseline", "is_compared"), [(True, False), (False, True)])
def test_explained_rows_that_are_a_selection_are_compared_with_windows_only(
    *, is_baseline: bool, is_compared: bool
) -> None:
    rows = rows_of_people(6000, 2)
    tally = tally_of(BASELINE, rows)
    old = rows[rows[:, 0] > 55]
    start = BASELINE.bins.attributed[0].cells.start
    tally[start:] = tally_of(BASELINE, old)[start:]
    tally[Bins.EXPLAINED] = len(old)
    found = compare(
        BASELINE.bins, BASELINE.names, BASELINE.reference, tally, is_baseline=is_baseline
    )
    assert found.is_selection is not is_compared
    assert found.has_enough("attribution") is is_compared
    assert bool(found.of("attribution")) is is_compared
    assert found.is_alarm is is_compared


def test_rows_nearly_all_of_which_are_explained_are_compared_with_the_baseline() -> None:
    tally = tally_of(BASELINE, rows_of_people(2000, 2))
    tally[Bins.ROWS] += 200
    found = compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally, is_baseline=True)
    assert found.has_enough("attribution")
    assert found.of("attribution")


def test_one_enormous_attribution_does_not_turn_the_order_over() -> None:
    rows = rows_of_people(2000, 2)
    tally = BASELINE.bins.empty()
    values = values_of(rows)
    values[0, 3] = 1e6
    BASELINE.bins.count(rows, scores_of(rows), tally)
    BASELINE.bins.count_values(values, tally)
    found = compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally)
    assert found.ndcg["value"] > 0.99
    assert not found.is_alarm


def test_too_few_rows_say_nothing_however_odd() -> None:
    rows = rows_of_people(999, 2) + 100
    found = compared(rows)
    assert not found.findings
    assert not found.is_alarm
    assert not found.has_enough("feature")
    assert compared(rows_of_people(1000, 2) + 100).is_alarm


def test_a_shift_beyond_chance_but_small_is_no_alarm() -> None:
    before, after = tally_of(BASELINE, rows_of_people(200_000, 3)), rows_of_people(200_000, 5)
    after[:, 0] += 1.0
    found = compare(BASELINE.bins, BASELINE.names, before, tally_of(BASELINE, after))
    age = next(one for one in found.of("feature") if one.feature == "age")
    assert age.p_value < 1e-20
    assert age.psi < 0.1
    assert not age.is_notice


def test_a_shift_that_few_rows_could_show_by_chance_is_no_alarm() -> None:
    limits = Limits(least_rows=20)
    large = 0
    for seed in range(200):
        tally = tally_of(BASELINE, rows_of_people(60, seed))
        found = compare(BASELINE.bins, BASELINE.names, BASELINE.reference, tally, limits)
        large += any(one.psi > 0.25 for one in found.findings)
        assert not any(one.is_alarm for one in found.of("feature"))
    assert large > 20


def test_false_alarms_are_as_rare_as_the_setting_says_were_size_no_matter() -> None:
    limits = Limits(psi_alarm=0.0, share_alarm=0.0, false_alarm_rate=0.05)
    rounds, hits = 400, dict.fromkeys(("feature", "prediction", "attribution"), 0)
    before = tally_of(BASELINE, rows_of_people(20_000, 77))
    for seed in range(rounds):
        tally = tally_of(BASELINE, rows_of_people(1500, 1000 + seed))
        found = compare(BASELINE.bins, BASELINE.names, before, tally, limits)
        for kind in hits:
            hits[kind] += any(one.is_alarm for one in found.findings if one.kind == kind)
    # Binomial: 20 expected of 400, five standard deviations above are 42.
    assert all(0 < count <= 42 for count in hits.values()), hits


def test_a_small_baseline_is_enough_and_one_of_a_handful_is_not() -> None:
    moved = rows_of_people(2000, 2) + 30
    for count, is_enough in ((100, True), (99, False)):
        before = tally_of(BASELINE, rows_of_people(count, 3))
        found = compare(BASELINE.bins, BASELINE.names, before, tally_of(BASELINE, moved))
        assert found.has_enough("feature") is is_enough
        assert found.is_alarm is is_enough
