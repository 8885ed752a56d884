import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from syncs import Syncs

from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EvidenceError,
    EvidenceLog,
    EvidenceStore,
    StoreUnavailableError,
)
from service.evidence.tables import INSERTED_COLUMNS

STORED = AppendOutcome.STORED
SCRIPTS = Path(__file__).parent
Decide = Callable[..., DecisionEvent]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "evidence.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def acknowledged_until_killed(url: str, *, events: int) -> list[str]:
    command = [sys.executable, str(SCRIPTS / "append_until_killed.py"), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(events)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


def test_no_acknowledged_event_is_lost_by_kill_9(url: str) -> None:
    acknowledged: list[str] = []
    for events in (200, 1500, 700):
        acknowledged += acknowledged_until_killed(url, events=events)
        with EvidenceStore.open(url) as store:
            lost = [name for name in acknowledged if store.get("default", name) is None]
        assert lost == []
    assert len(acknowledged) >= 2400


def test_a_full_disk_is_reported_and_survived(url: str) -> None:
    command = [sys.executable, str(SCRIPTS / "append_on_full_disk.py"), url]
    phases = orjson.loads(
        subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1]
    )
    assert set(phases["free"]["said"].values()) == {"stored"}
    assert "unavailable" in phases["full"]["said"].values()
    assert set(phases["freed"]["said"].values()) == {"stored"}
    assert [phase["writable"] for phase in phases.values()] == [True, False, True]
    said = {name: word for phase in phases.values() for name, word in phase["said"].items()}
    with EvidenceStore.open(url) as store:
        lost = [n for n, w in said.items() if w == "stored" and store.get("default", n) is None]
    assert lost == []


async def test_a_lock_held_too_long_is_reported_and_survived(
    url: str, path: Path, decide: Decide
) -> None:
    log = await EvidenceLog.open(url, busy_timeout_seconds=0.05)
    assert await log.append(decide("before-1")) is STORED
    other = lock(path)
    with pytest.raises(StoreUnavailableError, match="locked"):
        await log.append(decide("during-1"))
    assert not await log.is_writable()
    assert await log.get("default", "before-1") is not None
    other.rollback()
    other.close()
    assert await log.append(decide("during-1")) is STORED
    assert await log.is_writable()
    await log.close()


async def test_a_lock_held_shortly_only_delays(url: str, path: Path, decide: Decide) -> None:
    log = await EvidenceLog.open(url, busy_timeout_seconds=30)
    other = lock(path)
    append = asyncio.ensure_future(log.append(decide("waiting-1")))
    # A read goes through while the writer waits, and shows that nothing is there yet.
    assert await log.get("default", "waiting-1") is None
    assert not append.done()
    other.rollback()
    other.close()
    assert await append is STORED
    await log.close()


async def test_a_store_that_stays_locked_does_not_hold_up_readiness(url: str, path: Path) -> None:
    log = await EvidenceLog.open(url, busy_timeout_seconds=8)
    other = lock(path)
    assert not await log.is_writable()
    other.rollback()
    other.close()
    await log.close()


def test_files_are_for_their_owner_only(url: str, path: Path, decide: Decide) -> None:
    with EvidenceStore.open(url) as store:
        store.append(decide())
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {f"evidence.db{end}": 0o600 for end in ("", "-wal", "-shm")}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_closing_leaves_one_file(url: str, path: Path, decide: Decide) -> None:
    with EvidenceStore.open(url) as store:
        store.append(decide())
        assert store.get("default", "request-1") is not None
    assert [file.name for file in path.parent.iterdir()] == ["evidence.db"]


def test_commits_are_synced(url: str) -> None:
    with EvidenceStore.open(url) as store, store._writing.connect() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value


def test_commits_are_synced_again_after_one_that_did_not_wait(url: str) -> None:
    with EvidenceStore.open(url) as store:
        with store.changing(waits_for_disk=False) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 1
        with store.changing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
            assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one() == 250


def test_what_did_not_wait_for_the_disk_is_on_it_after_a_flush(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EvidenceStore.open(url) as store:
        syncs = Syncs.watched(monkeypatch)
        with store.changing(waits_for_disk=False) as connection:
            connection.exec_driver_sql("UPDATE meta SET value = 'x' WHERE name = 'probed_at'")
        log = path.with_name(f"{path.name}-wal")
        assert not syncs.covers(log)
        store.flush()
        assert syncs.covers(log)


def test_a_row_is_not_replaced_past_the_triggers(url: str, decide: Decide) -> None:
    """SQLite's REPLACE deletes without asking them, unless it is told to ask."""
    with EvidenceStore.open(url) as store:
        store.append(decide())
        taken = ", ".join(INSERTED_COLUMNS)
        again = f"INSERT OR REPLACE INTO events ({taken}) SELECT {taken} FROM events"  # noqa: S608
        with pytest.raises(StoreUnavailableError, match="evidence is not changed"):  # noqa: SIM117
            with store.changing() as connection:
                connection.exec_driver_sql(again)
        assert store.get("default", "request-1") is not None


def test_a_file_that_is_no_database_is_refused(url: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but as long as a header of one would be" * 40)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        EvidenceStore.open(url)


def test_a_place_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        EvidenceStore.open(f"sqlite:///{tmp_path}/file/evidence.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "no url"])
def test_an_address_evidence_cannot_live_at_is_refused(url: str) -> None:
    with pytest.raises(EvidenceError):
        EvidenceStore.open(url)
