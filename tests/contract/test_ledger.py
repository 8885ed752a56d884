"""Places, trees, proofs and checkpoints, over both databases."""

from dataclasses import replace
from pathlib import Path

import merkle
import pytest
from decisions import change, drop_rails
from ledgers import KEYRING, append, assert_log_is_sound, query, sequencer
from sqlalchemy import insert
from syncs import Syncs

from service.evidence import EvidenceStore
from service.evidence.tables import accesses
from service.ledger import (
    ACCESS,
    EVIDENCE,
    Ledger,
    LogMismatchError,
    LogSigner,
    parse_checkpoint,
)
from service.ledger.rows import add_mark, log_rows, set_mark
from service.uuid7 import uuid7


def headers_in_order(url: str) -> list[bytes]:
    found = query(
        url,
        "SELECT header FROM events JOIN log_entries USING (event_id)"
        " WHERE log = 'evidence' ORDER BY seq",
    )
    return [bytes(header) for (header,) in found]  # type: ignore[call-overload]


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 252, 1, 1), (2000, 2000, 7)])
def test_every_event_gets_one_place_and_the_tree_is_the_rfc_s(url: str, sizes: tuple[int]) -> None:
    with EvidenceStore.open(url) as store:
        sequencing = sequencer(store)
        for size in sizes:
            append(store, size)
            sequencing.run(is_last=True)
    assert_log_is_sound(url, entries=sum(sizes))


