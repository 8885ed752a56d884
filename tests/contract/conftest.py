"""What the contracts are tested over: PostgreSQL and Valkey are real servers from wheels."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from filled_database import Database, filled
from polling import answering
from valkey_server import Valkey, running_valkey

from service.evidence import EvidenceStore
from service.keystore import Kek, KeyStore
from service.queue import JobQueue


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/evidence.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        yield keys


@pytest.fixture
def store(url: str, keys: KeyStore) -> Iterator[EvidenceStore]:
    """One that encrypts."""
    with EvidenceStore.open(url, keys=keys) as store:
        yield store


@pytest.fixture
def database(url: str, tmp_path: Path) -> Database:
    return filled(url, tmp_path)


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
