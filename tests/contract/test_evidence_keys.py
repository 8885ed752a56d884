import asyncio
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import pytest
from decisions import CONFLICT, STORED, about_two, decision, final, pending
from polling import until
from spools import Lock, spooling_log
from sqlalchemy import create_engine, insert

from service.evidence import (
    AppendOutcome,
    EvidenceLog,
    EvidenceStore,
    Record,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
    UnreadableRecord,
)
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
        named = {"tenant": "default", "request_id": request_id, "subject": ""}
        said = {"kind": "erasure", "event_id": "e", "erased_us": 0}
        connection.execute(insert(erasures).values(named | said))
    engine.dispose()
