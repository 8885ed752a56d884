"""The database where it is: whatever somebody changes in it is found and located."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from decisions import change, decision
from filled_database import LATER, PLACE, SIZE, Database, evidence, fill, filled, headered
from ledgers import KEYRING, append, query

from service.bundles.inspecting import Inspector
from service.evidence import EvidenceStore, SchemaVersionError, StoreUnavailableError
from service.evidence.looking import open_as_is
from service.ledger import Ledger
from service.secrets import Keyring
from service.verify import CONSISTENT


def test_a_sound_database_passes(database: Database) -> None:
    verdict = database.verdict()
    assert verdict["verdict"] == CONSISTENT, verdict
    assert evidence(verdict)["checked"] == SIZE
    assert evidence(verdict)["not_shown"] == 1
    assert evidence(verdict)["waiting"] == 0
    assert verdict["logs"]["access"]["checked"] == 3
    witnessed = database.verdict(witness=database.checkpoint())
    assert witnessed["verdict"] == "consistent with the witness"


STATEMENTS: dict[str, tuple[str, int | None, str]] = {
    "edit": ("UPDATE events SET status = 'failed' WHERE event_id = EVENT", PLACE, "status"),
    "edit of a time": (
        "UPDATE events SET received_us = received_us + 1 WHERE event_id = EVENT",
        PLACE,
        "received_us",
    ),
    "edit of an expiry": (
        "UPDATE events SET expires_us = expires_us + 2000 WHERE event_id = EVENT",
        PLACE,
        "expires_us",
    ),
    "edit of a key": (
        "UPDATE events SET idempotency_key = 'decision/default/other-000' WHERE event_id = EVENT",
        PLACE,
        "idempotency_key",
    ),
    "another tenant": (
        "UPDATE events SET tenant = 'elsewhere' WHERE event_id = EVENT",
        PLACE,
        "tenant",
    ),
    "delete": ("DELETE FROM events WHERE event_id = EVENT", PLACE, "missing"),
    "delete with its place": (
        "DELETE FROM events WHERE event_id = EVENT; DELETE FROM log_entries WHERE event_id = EVENT",
        PLACE,
        "missing",
    ),
    "swap": (
        """UPDATE log_entries SET event_id = 'x' WHERE event_id = EVENT;
        UPDATE log_entries SET event_id = EVENT WHERE event_id = NEXT;
        UPDATE log_entries SET event_id = NEXT WHERE event_id = 'x'""",
        PLACE,
        "changed",
    ),
    "reorder": (
        """UPDATE log_entries SET seq = -1 WHERE event_id = EVENT;
        UPDATE log_entries SET seq = 5 WHERE event_id = NEXT;
        UPDATE log_entries SET seq = 6 WHERE seq = -1""",
        0,
        "stored node over entries 0 to 255",
    ),
    "insert": (
        "INSERT INTO log_entries VALUES ('evidence', 300, 'forged', 'leaf')",
        SIZE,
        "forged",
    ),
    "truncate the tail": (
        "DELETE FROM log_entries WHERE log = 'evidence' AND seq >= 290",
        290,
        "missing",
    ),
    "payload": (
        "UPDATE events SET payload = NULL WHERE event_id = EVENT",
        PLACE,
        "payload missing",
    ),
    "proof": (
        """UPDATE tree_nodes SET hash = leaf FROM log_entries
        WHERE tree_nodes.log = 'evidence' AND seq = 0 AND log_entries.log = 'evidence'""",
        0,
        "stored node over entries 0 to 255",
    ),
    "proof left out": ("DELETE FROM tree_nodes", 0, "stored node"),
    "leaf": (
        "UPDATE log_entries SET leaf = (SELECT hash FROM tree_nodes LIMIT 1)"  # noqa: ISC004
        " WHERE event_id = EVENT",
        PLACE,
        "changed",
    ),
    "checkpoint": (
        # Its line of the size: the digits may be in the signature too.
        "UPDATE checkpoints SET note = replace(note, '\n300\n', '\n299\n') WHERE log = 'evidence'",
        None,
        "signature is not that of the text",
    ),
    "checkpoint under another size": (
        "UPDATE checkpoints SET size = 299 WHERE log = 'evidence'",
        None,
        "the stored checkpoint of size 299 is one of size 300",
    ),
    "checkpoint left out": (
        "DELETE FROM checkpoints WHERE log = 'evidence'",
        0,
        "rolled back or truncated: the file checkpoint.evidence has 300 entries",
    ),
    "subject": ("DELETE FROM event_subjects WHERE subject = 'bb'", SIZE - 6, "subjects"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_change_is_found_and_located(database: Database, name: str) -> None:
    statement, seq, problem = STATEMENTS[name]
    database.change(statement)
    found = evidence(database.verdict())
    assert found["verdict"] == "failed"
    first = found["findings"][0]
    assert (first["seq"], problem in first["problem"]) == (seq, True), found["findings"]


def test_a_changed_header_is_found_however_far_it_was_followed_up(database: Database) -> None:
    new = headered(database.url)
    changed = f"UPDATE events SET header = {new}, model = 'debit!'"  # noqa: S608
    database.change(f"{changed} WHERE event_id = EVENT")
    first = evidence(database.verdict())["findings"][0]
    assert (first["seq"], "changed" in first["problem"]) == (PLACE, True)
    # Its leaf as well: the stored node over it is another.
    header = query(
        database.url,
        f"SELECT header FROM events WHERE event_id = '{database.event_at(PLACE)}'",  # noqa: S608
    )[0][0]
    leaf = sha256(b"\0" + bytes(header)).hexdigest()  # type: ignore[call-overload]
    value = f"x'{leaf}'" if database.url.startswith("sqlite") else f"'\\x{leaf}'"
    changed = f"UPDATE log_entries SET leaf = {value}"  # noqa: S608
    database.change(f"{changed} WHERE event_id = EVENT")
    first = evidence(database.verdict())["findings"][0]
    assert first == {
        "seq": 0,
        "problem": "the stored node over entries 0 to 255 is not theirs",
    }


def test_a_changed_payload_is_found(database: Database) -> None:
    text = "payload" if database.url.startswith("sqlite") else "convert_from(payload, 'UTF8')"
    cast = "CAST({} AS BLOB)" if database.url.startswith("sqlite") else "convert_to({}, 'UTF8')"
    new = cast.format(f"replace(CAST({text} AS TEXT), '33', '34')")
    changed = f"UPDATE events SET payload = {new}"  # noqa: S608
    database.change(f"{changed} WHERE event_id = EVENT")
    found = evidence(database.verdict())["findings"]
    assert found == [
        {"seq": PLACE, "problem": "payload or key changed: not what the header commits to"}
    ]


def test_a_dropped_trigger_is_named(database: Database) -> None:
    of_table = "" if database.url.startswith("sqlite") else " ON events"
    change(database.url, f"DROP TRIGGER events_change_rail{of_table}")
    verdict = database.verdict()
    assert verdict["verdict"] == "failed"
    assert verdict["findings"] == [
        {"seq": None, "problem": "the trigger events_change_rail was dropped"}
    ]
    assert evidence(verdict)["verdict"] == CONSISTENT


def test_events_without_a_place_are_late_after_a_while(database: Database) -> None:
    with open_as_is(database.url) as store:
        event = decision()
        store.append(event)
        inspector = Inspector(store, Ledger(store, KEYRING), database.directory)
        fresh = inspector.inspect()
        assert fresh["verdict"] == CONSISTENT
        assert evidence(fresh)["waiting"] == 1
        late = replace_now(inspector).inspect()
    assert evidence(late)["findings"] == [
        {
            "seq": None,
            "problem": f"event {event.event_id} has no place in the log: does the sequencer run?",
        }
    ]


def replace_now(inspector: Inspector) -> Inspector:
    return replace(inspector, now=inspector.now + LATER)


def test_another_key_fails_and_the_right_one_may_be_demanded(database: Database) -> None:
    other = database.verdict(keyring=Keyring(bytes(32)))
    assert "not signed by" in evidence(other)["findings"][0]["problem"]
    with open_as_is(database.url) as store:
        ledger = Ledger(store, KEYRING)
        vkey = Ledger(store, Keyring(bytes(32))).vkey()
        demanded = Inspector(store, ledger, database.directory, vkey).inspect()
    assert "signed by another key" in evidence(demanded)["findings"][0]["problem"]


def test_a_witness_of_another_log_is_refused(database: Database) -> None:
    verdict = database.verdict(witness="other/log\n3\nAAAA\n\n— x y\n")
    assert (verdict["verdict"], "witness" in verdict["findings"][0]["problem"]) == ("failed", True)


def copy_of(url: str, target: Path) -> str:
    with (
        closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
    return f"sqlite:///{target}"


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Database:
    return filled(f"sqlite:///{tmp_path}/evidence.db", tmp_path)


def test_an_old_copy_is_found_by_the_file_beside_it_and_by_a_witness(on_sqlite: Database) -> None:
    old = replace(on_sqlite, url=copy_of(on_sqlite.url, on_sqlite.directory / "old.db"))
    with open_as_is(on_sqlite.url) as store:
        append(store, 7)
    on_sqlite.sequence()
    kept = on_sqlite.checkpoint()
    first = evidence(old.verdict())["findings"][0]
    assert first["seq"] == SIZE
    assert "the file checkpoint.evidence has 307 entries" in first["problem"]
    (on_sqlite.directory / "checkpoint.evidence").unlink()
    assert old.verdict()["verdict"] == CONSISTENT  # nothing outside tells
    first = evidence(old.verdict(witness=kept))["findings"][0]
    assert first == {
        "seq": SIZE,
        "problem": "rolled back or truncated: the witness has 307 entries",
    }


def test_another_history_of_the_same_size_is_found(on_sqlite: Database) -> None:
    kept = on_sqlite.checkpoint()
    other = Database(f"sqlite:///{on_sqlite.directory}/other.db", on_sqlite.directory / "other")
    other.directory.mkdir()
    fill(other.url)
    other.sequence()
    assert other.verdict()["verdict"] == CONSISTENT
    assert "forked" in evidence(other.verdict(witness=kept))["findings"][0]["problem"]
    beside = replace(other, directory=on_sqlite.directory)
    assert "forked: the file" in evidence(beside.verdict())["findings"][0]["problem"]


Trick = Callable[[sqlite3.Connection, str], None]


def replaced(connection: sqlite3.Connection, event_id: str) -> None:
    """SQLite's REPLACE deletes without asking the triggers, unless recursive_triggers is on."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
    taken = ", ".join(
        "CAST(replace(CAST(payload AS TEXT), '33', '18') AS BLOB)" if name == "payload" else name
        for name in columns
    )
    connection.execute(
        f"INSERT OR REPLACE INTO events SELECT {taken} FROM events WHERE event_id = ?",  # noqa: S608
        (event_id,),
    )


