import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from decisions import ANNA, BERT, CONFLICT, STORED, TEMPLATE, about_two, decision, final, pending
from disposals import ERASURE
from polling import until
from spools import Lock, spooling_log
from sqlalchemy import create_engine, insert
from structlog.testing import capture_logs

from service.disposal import erase, forget_keys
from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EventRefusedError,
    EvidenceLog,
    EvidenceStore,
    NothingWrittenError,
    Record,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
    UnreadableRecord,
)
from service.evidence.boxes import refs_of
from service.evidence.doomed import doom_unstored
from service.evidence.events import Row
from service.evidence.reading import as_queried
from service.evidence.tables import INSERTED_COLUMNS, erasures
from service.keystore import Kek, KeyStore, KeysUnavailableError
from service.keystore.pool import BLOCK_KEYS

N_SECTIONS = 4


def test_without_enough_keys_records_about_several_fail_soon_and_others_do_not(
    url: str, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path}/locked.db"
    with (
        KeyStore.open(address, Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        alone = store.sealer.seal(decision("alone-001"))
        locked = create_engine(address, isolation_level="AUTOCOMMIT")
        with locked.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with suppress(KeysUnavailableError):
                while True:
                    keys.take()
            several = [store.sealer.seal(about_two(f"several-{n}")) for n in range(5)]
            started = time.monotonic()
            *refused, stored = store.store([*several, alone])
            assert time.monotonic() - started < 2
            connection.exec_driver_sql("ROLLBACK")
        locked.dispose()
    assert stored is STORED
    assert {type(each) for each in refused} == {StoreUnavailableError}


def stored_keys(folder: Path) -> int:
    with sqlite3.connect(folder / "keys.db") as connection:
        return int(connection.execute("SELECT count(*) FROM record_keys").fetchone()[0])


async def test_keys_of_what_is_in_conflict_do_not_stay(url: str, tmp_path: Path) -> None:
    kek = Kek(bytes(32))
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", kek) as keys:
        log = await EvidenceLog.open(url, keys=keys)
        assert await log.append(decision("request-1")) is STORED
        assert await log.append(about_two("request-2")) is STORED
        for _ in range(5):
            assert await log.append(decision("request-1")) is CONFLICT
            assert await log.append(about_two("request-2")) is CONFLICT
        assert await log.record("default", "request-1") is not None
        assert await log.record("default", "request-2") is not None
        await log.close()
    assert stored_keys(tmp_path) == 1 + N_SECTIONS


async def test_keys_of_what_is_refused_do_not_stay(url: str, tmp_path: Path) -> None:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        log = await EvidenceLog.open(url, keys=keys, queue_limit=0)
        waiting = pending("request-1")
        for _ in range(5):
            with pytest.raises(StoreBusyError):
                await log.append(waiting)
            with pytest.raises(StoreBusyError):
                await log.append_final(final(waiting))
        await log.close()
        with pytest.raises(StoreUnavailableError):
            await log.append(waiting)
    assert stored_keys(tmp_path) == 0


def test_what_has_no_room_any_more_is_left_to_the_writer(url: str, tmp_path: Path) -> None:
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        event = decision("request-1")
        size = len(event.payload)
        sealed = store.sealer.seal(event, room=size)
        left = store.sealer.seal(decision("request-2"), room=size - 1)
        assert (sealed.row is None, left.row is None) == (False, True)
        assert store.store([sealed, left]) == [STORED, STORED]
        assert store.get("default", "request-2") is not None


async def test_keys_of_conflicts_go_with_the_next_block(url: str, tmp_path: Path) -> None:
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        assert store.append(decision("request-1")) is STORED
        unused = store.sealer.seal(decision("request-1"))
        refs = [key.ref for key in unused.keys]
        assert keys.keys(refs)
        assert store.store([unused]) == [CONFLICT]
        keys.take_many(2 * BLOCK_KEYS + 1)  # the pool may hold a block more than it has to
        await until(lambda: not keys.keys(refs))


async def test_keys_of_a_conflict_that_may_be_spooled_are_given_back_once_it_is_not(
    tmp_path: Path,
) -> None:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        async with spooling_log(tmp_path, keys=keys) as (log, _):
            assert await log.append_best_effort(decision("request-1")) is STORED
            names = ("request-1", "request-2", "request-2")
            appended = [log.append_best_effort(decision(name)) for name in names]
            assert await asyncio.gather(*appended) == [CONFLICT, STORED, CONFLICT]
    assert stored_keys(tmp_path) == 2


async def test_keys_of_what_is_spooled_stay_though_the_store_says_conflict(tmp_path: Path) -> None:
    """Both answers went out: the later one is stored beside the other, under the keys it has."""
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        url = f"sqlite:///{tmp_path}/evidence.db"
        with EvidenceStore.open(url, keys=keys) as other:
            async with spooling_log(tmp_path, keys=keys, busy_timeout_seconds=3.0) as (log, tally):
                assert other.append(decision("request-1")) is STORED
                lock = Lock(tmp_path)
                spooled = decision("request-1")
                assert await log.append_best_effort(spooled) is AppendOutcome.SPOOLED
                lock.release()
                await until(lambda: tally.counts["twins"] == 1)
            (twin,) = other.events([spooled.event_id])
            assert twin.opening is not None
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        (twin,) = store.events([spooled.event_id])
        assert twin.opening is not None
    assert stored_keys(tmp_path) == 2


async def test_keys_of_what_the_database_cannot_hold_do_not_stay(tmp_path: Path) -> None:
    huge = decision(model=replace(TEMPLATE, version=2**70))
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        async with spooling_log(tmp_path, keys=keys) as (log, _):
            with pytest.raises(EventRefusedError):
                await log.append(huge)
            assert await log.append_best_effort(huge) is AppendOutcome.NOT_KEPT
            assert await log.append_best_effort(decision("request-1")) is STORED
    assert stored_keys(tmp_path) == 1


async def test_keys_of_what_is_beside_an_event_that_cannot_be_sealed_do_not_stay(
    tmp_path: Path,
) -> None:
    unsealable = replace(decision(), subjects="[")
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        log = await EvidenceLog.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys)
        loop = asyncio.get_running_loop()
        with pytest.raises(orjson.JSONDecodeError):
            log.submit([(event, loop.create_future()) for event in (decision(), unsealable)])
        await log.close()
    assert stored_keys(tmp_path) == 0


@pytest.mark.parametrize("is_busy", [False, True])
async def test_keys_of_what_neither_store_nor_spool_takes_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_busy: bool
) -> None:
    if is_busy:
        monkeypatch.setattr("service.evidence.spooling.QUEUE_LIMIT", 0)
    else:
        (tmp_path / "spool").write_text("in the way")
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        async with spooling_log(tmp_path, keys=keys, busy_timeout_seconds=30) as (log, _):
            assert await log.append(decision("request-1")) is STORED
            lock = Lock(tmp_path)
            waiting = asyncio.ensure_future(log.append_best_effort(decision("request-1")))
            assert await waiting is AppendOutcome.NOT_KEPT  # the store may take it still
            passed = [log.append_best_effort(about_two(f"passed-{n}")) for n in range(3)]
            assert set(await asyncio.gather(*passed)) == {AppendOutcome.NOT_KEPT}
            lock.release()
            await until(lambda: not log.backlog())
    assert stored_keys(tmp_path) == 1


