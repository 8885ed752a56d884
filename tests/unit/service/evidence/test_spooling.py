import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from decisions import TEMPLATE
from polling import until
from spools import Lock, files_end_at, spooling_log

from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EventRefusedError,
    EvidenceLog,
    EvidenceStore,
    SpoolLimits,
    StoreUnavailableError,
)
from service.evidence.events import seal
from service.evidence.spool import Spool, rows_of
from service.keystore import Kek, KeyStore

STORED, CONFLICT = AppendOutcome.STORED, AppendOutcome.CONFLICT
SPOOLED, NOT_KEPT = AppendOutcome.SPOOLED, AppendOutcome.NOT_KEPT
Decide = Callable[..., DecisionEvent]
HERE = Path(__file__).parent


def is_drained(log: EvidenceLog) -> bool:
    assert log.spool is not None
    return not log.spool.records and not log.spool.is_needed


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder / "spool").glob("*.segment"))


async def test_a_store_that_works_takes_everything_itself(tmp_path: Path, decide: Decide) -> None:
    async with spooling_log(tmp_path) as (log, tally):
        assert await log.append_best_effort(decide("first-001")) is STORED
        assert await log.append_best_effort(decide("first-001")) is CONFLICT
        assert not tally.counts
    assert not (tmp_path / "spool").exists()


async def test_what_a_locked_store_does_not_take_is_spooled_and_stored_later(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path) as (log, tally):
        lock = Lock(tmp_path)
        events = [decide(f"during-{n:03}") for n in range(20)]
        outcomes = await asyncio.gather(*map(log.append_best_effort, events))
        assert set(outcomes) == {SPOOLED}
        with pytest.raises(StoreUnavailableError, match="locked"):
            await log.append(decide("required-1"))
        assert log.spool is not None
        assert (log.spool.records, log.spool.is_needed, log.spool.is_taking) == (20, True, True)
        folder = tmp_path / "spool"
        assert folder.stat().st_mode & 0o777 == 0o700
        lock.release()
        await until(lambda: is_drained(log))
        assert files(tmp_path) == []
        for event in events:
            stored = await log.get("default", event.request_id)
            assert stored is not None
            assert (stored.event_id, stored.payload) == (event.event_id, event.payload)
        assert await log.append_best_effort(decide("after-0001")) is STORED
        assert await log.get("default", "required-1") is None
    assert tally.counts == {"spooled": 20, "drained": 20, "twins": 0, "refused": 0, "erased": 0}


async def test_a_silent_store_is_waited_for_a_quarter_of_a_second_and_stores_it_once(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path, busy_timeout_seconds=30) as (log, _):
        lock = Lock(tmp_path)
        started = time.monotonic()
        assert await log.append_best_effort(decide("silent-001")) is SPOOLED
        assert 0.25 < time.monotonic() - started < 2
        # From now on nobody waits for it.
        took = []
        for name in ("silent-002", "silent-003", "silent-004"):
            started = time.monotonic()
            assert await log.append_best_effort(decide(name)) is SPOOLED
            took.append(time.monotonic() - started)
        assert min(took) < 0.25
        lock.release()
        await until(lambda: is_drained(log))
        page = await log.list("default")
        names = [f"silent-00{number}" for number in (4, 3, 2, 1)]
        assert [item.request_id for item in page.items] == names


async def test_a_request_that_is_spooled_is_in_conflict_with_its_repetition(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path) as (log, _):
        lock = Lock(tmp_path)
        first = decide("repeated-1")
        assert not log.holds("default", "repeated-1")
        assert await log.append_best_effort(first) is SPOOLED
        assert log.holds("default", "repeated-1")
        assert await log.append_best_effort(decide("repeated-1")) is CONFLICT
        spooled = await log.spooled("default", "repeated-1")
        assert spooled is not None
        assert (spooled.event_id, spooled.payload) == (first.event_id, first.payload)
        assert spooled.part("answer") == b'{"values":[0.1]}'
        assert await log.spooled("default", "unknown-01") is None
        assert await log.spooled("another", "repeated-1") is None
        lock.release()
        await until(lambda: is_drained(log))
        assert not log.holds("default", "repeated-1")
        assert await log.spooled("default", "repeated-1") is None
        assert await log.append_best_effort(decide("repeated-1")) is CONFLICT


