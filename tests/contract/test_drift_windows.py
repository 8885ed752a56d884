"""Windows of drift: exact over replicas, restarts and lost answers, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from drifts import Clock, baseline_of_people, rows_of_people, see, tally_of

from service.drift import windows
from service.drift.baseline import Baseline
from service.drift.bins import Tally
from service.drift.keeping import Keeper
from service.evidence import EvidenceStore, StoreUnavailableError
from service.evidence.tables import drift_windows

BASELINE = baseline_of_people()
HOUR = 3600.0


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as store:
        yield store


def stored(
    store: EvidenceStore, clock: Clock, *, hours: float = 24, baseline: Baseline = BASELINE
) -> Tally:
    now = datetime.fromtimestamp(clock.now, UTC)
    since = windows.look_since(now, hours)
    return windows.summed(store, baseline, since, now + timedelta(hours=1))


def test_two_replicas_and_a_restart_add_up_to_one_that_saw_everything(store: EvidenceStore) -> None:
    clock, parts = Clock(), [rows_of_people(50 + seed, seed) for seed in range(9)]
    keepers = [Keeper(store, clock.tallies()) for _ in range(2)]
    for turn, rows in enumerate(parts):
        if turn == 4:
            keepers[0].save()
            keepers[0] = Keeper(store, clock.tallies())  # the first replica starts again
        see(keepers[turn % 2].tallies, BASELINE, rows)
        keepers[turn % 2].save()
    assert np.array_equal(stored(store, clock), tally_of(BASELINE, np.concatenate(parts)))


def test_storing_twice_counts_once(store: EvidenceStore) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    see(keeper.tallies, BASELINE, rows_of_people(40))
    keeper.tallies.count()
    unsaved = keeper.tallies.unsaved()
    windows.save(store, unsaved)  # its answer is lost: it is not known to be stored
    keeper.save()
    keeper.save()
    assert stored(store, clock)[0] == 40


def test_while_the_store_is_away_counting_goes_on(store: EvidenceStore, url: str) -> None:
    clock = Clock()
    gone = EvidenceStore.open(url)
    keeper = Keeper(gone, clock.tallies())
    see(keeper.tallies, BASELINE, rows_of_people(10))
    with store.changing() as connection:
        connection.exec_driver_sql("ALTER TABLE drift_windows RENAME TO elsewhere")
    with pytest.raises(StoreUnavailableError):
        keeper.save()
    see(keeper.tallies, BASELINE, rows_of_people(5))
    with store.changing() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO drift_windows")
    keeper.save()
    gone.close()
    assert stored(store, clock)[0] == 15


def test_rows_belong_to_the_hour_they_came_in(store: EvidenceStore) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    see(keeper.tallies, BASELINE, rows_of_people(10))
    clock.now += HOUR
    see(keeper.tallies, BASELINE, rows_of_people(3))
    keeper.save()
    assert stored(store, clock)[0] == 13
    assert stored(store, clock, hours=0.01)[0] == 3


def test_a_clock_that_steps_back_into_a_stored_hour_replaces_nothing(store: EvidenceStore) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    for step, count in ((0.0, 10), (HOUR, 20), (-HOUR, 30)):
        clock.now += step
        see(keeper.tallies, BASELINE, rows_of_people(count))
        keeper.save()
    clock.now += HOUR
    assert stored(store, clock)[0] == 60


def test_an_hour_that_is_over_and_stored_is_let_go_of(store: EvidenceStore) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    see(keeper.tallies, BASELINE, rows_of_people(10))
    keeper.save()
    clock.now += HOUR
    see(keeper.tallies, BASELINE, rows_of_people(10))
    keeper.save()
    assert len(keeper.tallies._windows) == 1


def test_what_was_counted_in_other_bins_or_of_another_version_is_left_out(
    store: EvidenceStore,
) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    others = baseline_of_people(digest="1" * 16), baseline_of_people(version=2)
    for baseline in (BASELINE, *others):
        see(keeper.tallies, baseline, rows_of_people(10))
    keeper.save()
    assert stored(store, clock)[0] == 10
    assert stored(store, clock, baseline=others[1])[0] == 10


def test_old_windows_are_deleted_and_young_ones_kept(store: EvidenceStore) -> None:
    clock = Clock()
    keeper = Keeper(store, clock.tallies())
    for count in (10, 20):
        see(keeper.tallies, BASELINE, rows_of_people(count))
        clock.now += 40 * 24 * HOUR
    keeper.save()
    before = datetime.fromtimestamp(clock.now, UTC) - timedelta(days=41)
    assert windows.forget(store, before=before) == 1
    assert stored(store, clock, hours=24 * 365)[0] == 20
    with store.reading() as connection:
        assert len(connection.execute(drift_windows.select()).all()) == 1


def test_a_full_buffer_drops_rows_and_counts_them() -> None:
    clock, rows = Clock(), rows_of_people(100)
    tallies = clock.tallies(most_bytes=15_000)
    for _ in range(3):
        see(tallies, BASELINE, rows)
    assert clock.dropped == [100]
    tallies.count()
    see(tallies, BASELINE, rows)
    tallies.count()
    assert [window.tally[0] for window in tallies.unsaved().values()] == [300]
