import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from polling import until
from sqlalchemy import create_engine, text

from service.keystore import (
    Kek,
    KekSource,
    KeyStore,
    KeyStoreError,
    KeysUnavailableError,
    WrongKeyError,
)
from service.keystore.pool import BLOCK_KEYS, POOL_KEYS, KeyPool
from service.keystore.wrapping import DataKey

KEK = Kek(bytes(range(32)))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


def wrapped_in(url: str) -> dict[bytes, bytes]:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT ref, wrapped FROM record_keys")).all()
    engine.dispose()
    return {bytes(ref): bytes(wrapped) for ref, wrapped in rows}


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def use_up(store: KeyStore) -> None:
    while True:
        store.take()


def test_a_key_taken_is_stored_and_comes_back(url: str) -> None:
    with KeyStore.open(url, KEK) as store:
        first, second = store.take(), store.take()
        assert first.key != second.key
        assert len(first.key) == 32
    with KeyStore.open(url, KEK) as store:
        assert store.keys([second.ref, first.ref]) == {first.ref: first.key, second.ref: second.key}


def test_no_key_stands_in_the_file_unwrapped(url: str, tmp_path: Path) -> None:
    with KeyStore.open(url, KEK) as store:
        keys = store.take_many(BLOCK_KEYS)
        found = bytes_of(tmp_path)
        assert all(key.ref in found for key in keys)
        assert not any(key.key in found for key in keys)