async def test_a_repetition_while_the_first_is_on_its_way_is_in_conflict(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path, busy_timeout_seconds=30) as (log, _):
        lock = Lock(tmp_path)
        first = asyncio.ensure_future(log.append_best_effort(decide("twice-0001")))
        await asyncio.sleep(0)
        assert log.holds("default", "twice-0001")
        first.cancel()  # the client went away and tries again
        assert await log.append_best_effort(decide("twice-0001")) is CONFLICT
        await until(lambda: log.spool is not None and log.spool.records == 1)
        lock.release()
        await until(lambda: is_drained(log))
        assert await log.get("default", "twice-0001") is not None


async def test_without_room_for_a_spool_nothing_is_said_to_be_kept(
    tmp_path: Path, decide: Decide
) -> None:
    (tmp_path / "spool").write_text("in the way")
    async with spooling_log(tmp_path) as (log, tally):
        lock = Lock(tmp_path)
        assert await log.append_best_effort(decide("nowhere-01")) is NOT_KEPT
        assert log.spool is not None
        assert not log.spool.is_taking
        lock.release()
        await until(lambda: is_drained(log))
        assert await log.append_best_effort(decide("nowhere-01")) is STORED
        assert tally.counts == {"failed": 1, "not kept": 1}


async def test_a_full_spool_says_so_and_takes_again_once_drained(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path, max_bytes=4000) as (log, tally):
        lock = Lock(tmp_path)
        outcomes = [await log.append_best_effort(decide(f"many-{n:04}")) for n in range(9)]
        kept = outcomes.index(NOT_KEPT)
        assert 1 <= kept < 8
        assert outcomes == [SPOOLED] * kept + [NOT_KEPT] * (9 - kept)
        lock.release()
        await until(lambda: is_drained(log))
        lock = Lock(tmp_path)
        assert await log.append_best_effort(decide("again-0001")) is SPOOLED
        lock.release()
        await until(lambda: is_drained(log))
        assert tally.counts["drained"] == kept + 1


def test_after_a_failed_sync_a_new_file_takes_what_comes(tmp_path: Path, decide: Decide) -> None:
    """What the failure left of the old one is not known."""
    spool = Spool(SpoolLimits(tmp_path / "spool"))
    rows = [seal(decide(f"request-{n}")) for n in range(3)]
    spool.insert(rows[:1])
    (first,) = (tmp_path / "spool").glob("*.segment")
    with files_end_at(first.stat().st_size + 10), pytest.raises(StoreUnavailableError) as failed:
        spool.insert(rows[1:2])
    assert type(failed.value) is StoreUnavailableError  # a part of it was written
    assert spool.is_failing
    spool.insert(rows[2:])
    assert files(tmp_path) == [".segment"] * 2
    kept = []
    while (segment := spool.next_finished()) is not None:
        kept += rows_of(segment)
        spool.discard(segment)
    assert kept == [rows[0], rows[2]]
    spool.close()


async def test_who_looks_back_is_told_the_oldest_of_what_was_spooled(
    tmp_path: Path, decide: Decide
) -> None:
    told: list[datetime] = []
    async with spooling_log(tmp_path) as (log, _):
        log.call_when_drained(told.append)
        lock = Lock(tmp_path)
        first = decide("first-0001")
        later = [
            decide(f"later-{n:04}", received_at=first.received_at + timedelta(seconds=n))
            for n in (1, 2)
        ]
        for event in (later[0], first, later[1]):
            assert await log.append_best_effort(event) is SPOOLED
        lock.release()
        await until(lambda: is_drained(log))
    assert told == [first.received_at]


