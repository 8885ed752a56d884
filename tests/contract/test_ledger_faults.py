"""The log under concurrent writers, processes that die, and databases that were put back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from decisions import change, decision, drop_rails
from ledgers import KEYRING, append, assert_log_is_sound, query, sequencer
from servers import wait_until

from service.evidence import EvidenceStore
from service.evidence.events import seal
from service.ledger import Ledger, LogMismatchError, Sequencing
from service.ledger.checkpoints import CheckpointFile
from service.ledger.sequencing import Sequencer
from service.secrets import Keyring

SUPPORT = Path(__file__).parents[1] / "support"


@contextmanager
def program(name: str, url: str) -> Iterator[subprocess.Popen[str]]:
    paths = os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])
    process = subprocess.Popen(
        [sys.executable, SUPPORT / "ledger_programs.py", name, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def signed_size(last: Sequencer) -> int:
    """Of the log after one more turn."""
    last.run(is_last=True)
    return 0 if last.signed is None else last.signed.size


def test_processes_that_append_and_sequence_at_once_make_one_gapless_log(url: str) -> None:
    with EvidenceStore.open(url) as store, ExitStack() as running:
        for _ in range(2):
            sequencing = running.enter_context(program("sequence_for_ever", url))
            assert sequencing.stdout is not None
            assert sequencing.stdout.readline() == "ready\n"
        appending = [running.enter_context(program("append_many", url)) for _ in range(2)]
        assert [process.wait(60) for process in appending] == [0, 0]
    entries = 2 * sum(1 + turn % 7 for turn in range(100))
    with EvidenceStore.open(url) as store:
        last = sequencer(store)
        # The lock of a process that was killed goes with its connection, a moment later.
        wait_until(lambda: signed_size(last) == entries)
    assert_log_is_sound(url, entries=entries)


def test_a_process_killed_before_its_commit_leaves_no_trace_and_holds_nobody_up(url: str) -> None:
    with EvidenceStore.open(url) as store:
        append(store, 3)
        with program("die_in_the_middle", url) as dying:
            assert dying.wait(30) == -signal.SIGKILL
        assert query(url, "SELECT count(*) FROM log_entries") == [(0,)]
        sequencer(store).run(is_last=True)
    assert_log_is_sound(url, entries=3)


def test_what_a_dead_process_committed_is_sequenced_by_the_next(url: str) -> None:
    with program("append_many", url) as appending:
        assert appending.wait(60) == 0
    with EvidenceStore.open(url) as store:
        sequencer(store).run(is_last=True)
    assert_log_is_sound(url, entries=sum(1 + turn % 7 for turn in range(100)))


class Told:
    """What an observer of the sequencing is told."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.failures: list[str] = []

    def on_failure(self, kind: str) -> None:
        self.failures.append(kind)

    def on_waiting(self, rows: int) -> None:
        self.waiting.append(rows)


def test_a_transaction_still_open_is_neither_overtaken_nor_missed(
    postgres_url: str, tmp_path: Path
) -> None:
    address = postgres_url.replace("postgresql+psycopg://postgres@/", "user=postgres dbname=")
    address = address.replace("?host=", " host=")
    with EvidenceStore.open(postgres_url) as store, psycopg.connect(address) as slow:
        sequencing = sequencer(store)
        append(store, 2)
        markers = ", ".join(["%s"] * len(seal(decision())))
        columns = "event_id, idempotency_key, event_type, tenant, request_id, parent_request_id,"
        columns += " actor, subjects, model, version, status, lane, received_us, expires_us,"
        columns += " record_key, encoding, header, payload"
        statement = f"INSERT INTO events ({columns}) VALUES ({markers})"  # noqa: S608
        slow.execute(statement.encode(), seal(decision()))
        append(store, 4)
        sequencing.run(is_last=True)
        assert query(postgres_url, "SELECT count(*) FROM log_entries") == [(2,)]
        told = Told()
        following = Sequencing.of(store, Ledger(store, KEYRING).signer, tmp_path, told)
        following.start()
        following.close()
        assert (told.waiting[-1], told.failures) == (4, [])
        slow.commit()
        sequencing.run(is_last=True)
    assert_log_is_sound(postgres_url, entries=7)


def test_one_process_at_a_time_has_the_log(postgres_url: str) -> None:
    with EvidenceStore.open(postgres_url) as store, EvidenceStore.open(postgres_url) as other:
        append(store, 1)
        first, second = sequencer(store), sequencer(other)
        with first._rows.turn(first.log) as mine:
            assert mine is not None
            second.run()
            assert query(postgres_url, "SELECT count(*) FROM log_entries") == [(0,)]
        second.run(is_last=True)
    assert_log_is_sound(postgres_url, entries=1)


def test_a_copy_in_another_server_goes_on_where_it_was(postgres_url: str) -> None:
    """pg_dump keeps the numbers of transactions, and a new server counts them from the start."""
    with EvidenceStore.open(postgres_url) as store:
        append(store, 3)
        sequencer(store).run(is_last=True)
        mark = "json_build_object('size', 3, 'arrival', CAST(9e12 AS BIGINT), 'event_id', 'x',"
        mark += "'offset', 0, 'signed_size', 3, 'signed_us', 0)"
        drop_rails(postgres_url)
        set_mark = f"UPDATE meta SET value = {mark} WHERE name = 'log.evidence'"  # noqa: S608
        change(postgres_url, set_mark)
        change(postgres_url, "UPDATE events SET arrival = CAST(9e12 AS BIGINT)")
        append(store, 2)  # before anybody has noticed
        sequencing = sequencer(store)
        sequencing.run()
        append(store, 4)
        sequencing.run(is_last=True)
        assert_log_is_sound(postgres_url, entries=9)
        append(store, 1)
        sequencer(store).run(is_last=True)
    assert_log_is_sound(postgres_url, entries=10)