def test_references_sort_by_the_time_of_their_making(url: str) -> None:
    with KeyStore.open(url, KEK) as store:
        refs = [key.ref for key in store.take_many(3 * BLOCK_KEYS // 2)]
    assert refs == sorted(refs)
    assert len({*refs}) == len(refs)


def test_more_keys_than_the_pool_holds_are_waited_for(url: str) -> None:
    with KeyStore.open(url, KEK) as store:
        taken = store.take_many(POOL_KEYS + 10)
        assert len({key.ref for key in taken}) == POOL_KEYS + 10
        assert len(store.keys(key.ref for key in taken)) == len(taken)


def test_keys_nobody_took_are_removed_at_the_end(url: str) -> None:
    with KeyStore.open(url, KEK) as store:
        taken = store.take()
    assert list(wrapped_in(url)) == [taken.ref]


def test_a_destroyed_key_is_in_no_file(url: str, tmp_path: Path) -> None:
    with KeyStore.open(url, KEK) as store:
        taken = store.take_many(3000)
        wrapped = wrapped_in(url)
        doomed = taken[::3]
        assert all(wrapped[key.ref] in bytes_of(tmp_path) for key in doomed)
        store.destroy(key.ref for key in doomed)
        left = bytes_of(tmp_path)
        assert not any(wrapped[key.ref] in left for key in doomed)
        assert not any(wrapped[key.ref][8:32] in left for key in doomed)
        kept = taken[1::3]
        assert all(wrapped[key.ref] in left for key in kept)
        assert store.keys(key.ref for key in taken[:2]) == {taken[1].ref: taken[1].key}
        store.destroy([taken[0].ref])


def test_a_key_destroyed_by_another_process_is_gone_at_once(url: str) -> None:
    with KeyStore.open(url, KEK) as store, KeyStore.open(url, KEK) as other:
        key = store.take()
        assert store.keys([key.ref]) == {key.ref: key.key}
        other.destroy([key.ref])
        assert store.keys([key.ref]) == {}


def test_a_reader_that_holds_the_log_makes_destruction_fail_aloud(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.keystore.store.FORGET_SECONDS", 0.05)
    with KeyStore.open(url, KEK) as store:
        key = store.take()
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as reading:
            reading.exec_driver_sql("BEGIN")
            reading.execute(text("SELECT count(*) FROM record_keys")).all()
            with pytest.raises(KeysUnavailableError, match="being cut"):
                store.destroy([key.ref])
            assert store.keys([key.ref]) == {}
            reading.exec_driver_sql("ROLLBACK")
        engine.dispose()
        store.destroy([key.ref])


def test_another_key_encryption_key_is_refused_at_once(url: str) -> None:
    KeyStore.open(url, KEK).close()
    with pytest.raises(WrongKeyError, match="not the key-encryption key"):
        KeyStore.open(url, Kek.random())


def test_a_key_somebody_exchanged_does_not_open_and_keeps_no_other_closed(url: str) -> None:
    with KeyStore.open(url, KEK) as store:
        key, other = store.take_many(2)
        engine = create_engine(url)
        with engine.begin() as connection:
            change = text("UPDATE record_keys SET wrapped = zeroblob(40) WHERE ref = :ref")
            connection.execute(change, {"ref": key.ref})
        engine.dispose()
        assert store.keys([key.ref, other.ref]) == {key.ref: None, other.ref: other.key}


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    source = KekSource(tmp_path / "data" / "kek")
    with KeyStore.open(f"sqlite:///{tmp_path}/data/keys.db", source) as store:
        store.take()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes == {0o600}
    assert len(source.file.read_bytes()) == 32


def test_a_lost_key_file_is_missed_not_made_anew(tmp_path: Path, url: str) -> None:
    source = KekSource(tmp_path / "kek")
    KeyStore.open(url, source).close()
    source.file.unlink()
    with pytest.raises(WrongKeyError, match="is missing: put the copy"):
        KeyStore.open(url, source)
    assert not source.file.exists()


@pytest.mark.parametrize("is_hexadecimal", [True, False])
def test_the_key_may_be_given_as_text(is_hexadecimal: bool, tmp_path: Path, url: str) -> None:  # noqa: FBT001
    key = os.urandom(32)
    text_of_it = key.hex() if is_hexadecimal else b64encode(key).decode()
    source = KekSource(tmp_path / "kek", f" {text_of_it}\n")
    with KeyStore.open(url, source) as store:
        taken = store.take()
    assert text_of_it not in repr(source)
    assert not source.file.exists()
    with KeyStore.open(url, Kek(key)) as store:
        assert store.keys([taken.ref]) == {taken.ref: taken.key}


@pytest.mark.parametrize("text_of_it", ["", "zz" * 32, "é", "AAAA", "0" * 63])
def test_text_that_is_no_key_is_refused_and_not_repeated(text_of_it: str) -> None:
    with pytest.raises(WrongKeyError) as refused:
        Kek.from_text(text_of_it)
    assert not text_of_it or text_of_it not in str(refused.value)


@pytest.mark.parametrize("bad", ["mysql://x/y", "sqlite://", "::"])
def test_an_address_that_cannot_hold_keys_is_refused(bad: str) -> None:
    with pytest.raises(KeyStoreError):
        KeyStore.open(bad, KEK)


async def test_a_store_that_went_away_gives_what_it_had_and_then_refuses(url: str) -> None:
    with KeyStore.open(url, KEK, busy_timeout_seconds=0.05) as store:
        store.take()
        await until(lambda: len(store._pool._keys) >= POOL_KEYS - BLOCK_KEYS)
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(KeysUnavailableError):
                use_up(store)
            connection.exec_driver_sql("ROLLBACK")
        engine.dispose()
        await until(lambda: bool(store._pool._keys))
        assert store.take().key


def test_a_wish_that_cannot_be_met_takes_nothing() -> None:
    blocks = [[DataKey(b"%016d" % n, bytes(32)) for n in range(10)]]

    def make(_: int) -> list[DataKey]:
        if not blocks:
            raise KeysUnavailableError("away")
        return blocks.pop()

    pool = KeyPool(make)
    with pytest.raises(KeysUnavailableError):
        pool.take_many(11, timeout_seconds=0.05)
    assert len(pool.take_many(10, timeout_seconds=0.05)) == 10
    pool.close()


async def test_after_failures_keys_are_made_without_another_wish() -> None:
    """Else a service that is not ready for want of keys would get no request to wish for one."""
    asked: list[int] = []

    def make(count: int) -> list[DataKey]:
        asked.append(count)
        if len(asked) != 3:
            raise KeysUnavailableError("away")
        return [DataKey(b"r" * 16, bytes(32))]

    pool = KeyPool(make)
    with pytest.raises(KeysUnavailableError):
        pool.wait(timeout_seconds=0.01)
    await until(lambda: pool.has_keys)
    pool.close()


def test_any_number_of_keys_is_read_and_deleted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.keystore.store.AT_ONCE", 2)
    with KeyStore.open(url, KEK) as store:
        refs = [key.ref for key in store.take_many(5)]
        assert store.keys(refs).keys() == set(refs)
        store.delete(refs)
        assert store.keys(refs) == {}


def test_a_closed_pool_gives_nothing() -> None:
    pool = KeyPool(lambda count: [DataKey(os.urandom(16), os.urandom(32)) for _ in range(count)])
    pool.take()
    assert len(pool.close()) >= BLOCK_KEYS - 1
    with pytest.raises(KeysUnavailableError, match="closed"):
        pool.take()
    with pytest.raises(KeysUnavailableError, match="closed"):
        pool.take_many(2, timeout_seconds=1)