def doubled(connection: sqlite3.Connection, event_id: str) -> None:
    """The same place twice, in a table that has lost its primary key."""
    del event_id
    connection.execute("CREATE TABLE copy AS SELECT * FROM log_entries ORDER BY log, seq")
    connection.execute(f"INSERT INTO copy SELECT * FROM copy WHERE seq = {PLACE}")  # noqa: S608
    connection.execute("DROP TABLE log_entries")
    connection.execute("ALTER TABLE copy RENAME TO log_entries")


@pytest.mark.parametrize(
    ("trick", "problem"), [(replaced, "payload or key changed"), (doubled, "duplicate")]
)
def test_tricks_past_sqlites_triggers_are_found(
    on_sqlite: Database, trick: Trick, problem: str
) -> None:
    with closing(sqlite3.connect(on_sqlite.url.removeprefix("sqlite:///"))) as connection:
        if trick is doubled:
            connection.execute("DROP TRIGGER log_entries_delete_rail")
        trick(connection, on_sqlite.event_at(PLACE))
        connection.commit()
    first = evidence(on_sqlite.verdict())["findings"][0]
    assert (first["seq"], problem in first["problem"]) == (PLACE, True), first


def test_looking_at_a_database_makes_and_mends_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evidence.db"
    with pytest.raises(StoreUnavailableError, match="no evidence database"):
        open_as_is(url)
    assert list(tmp_path.iterdir()) == []
    EvidenceStore.open(url).close()
    change(url, "UPDATE meta SET value = '1' WHERE name = 'schema_version'")
    with pytest.raises(SchemaVersionError):
        open_as_is(url)
