"""What one key, and one key too few, must not do to the events around them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import decision, final, pending
from sqlalchemy import select

from service.evidence import EvidenceStore, StoreUnavailableError
from service.evidence.events import Row
from service.evidence.sealing import Sealed
from service.evidence.tables import INSERTED_COLUMNS, events
from service.keystore import DataKey, Kek, KeyStore

TWICE = DataKey(b"r" * 16, b"k" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        yield keys


def test_a_key_handed_out_twice_encrypts_nothing_alike(url: str, keys: KeyStore) -> None:
    """The nonce is always the same, so the key must be another for each event."""
    with EvidenceStore.open(url, keys=keys) as store:
        alike = [decision(f"request-{n}") for n in range(2)]
        assert alike[0].payload == alike[1].payload
        sealed = [Sealed(event, b"{}", [TWICE], [event.payload]) for event in alike]
        (one, other), _ = store.sealer.rows(sealed)
    assert len(ciphertext(one)) == len(ciphertext(other))
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
