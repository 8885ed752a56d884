import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from decisions import STORED, decision
from sqlalchemy import create_engine

from service.evidence import DecisionEvent, EvidenceStore, StoreUnavailableError
from service.keystore import Kek, KeyStore, KeysUnavailableError


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
