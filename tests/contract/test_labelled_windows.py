"""Hours of labelled decisions: counted once each, anew when labels come, on both databases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from decisions import START
from disposals import ERASURE
from labelling import label_of, predicted, scored, store_labelled, two_classes
from sqlalchemy import insert

from service.disposal import erase, hold
from service.evidence import EvidenceStore
from service.evidence.labelled import PAGE
from service.evidence.tables import erasures
from service.performance import windows
from service.performance.tally import HITS, ROWS, Shape, Tally
from service.performance.windows import Measured

SHAPE = Shape(("0", "1"))
VERSION = ("credit", 3)
OWN = Measured(*VERSION, "sha256:1", SHAPE)
NOW = START + timedelta(days=1)
SINCE = START - timedelta(hours=1)


def find(version: tuple[str, int]) -> Measured | None:
    return OWN if version == VERSION else None


def looked(store: EvidenceStore, now: datetime = NOW) -> int:
    """How many hours were counted."""
    stale = windows.stale_hours(store, find, since=SINCE, now=now)
    for hour in stale:
        assert windows.recount(store, hour, rest=lambda: True)
    return len(stale)


def counted(store: EvidenceStore) -> Tally:
    return windows.summed(store, OWN, since=SINCE).tally


def hits(tally: Tally) -> float:
    return float(SHAPE.calibration(tally)[:, HITS].sum())


def test_hours_are_counted_once_and_only_those_with_new_labels_again(store: EvidenceStore) -> None:
    scores, labels = scored(200, strength=1.0)
    for hours in (0, 3):
        store_labelled(store, START + timedelta(hours=hours), scores, labels)
    assert looked(store) == 2
    assert looked(store) == 0
    store_labelled(store, START + timedelta(hours=3, minutes=5), scores, labels)
    assert looked(store) == 1
    assert counted(store)[ROWS] == 600
    assert windows.versions(store, since=SINCE) == [VERSION]


def test_the_last_label_of_a_decision_counts_whoever_told_it(store: EvidenceStore) -> None:
    about = predicted([two_classes(0.9), two_classes(0.9)], START)
    store.append(about)
    store.append(label_of(about, [0, 0]))
    looked(store)
    assert hits(counted(store)) == 0
    store.append(label_of(about, [1, 1], actor="bob"))
    assert looked(store) == 1
    assert (counted(store)[ROWS], hits(counted(store))) == (2, 2)


def test_all_pages_of_an_hour_are_counted_also_of_one_moment_and_several_tenants(
    store: EvidenceStore,
) -> None:
    count = PAGE + PAGE // 2
    for i in range(count):
        about = predicted([two_classes(0.7)], START, tenant=f"tenant-{i % 3}")
        store.append(about)
        store.append(label_of(about, [1]))
    looked(store)
    assert counted(store)[ROWS] == count


def test_what_was_erased_is_left_out(store: EvidenceStore) -> None:
    kept, gone = (predicted([two_classes(0.9)], START + timedelta(seconds=i)) for i in (0, 1))
    for about in (kept, gone):
        store.append(about)
        store.append(label_of(about, [1]))
    assert erase(store, [("default", gone.request_id)], ERASURE).erased == 1
    looked(store)
    assert counted(store)[ROWS] == 1


def test_what_was_erased_is_left_out_whatever_stands_there(store: EvidenceStore) -> None:
    about = predicted([two_classes(0.9)], START)
    store.append(about)
    store.append(label_of(about, [1]))
    row = {"request_id": about.request_id, "subject": "", "event_id": "e", "erased_us": 0}
    with store.changing() as connection:
        connection.execute(insert(erasures).values(tenant="default", kind="erasure", **row))
    looked(store)
    assert counted(store)[ROWS] == 0


def test_what_is_in_quarantine_is_left_out(store: EvidenceStore) -> None:
    scores, labels = scored(20, strength=1.0)
    store_labelled(store, START, scores, labels)
    about = predicted([two_classes(0.9)], START)
    store.append(about)
    store.append(label_of(about, [1]))
    hold(store, [("default", about.request_id)], ERASURE.order, kind="quarantine")
    looked(store)
    assert counted(store)[ROWS] == 20


def test_an_end_of_the_service_stores_no_half_hour(store: EvidenceStore) -> None:
    store_labelled(store, START, *scored(100, strength=1.0))
    (hour,) = windows.stale_hours(store, find, since=SINCE, now=NOW)
    assert not windows.recount(store, hour, rest=lambda: False)
    assert counted(store)[ROWS] == 0
    assert looked(store) == 1


def test_large_hours_wait_until_they_have_grown_or_an_hour_has_passed(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.performance.windows.SMALL_HOUR", 10)
    at = datetime.now(UTC)
    store_labelled(store, START, *scored(20, strength=1.0), size=1)
    assert looked(store, at) == 1
    store_labelled(store, START + timedelta(minutes=5), *scored(1, strength=1.0), size=1)
    assert looked(store, at) == 0
    assert looked(store, at + timedelta(hours=2)) == 1


def test_the_reference_is_frozen_once(store: EvidenceStore) -> None:
    first, second = SHAPE.empty() + 1, SHAPE.empty() + 2
    assert windows.keep_reference(store, OWN, first, (SINCE, NOW))
    assert not windows.keep_reference(store, OWN, second, (SINCE, NOW))
    kept = windows.reference(store, OWN)
    assert kept is not None
    assert np.array_equal(kept, first)
    assert windows.reference(store, replace(OWN, version=4)) is None


def test_old_hours_are_deleted(store: EvidenceStore) -> None:
    store_labelled(store, START, *scored(10, strength=1.0))
    looked(store)
    assert windows.forget(store, before=START - timedelta(hours=2)) == 0
    assert windows.forget(store, before=NOW) == 1


def test_another_model_of_the_same_number_is_counted_and_compared_on_its_own(
    store: EvidenceStore,
) -> None:
    store_labelled(store, START, *scored(10, strength=1.0))
    looked(store)
    assert windows.keep_reference(store, OWN, SHAPE.empty(), (SINCE, NOW))
    other = replace(OWN, digest="sha256:2")
    assert windows.summed(store, other, since=SINCE).tally[ROWS] == 0
    assert windows.reference(store, other) is None
    assert len(windows.stale_hours(store, lambda _: other, since=SINCE, now=NOW)) == 1
    assert windows.keep_reference(store, other, other.shape.empty(), (SINCE, NOW))


def test_tallies_of_another_length_are_left_out(store: EvidenceStore) -> None:
    store_labelled(store, START, *scored(10, strength=1.0))
    looked(store)
    windows.keep_reference(store, OWN, SHAPE.empty(), (SINCE, NOW))
    longer = replace(OWN, shape=Shape(("0", "1", "2")))
    assert windows.summed(store, longer, since=SINCE).tally[ROWS] == 0
    assert windows.reference(store, longer) is None


def test_a_version_that_is_gone_has_no_hours_and_uncounted_hours_come_first(
    store: EvidenceStore,
) -> None:
    for hours in range(8):
        store_labelled(store, START + timedelta(hours=hours), *scored(10, strength=1.0))
    assert windows.stale_hours(store, lambda _: None, since=SINCE, now=NOW) == []
    for hour in windows.stale_hours(store, find, since=SINCE, now=NOW)[:4]:
        windows.recount(store, hour, rest=lambda: True)
    for hours in range(8):
        at = START + timedelta(hours=hours, minutes=5)
        store_labelled(store, at, *scored(10, strength=1.0))
    found = windows.stale_hours(store, find, since=SINCE, now=NOW)
    assert [one.is_counted for one in found] == [False] * 4 + [True] * 4
