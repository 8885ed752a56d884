"""What was erased and is put back, payload and keys, is named by verify and served by nobody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from decisions import ANNA, about_two, drop_rails, final, pending
from disposals import ERASURE, EXPIRY, ORDER
from ledgers import KEYRING, sequencer
from sqlalchemy import bindparam, create_engine, select, text, update

from service.bundles import Exporter, Selection
from service.bundles.inspecting import Inspector
from service.disposal import PURGE_GRACE, erase, of_subject, purge
from service.evidence import ErasedError, EvidenceStore
from service.evidence.tables import events
from service.ledger import Ledger
from service.verify import CONSISTENT, Json, verify_file

UNDONE = "payload shown, and a later erasure or purge has destroyed it"
KEY = ("default", "request-1")


@contextmanager
def put_back(url: str, directory: Path) -> Iterator[None]:
    """Whatever is destroyed inside, in both databases, is there again afterwards."""
    engine, vault = create_engine(url), create_engine(f"sqlite:///{directory}/keys.db")
    kept = select(events.c.event_id.label("of"), events.c.payload, events.c.record_key)
    with engine.begin() as connection, vault.begin() as secrets:
        rows: list[dict[str, Any]] = [dict(row._mapping) for row in connection.execute(kept)]
        wrapped = [dict(row._mapping) for row in secrets.execute(text("SELECT * FROM record_keys"))]
    yield
    drop_rails(url)
    with engine.begin() as connection, vault.begin() as secrets:
        again = update(events).where(events.c.event_id == bindparam("of"))
        values = {name: bindparam(name) for name in ("payload", "record_key")}
        connection.execute(again.values(values), rows)
        secrets.execute(text("INSERT OR IGNORE INTO record_keys VALUES (:ref, :wrapped)"), wrapped)
    engine.dispose()
    vault.dispose()
    EvidenceStore.open(url).close()  # which lays the rails again, as who covers his tracks


def findings(store: EvidenceStore, directory: Path) -> tuple[Json, Json]:
    """Of the database, and of a bundle of the whole log."""
    sequencer(store).run(is_last=True)
    ledger = Ledger(store, KEYRING)
    inspected = Inspector(store, ledger, directory).inspect()["logs"]["evidence"]["findings"]
    exporter = Exporter(store=store, ledger=ledger, wait_seconds=0.1)
    exporter.export(directory / "bundle", Selection(), force=True)
    return inspected, verify_file(directory / "bundle")["findings"]


def erased(store: EvidenceStore) -> None:
    assert erase(store, [KEY], ERASURE).erased == 1


def purged(store: EvidenceStore) -> None:
    assert purge(store, ORDER.principal, now=EXPIRY + 2 * PURGE_GRACE).total == 1


def erased_in_part(store: EvidenceStore) -> None:
    keys = of_subject(store, "default", ANNA)
    assert erase(store, keys, replace(ERASURE, subject=ANNA)).erased == 1


@pytest.mark.parametrize("destroyed", [erased, purged, erased_in_part])
def test_what_was_destroyed_and_is_there_again_is_named(
    url: str, store: EvidenceStore, tmp_path: Path, destroyed: Callable[[EvidenceStore], None]
) -> None:
    store.append(about_two(KEY[1]))
    with put_back(url, tmp_path):
        destroyed(store)
        assert findings(store, tmp_path) == ([], [])
    expected = [{"seq": 0, "problem": UNDONE}]
    assert findings(store, tmp_path) == (expected, expected)


@pytest.mark.parametrize("destroyed", [erased, purged])
def test_a_record_that_was_erased_as_a_whole_is_not_read_whatever_stands_there(
    url: str, store: EvidenceStore, tmp_path: Path, destroyed: Callable[[EvidenceStore], None]
) -> None:
    asked = pending(KEY[1])
    store.append(asked)
    store.append_final(final(asked))
    with put_back(url, tmp_path):
        destroyed(store)
    for read in (store.record, store.get):
        with pytest.raises(ErasedError):
            read(*KEY)
    assert store.records([KEY]) == []
    shown = {each.event_type: each.opening for each in store.request_events(*KEY)}
    assert (shown["decision"], shown["explanation"]) == (None, None)
    named = [found["seq"] for found in findings(store, tmp_path)[0]]
    assert named == [0, 1, 2]


def test_a_record_erased_in_part_is_read_as_before(store: EvidenceStore, tmp_path: Path) -> None:
    store.append(about_two(KEY[1]))
    erased_in_part(store)
    record = store.record(*KEY)
    assert record is not None
    assert record.decision.is_parted
    (opening,) = [e.opening for e in store.request_events(*KEY) if e.event_type == "decision"]
    assert opening is not None
    assert [section is None for section in opening][:3] == [False, True, False]
    assert findings(store, tmp_path) == ([], [])
    assert verify_file(tmp_path / "bundle")["verdict"] == CONSISTENT