def test_proofs_hold_for_every_size_there_was(url: str) -> None:
    with EvidenceStore.open(url) as store:
        append(store, 600)
        sequencer(store).run(is_last=True)
        ledger = Ledger(store, KEYRING)
        headers = headers_in_order(url)
        for size in (1, 2, 255, 256, 257, 511, 512, 600):
            seqs = sorted({0, size // 2, size - 1, min(255, size - 1)})
            for seq, path in zip(seqs, ledger.inclusions("evidence", seqs, size), strict=True):
                assert list(path) == merkle.path(seq, headers[:size])
            for old in (0, 1, size // 3, size):
                wanted = merkle.proof(old, headers[:size]) if old else []
                assert list(ledger.consistency("evidence", old, size)) == wanted


def test_places_and_entries_are_found(url: str) -> None:
    with EvidenceStore.open(url) as store:
        ids = append(store, 5)
        ledger = Ledger(store, KEYRING)
        assert ledger.place("evidence", ids[0]) is None
        assert ledger.checkpoint() is None
        sequencer(store).run()
        places = ledger.places("evidence", [*ids, "unknown"])
        assert sorted(places.values()) == [0, 1, 2, 3, 4]
        found = ledger.entries("evidence", 1, 99)
        assert [entry.seq for entry in found] == [1, 2, 3, 4]
        assert all(places[entry.event_id] == entry.seq for entry in found)
        for seq, size in ((5, 5), (0, 6), (-1, 5)):
            with pytest.raises(ValueError, match=r"the log|not in a tree"):
                ledger.inclusion("evidence", seq, size)


def test_the_access_log_is_a_log_of_its_own(url: str) -> None:
    with EvidenceStore.open(url) as store:
        append(store, 3)
        row = {"tenant": "default", "principal": "p", "kind": "read", "at_us": 1, "header": b"{}"}
        with store.changing() as connection:
            connection.execute(insert(accesses), [{**row, "event_id": uuid7()} for _ in range(2)])
        sequencer(store).run(is_last=True)
        sequencer(store, ACCESS).run(is_last=True)
        ledger = Ledger(store, KEYRING)
        first, second = ledger.checkpoint("evidence"), ledger.checkpoint("access")
    assert first is not None
    assert second is not None
    assert (first.size, second.size) == (3, 2)
    assert second.root == merkle.mth([b"{}", b"{}"])
    assert second.origin == first.origin.replace("/evidence", "/access")
    for statement in ("DELETE FROM accesses", "UPDATE accesses SET kind = 'x'"):
        with pytest.raises(Exception, match="evidence is not changed"):
            change(url, statement)


def test_headers_of_any_bytes_are_hashed_as_they_are(url: str) -> None:
    odd = [b"\x00\xff\x00", b"", bytes(range(256)), "\u00e9\n".encode(), b"\xc3"]
    with EvidenceStore.open(url) as store:
        row = {"tenant": "t", "principal": "p", "kind": "read", "at_us": 1}
        ids = [uuid7() for _ in odd]
        rows = [{**row, "event_id": i, "header": h} for i, h in zip(ids, odd, strict=True)]
        with store.changing() as connection:
            connection.execute(insert(accesses), rows)
        sequencer(store, ACCESS).run(is_last=True)
        places = Ledger(store, KEYRING).places("access", ids)
        checkpoint = Ledger(store, KEYRING).checkpoint("access")
    by_place = {places[i]: header for i, header in zip(ids, odd, strict=True)}
    assert checkpoint is not None
    assert checkpoint.root == merkle.mth([by_place[seq] for seq in range(len(odd))])


def test_checkpoints_come_a_second_apart_and_one_a_day_is_kept(url: str) -> None:
    with EvidenceStore.open(url) as store:
        sequencing, ledger = sequencer(store), Ledger(store, KEYRING)
        append(store, 1)
        sequencing.run()
        append(store, 1)
        sequencing.run()
        first = ledger.checkpoint()
        assert first is not None
        assert first.size == 1
        change(url, "UPDATE checkpoints SET signed_us = signed_us - 86400000000")
        for size in (2, 3):
            append(store, size - 2)
            sequencing.run(is_last=True)
        found = query(url, "SELECT size, note FROM checkpoints ORDER BY size")
        last = ledger.checkpoint()
    assert last is not None
    assert last.size == 3
    assert [size for size, _ in found] == [1, 3]
    assert found[0][1] == first.note
    assert parse_checkpoint(first.note) == first


def test_a_clock_that_was_set_back_does_not_keep_a_checkpoint_from_being_signed(url: str) -> None:
    with EvidenceStore.open(url) as store:
        sequencing = sequencer(store)
        append(store, 1)
        sequencing.run()
        with store.changing() as connection:
            mark, _ = log_rows(store).mark(connection, EVIDENCE)
            ahead = replace(mark, signed_us=mark.signed_us + 86_400_000_000)
            assert set_mark(connection, EVIDENCE, mark, ahead)
        append(store, 1)
        sequencing.run()
        checkpoint = Ledger(store, KEYRING).checkpoint()
    assert checkpoint is not None
    assert checkpoint.size == 2


def test_a_mark_that_another_process_has_moved_is_not_replaced(url: str) -> None:
    with EvidenceStore.open(url) as store, store.changing() as connection:
        add_mark(connection, EVIDENCE)
        mark, _ = log_rows(store).mark(connection, EVIDENCE)
        assert set_mark(connection, EVIDENCE, mark, replace(mark, size=2))
        assert not set_mark(connection, EVIDENCE, mark, replace(mark, size=1))
        assert log_rows(store).mark(connection, EVIDENCE)[0].size == 2


def test_a_signature_for_another_log_is_none_for_this_one() -> None:
    signer = LogSigner(KEYRING)
    note = signer.sign("access", 1, bytes(32)).note
    renamed = note.replace(f"— {signer.origin('access')}", f"— {signer.origin('evidence')}")
    assert signer.has_signed("access", note)
    assert not signer.has_signed("evidence", renamed)


def test_what_a_run_has_put_into_the_log_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        append(store, 3)
        syncs = Syncs.watched(monkeypatch)
        sequencer(store).run()
        assert syncs.covers(tmp_path / "evidence.db-wal")


def test_an_event_inserted_again_keeps_its_one_place(url: str) -> None:
    with EvidenceStore.open(url) as store:
        sequencing = sequencer(store)
        append(store, 5)
        sequencing.run()
        drop_rails(url)
        engine_copy = "CREATE TABLE copy AS SELECT * FROM events"
        change(url, engine_copy)
        change(url, "DELETE FROM events")
        if store.is_sqlite:
            change(url, "INSERT INTO events SELECT * FROM copy ORDER BY event_id DESC")
        else:
            columns = "SELECT string_agg(column_name, ',') FROM information_schema.columns"
            names = query(
                url, f"{columns} WHERE table_name = 'events' AND column_name <> 'arrival'"
            )
            listed = str(names[0][0])
            change(url, f"INSERT INTO events ({listed}) SELECT {listed} FROM copy")  # noqa: S608
        append(store, 2)
        sequencing.run(is_last=True)
    assert_log_is_sound(url, entries=7)


def test_entries_that_somebody_added_stop_the_log(url: str) -> None:
    with EvidenceStore.open(url) as store:
        sequencing = sequencer(store)
        append(store, 2)
        sequencing.run()
        change(url, "INSERT INTO log_entries VALUES ('evidence', 2, 'not-an-event', 'x')")
        append(store, 1)
        with pytest.raises(LogMismatchError, match="not given yet"):
            sequencing.run()
        assert sequencing.waiting() == 1
