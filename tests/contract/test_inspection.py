"""The database where it is: whatever somebody changes in it is found and located."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from decisions import change, decision
from disposals import ERASURE, ORDER
from filled_database import LATER, PLACE, SIZE, Database, fill, headered
from ledgers import KEYRING, append, query, sequencer

from service.bundles.inspecting import Inspector
from service.disposal import erase, hold, release
from service.evidence import EvidenceStore, SchemaVersionError, StoreUnavailableError
from service.evidence.looking import open_as_is
from service.evidence.tables import events
from service.ledger import Ledger
from service.secrets import Keyring
from service.uuid7 import uuid7
from service.verify import CONSISTENT, Json


@pytest.fixture
def database(url: str, tmp_path: Path) -> Database:
    fill(url)
    database = Database(url, tmp_path)
    database.sequence()
    return database


def evidence(verdict: Json) -> Json:
    found: Json = verdict["logs"]["evidence"]
    return found


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
        "UPDATE checkpoints SET note = replace(note, '300', '299') WHERE log = 'evidence'",
        None,
        "signature is not that of the text",
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
    url = f"sqlite:///{tmp_path}/evidence.db"
    fill(url)
    database = Database(url, tmp_path)
    database.sequence()
    return database


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


def forge(
    database: Database, event_id: str, *, arrival: int | None = None, event_type: str = "decision"
) -> None:
    """A copy of the event at PLACE under another request, put where the sequencer has been."""
    is_sqlite = database.url.startswith("sqlite")
    made = {
        "event_id": f"'{event_id}'",
        "event_type": f"'{event_type}'",
        "request_id": "'forged-000'",
        "idempotency_key": f"'{event_type}/default/forged-000'",
    }
    if event_type != "decision":
        del made["request_id"]
    names = [column.name for column in events.c]
    values = [made.get(name, name) for name in names]
    if arrival is not None:
        names.append("rowid" if is_sqlite else "arrival")
        values.append(str(arrival))
    change(
        database.url,
        f"INSERT INTO events ({', '.join(names)}) SELECT {', '.join(values)} FROM events"  # noqa: S608
        f" WHERE event_id = '{database.event_at(PLACE)}'",
    )


FUTURE = "7fffffff-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("event_id", "arrival", "problem"),
    [(FUTURE, None, "no place"), (FUTURE, -5, "come further"), (None, -5, "come further")],
    ids=["in the future", "both", "below the mark"],
)
def test_an_event_that_will_never_be_sequenced_is_found(
    database: Database, event_id: str | None, arrival: int | None, problem: str
) -> None:
    made = event_id or uuid7()
    forge(database, made, arrival=arrival)
    (found,) = evidence(database.verdict())["findings"]
    assert found["problem"].startswith(f"event {made} ")
    assert problem in found["problem"]


def test_a_fact_without_a_place_excuses_no_missing_payload(database: Database) -> None:
    database.change("UPDATE events SET payload = NULL WHERE event_id = EVENT")
    forge(database, uuid7(), event_type="erasure")
    found = evidence(database.verdict())["findings"]
    assert [one["seq"] for one in found] == [PLACE]


def test_an_erasure_under_no_checkpoint_yet_excuses_what_it_names(database: Database) -> None:
    with open_as_is(database.url) as store:
        (event,) = store.events([database.event_at(PLACE)])
        request_id = orjson.loads(event.header)["request_id"]
        assert erase(store, [("default", request_id)], ERASURE).erased == 1
        sequencer(store).run()  # which signs once a second
        verdict = evidence(Inspector(store, Ledger(store, KEYRING), database.directory).inspect())
    assert (verdict["findings"], verdict["not_shown"]) == ([], 2)


HIDDEN_AT = {"before the beginning": ("'evidence', -1", "no place"), "elsewhere": ("'x', 7", "'x'")}


@pytest.mark.parametrize("name", HIDDEN_AT)
def test_a_place_that_is_none_hides_no_event(database: Database, name: str) -> None:
    place, problem = HIDDEN_AT[name]
    event_id = "0190aaaa-0000-7000-8000-000000000001"
    forge(database, event_id)
    leaf = "x'00'" if database.url.startswith("sqlite") else "'x'"
    change(database.url, f"INSERT INTO log_entries VALUES ({place}, '{event_id}', {leaf})")  # noqa: S608
    verdict = database.verdict()
    assert verdict["verdict"] == "failed"
    found = [one["problem"] for one in verdict["findings"] + evidence(verdict)["findings"]]
    assert any(problem in one for one in found), found
    assert any(one.startswith(f"event {event_id} has no place") for one in found), found


def test_a_suffix_hides_no_decision_from_who_asks_for_it(database: Database) -> None:
    database.change(
        "UPDATE events SET idempotency_key = idempotency_key || '/x' WHERE event_id = EVENT"
    )
    assert evidence(database.verdict())["findings"] == [
        {"seq": PLACE, "problem": "its header says another idempotency_key"}
    ]


def test_events_of_which_there_are_several_are_filed_under_their_id(database: Database) -> None:
    with EvidenceStore.open(database.url) as store:
        store.append(decision("held-00001"))
        hold(store, [("default", "held-00001")], ORDER)
    database.sequence()
    assert evidence(database.verdict())["findings"] == []
    database.change(
        "UPDATE events SET idempotency_key = 'hold/default/held-00001' WHERE event_type = 'hold'"
    )
    assert evidence(database.verdict())["findings"] == [
        {"seq": SIZE + 1, "problem": "its header says another idempotency_key"}
    ]


def test_a_place_far_away_is_found_at_once(database: Database) -> None:
    far = 1 << 62
    leaf = "x'00'" if database.url.startswith("sqlite") else "'x'"
    change(database.url, f"INSERT INTO log_entries VALUES ('evidence', {far}, 'x', {leaf})")  # noqa: S608
    first = evidence(database.verdict())["findings"][0]
    assert (first["seq"], "forged" in first["problem"]) == (far, True)


BAD_CELLS = {
    "leaf": "UPDATE log_entries SET leaf = 9999999999999 WHERE event_id = EVENT",
    "short leaf": "UPDATE log_entries SET leaf = x'00' WHERE event_id = EVENT",
    "header": "UPDATE events SET header = 'abc' WHERE event_id = EVENT",
    "header of a number": "UPDATE events SET header = 9999999999999 WHERE event_id = EVENT",
    "header without members": "UPDATE events SET header = x'5b5d' WHERE event_id = EVENT",
    "encoding": "UPDATE events SET encoding = 'zzz' WHERE event_id = EVENT",
    "key": "UPDATE events SET record_key = 5 WHERE event_id = EVENT",
    "key of a number": "UPDATE events SET record_key = 9999999999999 WHERE event_id = EVENT",
    "no key": "UPDATE events SET record_key = NULL WHERE event_id = EVENT",
    "payload of text": "UPDATE events SET payload = '{' WHERE event_id = EVENT",
    "payload of a number": "UPDATE events SET payload = 9999999999999 WHERE event_id = EVENT",
    "payload": "UPDATE events SET payload = x'ff' WHERE event_id = EVENT",
    "compressed": "UPDATE events SET encoding = 'json+zstd', payload = x'28b52ffd'"
    " WHERE event_id = EVENT",
    "encrypted": "UPDATE events SET encoding = 'aesgcm' WHERE event_id = EVENT",
    "subjects": "UPDATE events SET subjects = '[1' WHERE event_id = EVENT",
    "time": "UPDATE events SET received_us = 'x' WHERE event_id = EVENT",
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_one_bad_cell_is_one_finding_and_all_else_is_checked(
    on_sqlite: Database, name: str
) -> None:
    on_sqlite.change(BAD_CELLS[name])
    other = on_sqlite.event_at(PLACE + 2)
    on_sqlite.change(f"UPDATE events SET status = 'failed' WHERE event_id = '{other}'")  # noqa: S608
    found = evidence(on_sqlite.verdict())["findings"]
    assert {one["seq"] for one in found} == {PLACE, PLACE + 2}, found


def test_a_bad_cell_of_the_log_s_own_tables_is_a_finding(on_sqlite: Database) -> None:
    on_sqlite.change("UPDATE tree_nodes SET hash = 'x'")
    assert evidence(on_sqlite.verdict())["verdict"] == "failed"
    on_sqlite.change("INSERT INTO checkpoints VALUES ('evidence', 3, 1, x'ff')")
    found = [one["problem"] for one in evidence(on_sqlite.verdict())["findings"]]
    assert "the stored checkpoint of size 3 is no text" in found


@pytest.fixture
def held(database: Database) -> Database:
    with EvidenceStore.open(database.url) as store:
        for request_id in ("held-00001", "free-00001"):
            store.append(decision(request_id))
            hold(store, [("default", request_id)], ORDER)
        release(store, [("default", "free-00001")], ORDER)
        hold(store, [("default", "free-00001")], ORDER, kind="quarantine")
        release(store, [("default", "free-00001")], ORDER, kind="quarantine")
        erase(store, [("default", "free-00001")], ERASURE)
    database.sequence()
    return database


def test_holds_released_and_followed_by_an_erasure_are_sound(held: Database) -> None:
    assert evidence(held.verdict())["findings"] == []
    with EvidenceStore.open(held.url) as store:  # not sequenced yet, as beside a service
        release(store, [("default", "held-00001")], ORDER)
    assert evidence(held.verdict())["findings"] == []


def test_a_hold_taken_out_of_the_register_is_found_and_so_is_what_follows(held: Database) -> None:
    held.change("DELETE FROM holds")
    taken = {"seq": SIZE + 1, "problem": "this hold stands, and is not in the register of holds"}
    assert evidence(held.verdict())["findings"] == [taken]
    with EvidenceStore.open(held.url) as store:
        assert erase(store, [("default", "held-00001")], ERASURE).erased == 1
    held.sequence()
    found = evidence(held.verdict())["findings"]
    assert found[0] == taken
    assert found[1]["problem"] == "an erasure of a record that was under a hold"


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE holds SET reason = 'other'", "is not in the register of holds"),
        (
            "INSERT INTO holds VALUES ('default', 'free-00001', 'hold', 'x', 'y', 1)",
            "the register has a hold of default/free-00001 that no event has placed",
        ),
        (
            "INSERT INTO erasures VALUES ('default', 'held-00001', '', 'erasure', 'x', 1)",
            "the register has an erasure of default/held-00001 that no event tells of",
        ),
        (
            "UPDATE erasures SET kind = 'purge' WHERE request_id = 'free-00001'",
            "the register has a purge of default/free-00001 that no event tells of",
        ),
        (
            "UPDATE erasures SET request_id = 'held-00001' WHERE request_id = 'free-00001'",
            "the register has an erasure of default/held-00001 that no event tells of",
        ),
    ],
    ids=["reason", "hold", "erasure", "kind", "request"],
)
def test_a_register_that_says_more_than_the_log_is_found(
    held: Database, statement: str, problem: str
) -> None:
    held.change(statement)
    (found,) = evidence(held.verdict())["findings"]
    assert problem in found["problem"]