async def test_the_key_of_what_the_store_takes_late_stays(tmp_path: Path) -> None:
    """Although it had to be said of it that it is not kept."""
    (tmp_path / "spool").write_text("in the way")
    event = decision("request-1")
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        async with spooling_log(tmp_path, keys=keys, busy_timeout_seconds=30) as (log, _):
            lock = Lock(tmp_path)
            assert await log.append_best_effort(event) is AppendOutcome.NOT_KEPT
            lock.release()
            await until(lambda: not log.backlog())
        with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys) as store:
            found = store.get("default", "request-1")
            assert found is not None
            assert found.payload == event.payload
    assert stored_keys(tmp_path) == 1


async def test_keys_of_what_was_never_tried_do_not_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evidence.db"
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        log = await EvidenceLog.open(url, keys=keys, busy_timeout_seconds=3)
        lock = Lock(tmp_path)
        waiting = [asyncio.ensure_future(log.append(decision("tried-0001")))]
        await until(log.store._inserting.locked)  # the writer has this one in hand
        waiting += [asyncio.ensure_future(log.append(decision())) for _ in range(3)]
        await until(lambda: log.backlog() == len(waiting))
        await log.close(timeout_seconds=0.1)
        lock.release()
        refused = await asyncio.gather(*waiting, return_exceptions=True)
    in_doubt = [one for one in refused if not isinstance(one, NothingWrittenError)]
    assert {type(one) for one in in_doubt} <= {StoreUnavailableError}
    assert stored_keys(tmp_path) <= len(in_doubt) < len(waiting)