async def test_closing_while_the_store_is_locked_spools_what_waits(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path, busy_timeout_seconds=0.2) as (log, _):
        lock = Lock(tmp_path)
        waiting = asyncio.ensure_future(log.append_best_effort(decide("closing-01")))
        await asyncio.sleep(0)
    assert await waiting is SPOOLED
    lock.release()
    assert files(tmp_path) == [".segment"]
    async with spooling_log(tmp_path) as (log, tally):
        await until(lambda: is_drained(log))
        assert await log.get("default", "closing-01") is not None
        assert tally.counts["drained"] == 1


async def test_a_spool_that_is_left_is_known_before_it_is_drained(
    tmp_path: Path, decide: Decide
) -> None:
    first = decide("left-00001")
    async with spooling_log(tmp_path) as (log, _):
        lock = Lock(tmp_path)
        assert await log.append_best_effort(first) is SPOOLED
    async with spooling_log(tmp_path) as (log, _):
        assert await log.append_best_effort(decide("left-00001")) is CONFLICT
        spooled = await log.spooled("default", "left-00001")
        assert spooled is not None
        assert spooled.event_id == first.event_id
        lock.release()
        await until(lambda: is_drained(log))


async def test_of_a_damaged_spool_what_is_good_is_stored_and_the_file_stays(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path) as (log, _):
        lock = Lock(tmp_path)
        for n in range(4):
            assert await log.append_best_effort(decide(f"kept-{n:04}")) is SPOOLED
    lock.release()
    (path,) = (tmp_path / "spool").glob("*.segment")
    content = bytearray(path.read_bytes())
    content[content.index(b"kept-0001")] ^= 1
    path.write_bytes(content)
    async with spooling_log(tmp_path) as (log, tally):
        await until(lambda: is_drained(log))
        found = [await log.get("default", f"kept-{n:04}") for n in range(4)]
    assert [one is not None for one in found] == [True, False, True, True]
    assert path.with_suffix(".damaged").read_bytes() == content
    assert not path.exists()
    assert tally.counts["damaged"] == 1


async def test_two_logs_share_a_directory_and_drain_their_own(
    tmp_path: Path, decide: Decide
) -> None:
    async with spooling_log(tmp_path) as (one, tally), spooling_log(tmp_path) as (two, other):
        lock = Lock(tmp_path)
        assert await one.append_best_effort(decide("shared-001")) is SPOOLED
        assert await two.append_best_effort(decide("shared-002")) is SPOOLED
        assert not two.holds("default", "shared-001")
        lock.release()
        await until(lambda: is_drained(one) and is_drained(two))
        assert (tally.counts["drained"], other.counts["drained"]) == (1, 1)


async def test_a_request_two_processes_answered_keeps_both_answers(
    tmp_path: Path, decide: Decide
) -> None:
    mine, theirs = decide("both-00001"), decide("both-00001")
    async with spooling_log(tmp_path) as (log, _):
        lock = Lock(tmp_path)
        assert await log.append_best_effort(mine) is SPOOLED
    lock.release()
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as other:
        assert other.append(theirs) is STORED
    async with spooling_log(tmp_path) as (log, tally):
        await until(lambda: is_drained(log))
        found = await log.get("default", "both-00001")
        assert found is not None
        assert found.event_id == theirs.event_id
        assert (tally.counts["drained"], tally.counts["twins"]) == (1, 1)
    with (
        EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store,
        store.reading() as connection,
    ):
        query = "SELECT event_id, payload FROM events"
        kept = {row.event_id: row.payload for row in connection.exec_driver_sql(query)}
    assert kept == {mine.event_id: mine.payload, theirs.event_id: theirs.payload}


