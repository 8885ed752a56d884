"""The queue that `explaind serve` brings itself: started, looked after, gone with its owner."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from job_store import JobStore
from jobs import job
from polling import answering, until
from prometheus_client import CollectorRegistry
from redis import Redis
from servers import wait_until
from workers import SUPPORT, is_gone

from service.errors import UnavailableError
from service.queue import valkey as packaged
from service.queue.embedded import Embedded
from service.remote_metrics import JointRegistry
from service.settings import Settings

PROGRAM = [sys.executable, str(SUPPORT / "worker_program.py")]


@pytest.fixture(autouse=True)
def support_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    store = JobStore(tmp_path / "jobs.db")
    store.create()
    return store


@asynccontextmanager
async def embedded(directory: Path, **settings: Any) -> AsyncIterator[Embedded]:
    started = await Embedded.start(
        Settings.load({}, data_dir=directory, **settings), worker=PROGRAM
    )
    try:
        yield started
    finally:
        await started.stop()


@contextmanager
def owner(directory: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Another process with an embedded queue, and what it says it started."""
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "embedding_program.py"), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def done(started: Embedded, store: JobStore, name: str) -> None:
    """A job goes through: server and worker work."""
    queue = await answering(started.redis_url)
    store.add(**{name: {}})
    await queue.submit(job(name))
    await until(lambda: name in store.ends(), seconds=20)
    await queue.close()


def counts(registry: JointRegistry, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    ]


async def test_it_works_and_leaves_no_process_and_no_socket(
    tmp_path: Path, store: JobStore
) -> None:
    async with embedded(tmp_path) as started:
        await done(started, store, "first")
        counted = {"queue": "high", "outcome": "finished"}
        registry = JointRegistry(CollectorRegistry(), started.metrics)
        await until(lambda: (counted, 1.0) in counts(registry, "explain_jobs_total"))
        ids = [started.process_id(name) for name in ("server", "worker")]
        sockets = Path(started.redis_url.removeprefix("unix://")).parent
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert all(map(is_gone, ids))
    assert not sockets.exists()


async def test_jobs_outlive_a_restart_in_the_same_directory(
    tmp_path: Path, store: JobStore
) -> None:
    async with embedded(tmp_path, embedded_workers=0) as started:
        queue = await answering(started.redis_url)
        store.add(waiting={})
        await queue.submit(job("waiting"))
        await queue.close()
    async with embedded(tmp_path):
        await until(lambda: "waiting" in store.ends(), seconds=20)


async def test_a_server_with_much_to_read_is_there_once_it_has_read_it(tmp_path: Path) -> None:
    async with embedded(tmp_path, embedded_workers=0) as started:
        with Redis.from_url(started.redis_url) as client:
            filled = "for i = 1, 300000 do redis.call('SET', i, 'some words for the file') end"
            client.eval(filled, 0)
    async with embedded(tmp_path, embedded_workers=0) as started:
        with Redis.from_url(started.redis_url) as client:
            assert client.dbsize() >= 300_000


async def test_what_ends_by_itself_is_started_again(tmp_path: Path, store: JobStore) -> None:
    async with embedded(tmp_path) as started:
        for name in ("worker", "server"):
            await done(started, store, f"before-{name}".replace("-", ""))
            before = started.process_id(name)
            os.kill(before, signal.SIGKILL)
            await until(lambda before=before, name=name: started.process_id(name) != before)
            await done(started, store, f"after-{name}".replace("-", ""))


async def test_a_second_start_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with embedded(tmp_path, embedded_workers=0):
        with pytest.raises(UnavailableError, match=f"process {os.getpid()}.*{tmp_path}"):
            await Embedded.start(Settings.load({}, data_dir=tmp_path))
    async with embedded(tmp_path, embedded_workers=0):
        pass


async def test_a_copy_of_the_directory_leaves_the_originals_sockets(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    async with embedded(original, embedded_workers=0) as started:
        shutil.copytree(original, copy)
        async with embedded(copy, embedded_workers=0) as another:
            assert another.redis_url != started.redis_url
        with Redis.from_url(started.redis_url) as client:
            assert client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's end")
def test_killing_the_owner_leaves_no_orphan_and_the_directory_free(
    tmp_path: Path, store: JobStore
) -> None:
    with owner(tmp_path) as (process, said):
        store.add(long={"do": "sleep", "seconds": 600})
        with Redis.from_url(said["url"]) as client:
            wait_until(lambda: len(client.client_list()) > 1, seconds=20)
        process.kill()
        process.wait()
        wait_until(lambda: is_gone(said["server"]) and is_gone(said["worker"]))
        sockets = Path(said["url"].removeprefix("unix://")).parent
        assert sockets.exists()
        with owner(tmp_path) as (_, again):
            assert again["server"] != said["server"]
            assert not sockets.exists()


async def test_a_damaged_file_is_set_aside_and_said(
    tmp_path: Path, store: JobStore, capfd: pytest.CaptureFixture[str]
) -> None:
    async with embedded(tmp_path, embedded_workers=0) as started:
        queue = await answering(started.redis_url)
        await queue.submit(job("lost"))
        await queue.close()
    for file in (tmp_path / "queue" / "appendonlydir").iterdir():
        file.write_bytes(b"garbage" * 100)
    async with embedded(tmp_path) as started:
        await done(started, store, "found")
    assert len(list((tmp_path / "queue").glob("appendonlydir.damaged-*"))) == 1
    assert "queue_file_damaged" in "".join(capfd.readouterr())


async def test_a_truncated_file_repairs_itself(tmp_path: Path) -> None:
    async with embedded(tmp_path, embedded_workers=0) as started:
        queue = await answering(started.redis_url)
        for name in ("kept", "cut"):
            await queue.submit(job(name))
        await queue.close()
    (file,) = (tmp_path / "queue" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(file.read_bytes()[:-20])
    async with embedded(tmp_path, embedded_workers=0) as started:
        queue = await answering(started.redis_url)
        await until(lambda: queue.depth == 1)
        await queue.close()


async def test_a_platform_without_a_server_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged.platform, "machine", lambda: "sparc64")
    with pytest.raises(UnavailableError, match="set EXPLAIND_REDIS_URL"):
        await Embedded.start(Settings.load({}, data_dir=tmp_path))
    monkeypatch.undo()
    async with embedded(tmp_path, embedded_workers=0):
        pass


async def test_a_server_that_cannot_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "valkey.log").mkdir()  # where it wants to write
    with pytest.raises(UnavailableError, match="does not start"):
        await Embedded.start(Settings.load({}, data_dir=tmp_path))


async def test_a_long_temporary_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with embedded(tmp_path, embedded_workers=0) as started:
        queue = await answering(started.redis_url)
        await queue.close()
    assert not list(long.iterdir())