async def test_keys_of_a_sibling_of_what_has_none_do_not_stay(url: str, tmp_path: Path) -> None:
    """Of one request all events are stored or none."""
    address = f"sqlite:///{tmp_path}/keys.db"
    with (
        KeyStore.open(address, Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        sibling = store.sealer.seal(decision("request-1"))
        lock = Lock(tmp_path, "keys.db")
        with suppress(KeysUnavailableError):
            while True:
                keys.give_back([keys.take()])
        assert {type(one) for one in store.store([sibling, store.sealer.seal(about_two())])} == {
            StoreUnavailableError
        }
        lock.release()
    assert stored_keys(tmp_path) == 0


@pytest.mark.parametrize(("subject", "n_left"), [("", 0), (ANNA, 2), (BERT, 2)])
async def test_of_a_spooled_answer_to_what_was_erased_meanwhile_no_key_is_left(
    subject: str, n_left: int, tmp_path: Path
) -> None:
    """Another process had answered it too, and of that answer something was erased: this one finds
    no place any more.
    """
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        lock = await spool_and_leave(tmp_path, keys, about_two("request-1"))
        with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys) as other:
            lock.release()
            assert other.append(about_two("request-1")) is STORED
            what = replace(ERASURE, subject=subject)
            assert erase(other, [("default", "request-1")], what).erased == 1
        with capture_logs() as lines:
            async with spooling_log(tmp_path, keys=keys) as (_, tally):
                await until(lambda: tally.counts["erased"] == 1)
    told = {line["event"] for line in lines}
    assert ("spooled_erased" in told, "spooled_twins" in told) == (True, False)
    assert (tally.counts["drained"], tally.counts["twins"]) == (0, 0)
    assert not [*(tmp_path / "spool").glob("*.segment")]
    assert stored_keys(tmp_path) == n_left


async def test_keys_of_what_is_erased_are_doomed_before_its_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def doom_at_the_second_try(store: EvidenceStore, rows: Sequence[Row]) -> None:
        tried.append(len(rows))
        if len(tried) == 1:
            raise StoreUnavailableError("away")
        doom_unstored(store, rows)

    monkeypatch.setattr("service.evidence.spooling.doom_unstored", doom_at_the_second_try)
    monkeypatch.setattr("service.evidence.draining.PAUSE_SECONDS", 0.01)
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        lock = await spool_and_leave(tmp_path, keys, decision("request-1"))
        with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys) as other:
            lock.release()
            assert other.append(decision("request-1")) is STORED
            assert erase(other, [("default", "request-1")], ERASURE).erased == 1
        async with spooling_log(tmp_path, keys=keys) as (log, tally):
            await until(lambda: log.spool is not None and not log.spool.records)
    assert (tried, tally.counts["erased"]) == ([1, 1], 1)
    assert stored_keys(tmp_path) == 0


def test_keys_doomed_while_the_key_store_is_locked_go_later(url: str, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/keys.db"
    with (
        KeyStore.open(address, Kek(bytes(32)), busy_timeout_seconds=0.5) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        sealed = [store.sealer.seal(event) for event in (decision(), about_two(), decision())]
        rows, _ = store.sealer.rows(sealed)
        lock = Lock(tmp_path, "keys.db")
        for _ in range(2):  # the second as after a kill before their file was deleted
            doom_unstored(store, rows[:2])
        lock.release()
        assert forget_keys(store, keys, is_all=False)
        left = keys.keys(ref for row in rows for ref in refs_of(as_queried(row)))
        assert [*left] == refs_of(as_queried(rows[2]))


async def test_the_keys_of_a_spooled_event_stay_while_the_store_is_away(tmp_path: Path) -> None:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        (await spool_and_leave(tmp_path, keys, about_two("request-1"))).release()
    assert stored_keys(tmp_path) == N_SECTIONS


async def spool_and_leave(folder: Path, keys: KeyStore, event: DecisionEvent) -> Lock:
    """As by a process that ends before the store, which is locked, is there again."""
    async with spooling_log(folder, keys=keys) as (log, _):
        lock = Lock(folder)
        assert await log.append_best_effort(event) is AppendOutcome.SPOOLED
    return lock


def test_a_damaged_key_closes_its_own_record_only(url: str, tmp_path: Path) -> None:
    """Not even an erasure of somebody else's part makes it read as erased."""
    names = [f"request-{n}" for n in (1, 2, 3, 4)]
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        makers = (decision, about_two, about_two, decision)
        sealed = [store.sealer.seal(make(name)) for make, name in zip(makers, names, strict=True)]
        rows, _ = store.sealer.rows(sealed)
        assert store.insert(rows) == [STORED] * 4
        refs = [row[INSERTED_COLUMNS.index("record_key")] for row in rows]
        damage(tmp_path, refs[0][:16], "substr(wrapped, 2) || x'00'")
        damage(tmp_path, refs[1][32:48], "substr(wrapped, 2)")
        damage(tmp_path, refs[2][:16], "wrapped || x'00'")
        note_erasure(url, "request-3")
        for name in names[:3]:
            with pytest.raises(UnreadablePayloadError, match="key damaged"):
                store.record("default", name)
        found = store.records([("default", name) for name in names])
    assert [type(record) for record in found] == [UnreadableRecord] * 3 + [Record]


def damage(folder: Path, ref: bytes, change: str) -> None:
    with sqlite3.connect(folder / "keys.db") as connection:
        connection.execute(f"UPDATE record_keys SET wrapped = {change} WHERE ref = ?", (ref,))  # noqa: S608


def note_erasure(url: str, request_id: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        named = {"tenant": "default", "request_id": request_id, "subject": "of-another"}
        said = {"kind": "erasure", "event_id": "e", "erased_us": 0}
        connection.execute(insert(erasures).values(named | said))
    engine.dispose()
