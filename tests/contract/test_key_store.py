import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from structlog.testing import capture_logs

from service.errors import UnavailableError
from service.evidence import EvidenceStore
from service.keystore import Kek, KekSource, KeyStore, KeysUnavailableError, WrongKeyError
from service.settings import Settings
from service.storing import evidence_log, evidence_store

KEK = Kek(bytes(range(32)))


def test_keys_come_back_until_they_are_destroyed(url: str) -> None:
    assert not KeyStore.is_there(url)
    with KeyStore.open(url, KEK) as store:
        taken = store.take_many(1500)
        assert KeyStore.is_there(url)
    with KeyStore.open(url, KEK) as store:
        refs = [key.ref for key in taken]
        assert store.keys(refs) == {key.ref: key.key for key in taken}
        store.destroy(refs[:700])
        store.destroy(refs[:700])
        assert store.keys(refs) == {key.ref: key.key for key in taken[700:]}
        assert store.keys([]) == {}


def test_stores_opened_at_once_are_one(url: str) -> None:
    found: list[str] = []

    def open_one() -> None:
        with KeyStore.open(url, KEK) as store:
            found.append(store.identity)
            store.take()

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({*found}) == 1


def test_another_key_encryption_key_is_refused(url: str) -> None:
    KeyStore.open(url, KEK).close()
    with pytest.raises(WrongKeyError):
        KeyStore.open(url, Kek.random())


def test_in_postgresql_keys_have_a_schema_of_their_own(postgres_url: str) -> None:
    with KeyStore.open(postgres_url, KEK) as store:
        store.take()
        engine = create_engine(postgres_url)
        with engine.connect() as connection:
            held = "SELECT count(*) FROM explaind_keys.record_keys"
            assert connection.execute(text(held)).scalar_one() >= 1024
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert connection.execute(text(tables)).scalar_one() == 0
        engine.dispose()


def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeysUnavailableError):
        KeyStore.open(f"postgresql+psycopg://postgres@/x?host={tmp_path}", KEK)


async def test_beside_the_evidence_they_are_warned_of(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings.load({}, data_dir=tmp_path, database_url=postgres_url)
    with capture_logs() as lines:
        async with evidence_log(settings):
            pass
    assert [line["event"] for line in lines] == ["keys_beside_evidence"]
    apart = Settings.load(
        {},
        data_dir=tmp_path,
        database_url=postgres_url,
        keys_database_url=f"sqlite:///{tmp_path}/k",
    )
    with pytest.raises(UnavailableError, match="not the one"):
        async with evidence_log(apart):
            pass


def test_a_command_that_reads_makes_no_keys(url: str, tmp_path: Path) -> None:
    settings = Settings.load({}, data_dir=tmp_path / "new", database_url=url)
    with evidence_store(settings) as store:
        assert store.get("default", "request-1") is None
    assert not (tmp_path / "new").exists()
    source = KekSource(settings.key_encryption_key_file)
    with (
        KeyStore.open(settings.keys_database_url, source) as keys,
        EvidenceStore.open(url, keys=keys),
        evidence_store(settings) as store,
    ):
        assert store.sealer.keys is not None
