import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import STORED, decision, final, pending
from sqlalchemy import create_engine, select

from service.evidence import DecisionEvent, EvidenceStore, StoreUnavailableError
from service.evidence.events import Row
from service.evidence.tables import INSERTED_COLUMNS, events
from service.keystore import DataKey, Kek, KeyStore, KeysUnavailableError

TWICE = DataKey(b"r" * 16, b"k" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        yield keys


def about_two(request_id: str) -> DecisionEvent:
    return replace(decision(request_id), subjects='["anna","bert"]')


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


def test_a_key_handed_out_twice_encrypts_nothing_alike(url: str, keys: KeyStore) -> None:
    """The nonce is always the same, so the key must be another for each event."""
    with EvidenceStore.open(url, keys=keys) as store:
        sealed = [store.sealer.seal(decision(f"request-{n}")) for n in range(2)]
        assert sealed[0].texts == sealed[1].texts
        (one, other), _ = store.sealer.rows([each._replace(keys=[TWICE]) for each in sealed])
    common = sum(a == b for a, b in zip(ciphertext(one), ciphertext(other), strict=True))
    assert common < len(ciphertext(one)) / 2


def ciphertext(row: Row) -> bytes:
    """Of a row in one section, without its length and the code at its end."""
    payload = row[INSERTED_COLUMNS.index("payload")]
    assert isinstance(payload, bytes)
    return payload[4:-16]


def test_no_outcome_is_stored_without_the_explanation_whose_keys_are_missing(
    url: str, keys: KeyStore
) -> None:
    explained = final(pending("request-1"))
    in_two = replace(explained, subjects='["anna","bert"]')
    with EvidenceStore.open(url, keys=keys) as store:
        sealed = [store.sealer.seal(event) for event in (in_two, in_two.counted())]
        keys.close()
        assert all(isinstance(each, StoreUnavailableError) for each in store.store(sealed))
        with store.reading() as connection:
            assert connection.execute(select(events)).all() == []
