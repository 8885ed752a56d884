"""Faults of the evidence store under load: nothing acknowledged is lost, nothing hangs, the log
stays whole, and all is well again without anybody's doing.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from drills import (
    BEST_EFFORT,
    Load,
    Witness,
    assert_alive,
    assert_verifies,
    drained,
    is_refused,
    is_spooled,
    is_stored,
    sqlite_of,
)
from postgres_server import new_database, running_postgres
from servers import Server, assert_becomes_ready, start_server, wait_until
from spools import Lock
from tables import breast_cancer, instances_of, mixed

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
EFFORT, REQUIRED = "/models/breast_cancer/predict", "/models/mixed/predict"
BOUND_SECONDS = 8.0
"""For any answer: a store that is silent is waited for 5 s."""

ROWS = {
    EFFORT: instances_of(breast_cancer()[0].iloc[:50]),
    REQUIRED: instances_of(mixed()[0].iloc[:50]),
}


@pytest.fixture
def folder(tmp_path: Path, two_models: Path) -> Path:
    """A data directory with a model of best effort and one whose evidence is required."""
    shutil.copytree(two_models, tmp_path / "registry")
    (tmp_path / "policy.toml").write_text(BEST_EFFORT)
    return tmp_path


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    with running_postgres() as directory:
        yield directory


def started(folder: Path, **env: str) -> Server:
    return start_server(folder, "--policy-file", str(folder / "policy.toml"), env=env)


def assert_whole(
    server: Server, loads: list[Load], witness: Witness, *, url: str, ids: list[str]
) -> None:
    client = server.client()
    wait_until(drained(client), seconds=60)
    for load in loads:
        load.assert_kept(client)
    witness.assert_log_is_whole(url, client, ids)
    assert_alive(server)


@contextmanager
def spooling(folder: Path, url: str, *, replies: int) -> Iterator[Load]:
    """Load whose answers are spooled, as the store is locked: so many at least. It needs clients of
    its own, as those who are refused wait for that.
    """
    lock, load = Lock(folder), Load([url], {EFFORT: ROWS[EFFORT]})
    with load.running():
        load.until(replies, is_spooled)
        yield load
    lock.release()


def kill_repeatedly(folder: Path, *, turns: int) -> None:
    """Each second time the store is locked when the process is killed, so that what it has
    acknowledged last is in its spool.
    """
    witness, ids, spooled = Witness(), [], 0
    server = started(folder)
    try:
        for turn in range(turns):
            loads = [Load([server.url], ROWS)]
            with loads[0].running(), ExitStack() as opened:
                loads[0].until(60 + 17 * turn % 100, is_stored)
                witness.wait_for_one(server.client())
                if turn % 2:
                    load = spooling(folder, server.url, replies=8 + turn % 5)
                    loads.append(opened.enter_context(load))
                server.kill()
                server.close()
            spooled += sum(load.count(is_spooled) for load in loads)
            server = started(folder)
            ids += [request_id for load in loads for request_id in load.acknowledged()]
            assert_whole(server, loads, witness, url=sqlite_of(folder), ids=ids)
        assert_verifies(folder, witness)
    finally:
        server.close()
    assert spooled >= 8 * (turns // 2)
    assert not list((folder / "spool").glob("*.segment"))


@pytest.mark.drill
def test_forty_kills_half_with_the_spool_on_lose_nothing(folder: Path) -> None:
    kill_repeatedly(folder, turns=max(2, int(40 * SCALE)))


def locked_for(folder: Path, lock: Any, seconds: float, *, url: str, **env: str) -> None:
    server, witness = started(folder, **env), Witness()
    try:
        load = Load([server.url], ROWS)
        with load.running():
            load.until(40, is_stored)
            witness.wait_for_one(server.client())
            held = lock()
            answers_while_locked(server, load, seconds)
            held.release()
            began = time.monotonic()
            load.until(20, is_stored)
            assert time.monotonic() - began < BOUND_SECONDS
        print(f"slowest answer {max(load.seconds.values()):.1f} s; {load.summary()}")
        assert max(load.seconds.values()) < BOUND_SECONDS
        assert {reply.status for reply in load.replies.values()} == {200, 503}
        assert_whole(server, [load], witness, url=url, ids=list(load.acknowledged()))
        assert_becomes_ready(server.client())
    finally:
        server.close()


def answers_while_locked(server: Server, load: Load, seconds: float) -> None:
    """For so long, or until enough was refused and spooled: eight are spooled in 10 s, as who is
    refused waits for 5 s.
    """
    ends = time.monotonic() + seconds
    load.until(2, is_refused)
    load.until(int(seconds / 1.5), is_spooled)
    while time.monotonic() < ends:
        began = time.monotonic()
        assert server.client().get("/livez").status == 200
        assert time.monotonic() - began < BOUND_SECONDS
        load.until(2, is_spooled)


class TableLock:
    """Another transaction of PostgreSQL that has locked the events."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", ""))
        self._connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")

    def release(self) -> None:
        self._connection.rollback()
        self._connection.close()


@pytest.mark.drill
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_thirty_seconds_of_a_locked_store_hang_nobody(
    folder: Path, postgres: Path, backend: str
) -> None:
    seconds = 30 * max(1.0, SCALE)
    if backend == "sqlite":
        locked_for(folder, lambda: Lock(folder), seconds, url=sqlite_of(folder))
        return
    url = new_database(postgres)
    locked_for(folder, lambda: TableLock(url), seconds, url=url, EXPLAIND_DATABASE_URL=url)


def kill_one_of_two(folder: Path, url: str, *, turns: int) -> None:
    other_dir = folder / "other"
    other_dir.mkdir()
    shutil.copytree(folder / "registry", other_dir / "registry")
    shutil.copy(folder / "policy.toml", other_dir)
    env = {
        "EXPLAIND_DATABASE_URL": url,
        "EXPLAIND_SECRET_FILE": str(folder / "secret"),
        "EXPLAIND_KEY_ENCRYPTION_KEY_FILE": str(folder / "key-encryption-key"),
    }
    witness, ids = Witness(), []
    one, two = started(folder, **env), started(other_dir, **env)
    try:
        for _ in range(turns):
            load = Load([one.url, two.url], ROWS)
            with load.running():
                load.until(80, is_stored)
                witness.wait_for_one(one.client())
                two.kill()
                load.until(40, is_stored)
            two.close()
            two = started(other_dir, **env)
            ids += load.acknowledged()
            assert_whole(one, [load], witness, url=url, ids=ids)
            load.assert_kept(two.client())
        assert_verifies(folder, witness, "--database-url", url)
    finally:
        one.close()
        two.close()


@pytest.mark.drill
def test_one_of_two_processes_is_killed_ten_times(folder: Path, postgres: Path) -> None:
    kill_one_of_two(folder, new_database(postgres), turns=max(2, int(10 * SCALE)))