async def test_what_is_spooled_is_encrypted_and_opens_here_and_in_the_store(
    tmp_path: Path, decide: Decide
) -> None:
    planted = b'{"answer":{"age":"PLANTED-7f3a"},"instances":[{"age":33}]}'
    event = decide("sealed-001", payload=planted, parts={"answer": (10, 32)})
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        async with spooling_log(tmp_path, keys=keys) as (log, _):
            lock = Lock(tmp_path)
            assert await log.append_best_effort(event) is SPOOLED
            (segment,) = (tmp_path / "spool").glob("*.segment")
            assert event.event_id.encode() in segment.read_bytes()
            assert b"PLANTED" not in segment.read_bytes()
            spooled = await log.spooled("default", "sealed-001")
            assert spooled is not None
            assert (spooled.payload, spooled.part("answer")) == (planted, b'{"age":"PLANTED-7f3a"}')
            lock.release()
            await until(lambda: is_drained(log))
            stored = await log.get("default", "sealed-001")
            assert stored is not None
            assert (stored.payload, stored.header) == (planted, spooled.header)


async def test_without_a_key_nothing_is_written(tmp_path: Path, decide: Decide) -> None:
    keys = KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32)))
    async with spooling_log(tmp_path, keys=keys) as (log, tally):
        assert await log.append_best_effort(decide("with-key-1")) is STORED
        keys.close()
        assert await log.append_best_effort(decide("without-01")) is NOT_KEPT
        assert tally.counts == {"not kept": 1}


async def test_an_event_no_store_can_hold_is_not_spooled(tmp_path: Path, decide: Decide) -> None:
    unstorable = replace(TEMPLATE, version=2**70)
    async with spooling_log(tmp_path) as (log, tally):
        assert await log.append_best_effort(decide("huge-00001", template=unstorable)) is NOT_KEPT
        assert tally.counts == {"not kept": 1}
        assert is_drained(log)


async def test_a_spooled_event_no_store_can_hold_stays_and_holds_up_no_other(
    tmp_path: Path, decide: Decide
) -> None:
    unstorable = replace(TEMPLATE, version=2**70)
    async with spooling_log(tmp_path) as (log, tally):
        lock = Lock(tmp_path)
        assert await log.append_best_effort(decide("before-001")) is SPOOLED
        assert await log.append_best_effort(decide("huge-00001", template=unstorable)) is SPOOLED
        assert await log.append_best_effort(decide("behind-001")) is SPOOLED
        lock.release()
        await until(lambda: tally.counts["refused"] == 1)
        assert await log.get("default", "before-001") is not None
        assert await log.get("default", "behind-001") is not None
        assert log.spool is not None
        assert log.spool.records == 3  # its whole file stays for somebody to look at
    assert files(tmp_path) == [".segment"]


def test_a_row_no_file_can_hold_is_refused_alone(tmp_path: Path, decide: Decide) -> None:
    spool = Spool(SpoolLimits(tmp_path / "spool"))
    events = [decide("before-001"), decide("spoiled-01", subjects="\udcff"), decide("behind-001")]
    rows = [seal(event) for event in events]
    before, refused, behind = spool.insert(rows)
    assert (before, type(refused), behind) == (SPOOLED, EventRefusedError, SPOOLED)
    assert not spool.is_failing
    segment = spool.next_finished()
    assert segment is not None
    assert [*rows_of(segment)] == [rows[0], rows[2]]
    spool.close()


def spooled_until_killed(folder: Path, *, events: int) -> list[str]:
    command = [sys.executable, str(HERE / "spool_until_killed.py"), str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, env=dict(os.environ)) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(events)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


async def test_no_spooled_event_is_lost_by_kill_9(tmp_path: Path) -> None:
    async with spooling_log(tmp_path):
        pass
    lock = Lock(tmp_path)
    spooled = [
        name for events in (50, 900, 300) for name in spooled_until_killed(tmp_path, events=events)
    ]
    assert len(spooled) >= 1250
    assert len(files(tmp_path)) == 3
    lock.release()
    async with spooling_log(tmp_path) as (log, _):
        await until(lambda: is_drained(log), seconds=30)
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        assert [name for name in spooled if store.get("default", name) is None] == []
    assert files(tmp_path) == []