def test_rows_in_the_places_of_deleted_ones_are_not_missed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evidence.db"
    with EvidenceStore.open(url) as store:
        sequencing = sequencer(store)
        append(store, 5)
        sequencing.run()
        drop_rails(url)
        change(url, "DELETE FROM events WHERE rowid >= 4")
        later = append(store, 3)
        sequencing.run(is_last=True)
        places = Ledger(store, KEYRING).places("evidence", later)
    assert sorted(places.values()) == [5, 6, 7]


CHANGES = {
    "entries removed": (
        "DELETE FROM log_entries WHERE seq = 599",
        r"UPDATE meta SET value = replace(value, '\:600,', '\:599,') WHERE name LIKE 'log.%'",
    ),
    "a leaf changed": ("UPDATE log_entries SET leaf = zero WHERE seq = 599",),
    "a node changed": ("UPDATE tree_nodes SET hash = zero WHERE number = 1",),
    "a node missing": ("DELETE FROM tree_nodes WHERE number = 1",),
    "a checkpoint changed": ("UPDATE checkpoints SET note = replace(note, '600', '601')",),
    "a signature changed": (
        "UPDATE checkpoints SET note = replace(note, '/evidence ', '/evidence A')",
    ),
    "a checkpoint garbled": ("UPDATE checkpoints SET note = 'x'",),
}


@pytest.mark.parametrize("change_name", CHANGES)
def test_a_log_that_was_changed_is_not_signed_again(url: str, change_name: str) -> None:
    zero = "zeroblob(32)" if url.startswith("sqlite") else "decode(repeat('00', 32), 'hex')"
    with EvidenceStore.open(url) as store:
        append(store, 600)
        sequencer(store).run(is_last=True)
        drop_rails(url)
        for statement in CHANGES[change_name]:
            change(url, statement.replace("zero", zero))
        notes = query(url, "SELECT note FROM checkpoints")
        append(store, 1)
        with pytest.raises(LogMismatchError):
            sequencer(store).run(is_last=True)
        assert query(url, "SELECT note FROM checkpoints") == notes
        assert query(url, "SELECT count(*) FROM events") == [(601,)]


def test_a_log_in_trouble_is_left_alone_until_a_restart(url: str, tmp_path: Path) -> None:
    """Whoever put it right again may not have known what was wrong."""
    with EvidenceStore.open(url) as store:
        append(store, 3)
        sequencer(store).run(is_last=True)
        signer, told = Ledger(store, KEYRING).signer, Told()
        ((note,),) = query(url, "SELECT note FROM checkpoints")
        change(url, "UPDATE checkpoints SET note = 'x'")
        following = Sequencing.of(store, signer, tmp_path, told)
        following.start()
        wait_until(lambda: following.troubles)
        change(url, f"UPDATE checkpoints SET note = '{note}'")  # noqa: S608
        append(store, 1)
        following.close()
        assert query(url, "SELECT count(*) FROM log_entries") == [(3,)]
        assert set(told.failures) == {"LogMismatchError"}
        restarted = Sequencing.of(store, signer, tmp_path, told)
        restarted.start()
        restarted.close()
    assert_log_is_sound(url, entries=4)


def put_back(url: str, mark: str, checkpoint: tuple[object, ...]) -> None:
    """The database as it was at five entries."""
    drop_rails(url)
    change(url, "DELETE FROM log_entries WHERE seq >= 5")
    change(url, "DELETE FROM events WHERE event_id NOT IN (SELECT event_id FROM log_entries)")
    literal = mark.replace(":", "\\:")  # no parameters
    change(url, f"UPDATE meta SET value = '{literal}' WHERE name = 'log.evidence'")  # noqa: S608
    size, signed_us, note = checkpoint
    values = f"size = {size}, signed_us = {signed_us}, note = '{note}'"
    change(url, f"UPDATE checkpoints SET {values}")  # noqa: S608


def test_an_old_copy_is_noticed_by_who_remembers_and_by_the_file(url: str, tmp_path: Path) -> None:
    with EvidenceStore.open(url) as store:
        remembering = sequencer(store)
        append(store, 5)
        remembering.run(is_last=True)
        ((mark,),) = query(url, "SELECT value FROM meta WHERE name = 'log.evidence'")
        (checkpoint,) = query(url, "SELECT size, signed_us, note FROM checkpoints")
        append(store, 5)
        remembering.run(is_last=True)
        file = CheckpointFile(tmp_path, "evidence")
        assert remembering.signed is not None
        file.write(remembering.signed.note)
        put_back(url, str(mark), checkpoint)
        append(store, 9)
        for noticing in (remembering, sequencer(store, directory=tmp_path)):
            with pytest.raises(LogMismatchError, match="has 5 entries, and had 10"):
                noticing.run()
        file.path.rename(tmp_path / "acknowledged")
        sequencer(store, directory=tmp_path).run(is_last=True)
    assert_log_is_sound(url, entries=14)


def test_a_log_signed_with_another_key_goes_on_under_its_own(url: str, tmp_path: Path) -> None:
    with EvidenceStore.open(url) as store:
        append(store, 1)
        sequencing = sequencer(store)
        sequencing.run(is_last=True)
        append(store, 1)
        sequencing = sequencer(store, directory=tmp_path)
        sequencing._signer = Ledger(store, Keyring(bytes(32))).signer
        sequencing.run(is_last=True)
        signed = Ledger(store, KEYRING).checkpoint()
        assert signed is not None
        assert signed.origin == sequencing._signer.origin("evidence")
    assert_log_is_sound(url, entries=2)
