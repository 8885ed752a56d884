"""The key-encryption key is changed: every key is wrapped anew, whenever that is interrupted."""

from pathlib import Path

import pytest
from commands import explaind
from sqlalchemy import create_engine, text

from service.keystore import Kek, KekSource, KeyStore, KeysUnavailableError, WrongKeyError, rewrap
from service.keystore.pool import POOL_KEYS
from service.keystore.rewrapping import BATCH
from service.keystore.wrapping import DataKey

OLD, NEW, THIRD = (Kek(bytes([n]) * 32) for n in (1, 2, 3))


class Interrupted(Exception):  # noqa: N818 - it stands for a kill
    pass


def interrupt(done: int, total: int) -> None:
    assert (done, total > done) == (BATCH, True)
    raise Interrupted


@pytest.fixture
def taken(url: str) -> list[DataKey]:
    with KeyStore.open(url, OLD) as store:
        return store.take_many(3 * BATCH)


def assert_opens(url: str, kek: Kek, taken: list[DataKey]) -> None:
    with KeyStore.open(url, kek) as store:
        assert store.keys([key.ref for key in taken]) == {key.ref: key.key for key in taken}


def test_keys_wrapped_anew_open_under_the_new_key_only(url: str, taken: list[DataKey]) -> None:
    done = rewrap(url, OLD, NEW)
    assert (done.wrapped, done.damaged, done.is_forgotten) == (len(taken), 0, True)
    assert_opens(url, NEW, taken)
    with pytest.raises(WrongKeyError, match="not the key-encryption key"):
        KeyStore.open(url, OLD)
    assert rewrap(url, OLD, NEW).wrapped == 0
    with pytest.raises(WrongKeyError, match="neither"):
        rewrap(url, OLD, THIRD)


def test_interrupted_it_goes_on_and_nobody_opens_the_store_meanwhile(
    url: str, taken: list[DataKey]
) -> None:
    with pytest.raises(Interrupted):
        rewrap(url, OLD, NEW, progress=interrupt)
    for kek in (OLD, NEW):
        with pytest.raises(WrongKeyError, match="rewrap"):
            KeyStore.open(url, kek)
    with pytest.raises(WrongKeyError, match="under another"):
        rewrap(url, OLD, THIRD)
    assert rewrap(url, OLD, NEW).wrapped == len(taken) - BATCH
    assert_opens(url, NEW, taken)


@pytest.mark.parametrize("is_over", [True, False])
def test_a_store_that_is_open_makes_no_keys_and_takes_none_for_damaged(
    url: str, taken: list[DataKey], *, is_over: bool
) -> None:
    with KeyStore.open(url, OLD) as store:
        store.fill()  # else the first keys are waited for longer than is said below
        if is_over:
            rewrap(url, OLD, NEW)
        else:
            with pytest.raises(Interrupted):
                rewrap(url, OLD, NEW, progress=interrupt)
        with pytest.raises(KeysUnavailableError, match="wrapped under another"):
            store.take_many(2 * POOL_KEYS, timeout_seconds=0.5)
        with pytest.raises(KeysUnavailableError, match="start again"):
            store.keys([key.ref for key in taken])
    rewrap(url, OLD, NEW)
    assert_opens(url, NEW, taken)


def test_a_damaged_key_is_left_and_counted(url: str, taken: list[DataKey]) -> None:
    engine = create_engine(url)
    table = "record_keys" if url.startswith("sqlite") else "explaind_keys.record_keys"
    with engine.begin() as connection:
        change = text(f"UPDATE {table} SET wrapped = :junk WHERE ref = :ref")  # noqa: S608
        connection.execute(change, {"junk": bytes(40), "ref": taken[5].ref})
    engine.dispose()
    done = rewrap(url, OLD, NEW)
    assert (done.wrapped, done.damaged) == (len(taken) - 1, 1)
    assert_opens(url, NEW, taken[:5] + taken[6:])


def test_by_command_the_new_key_takes_the_place_of_the_old(tmp_path: Path) -> None:
    url, place = f"sqlite:///{tmp_path}/keys.db", f"--data-dir={tmp_path}"
    old, new = tmp_path / "key-encryption-key", tmp_path / "new"
    rewrapping = ("keys", "rewrap", f"--new-key-file={new}", place)
    none = explaind(*rewrapping)
    assert (none.returncode, new.exists()) == (3, False)
    with KeyStore.open(url, KekSource(old)) as store:
        taken = store.take_many(5)
    done = explaind(*rewrapping, "--json")
    assert (done.returncode, done.stdout) == (0, '{\n  "wrapped": 5,\n  "damaged": 0\n}\n')
    assert f"now put {new} in the place of the file {old}" in done.stderr
    assert old.read_bytes() != new.read_bytes()
    new.replace(old)
    assert_opens(url, KekSource(old).find(may_create=False), taken)
