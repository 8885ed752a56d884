"""Registers, triggers and checkpoints beside the log are compared with what they must be."""

from contextlib import closing
from datetime import timedelta

import pytest
from decisions import decision
from disposals import AGES, ERASURE, ORDER, add_beside
from filled_database import SIZE, Database, evidence
from ledgers import KEYRING
from sqlalchemy import create_engine

from service.bundles.inspecting import Inspector
from service.disposal import erase, hold, purge, release
from service.evidence import EvidenceStore
from service.evidence.looking import open_as_is
from service.ledger import Ledger
from service.secrets import Keyring
from service.verify import CONSISTENT


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
    found = evidence(held.verdict())["findings"]
    (unplaced,) = [one["problem"] for one in found if problem in one["problem"]]
    others = {one["problem"] for one in found} - {unplaced}
    assert others <= {"this erasure is not in the register of what was destroyed"}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM erasures WHERE request_id = 'free-00001'",
        "UPDATE erasures SET event_id = 'x' WHERE request_id = 'free-00001'",
    ],
    ids=["row", "event"],
)
def test_an_erasure_that_is_not_in_the_register_is_found_where_it_stands(
    held: Database, statement: str
) -> None:
    held.change(statement)
    (found,) = [one for one in evidence(held.verdict())["findings"] if one["seq"] is not None]
    assert found["problem"] == "this erasure is not in the register of what was destroyed"
    assert found["seq"] == held.places_of("erasure")[-1][0]


def test_a_purge_that_is_not_in_the_register_is_found_in_any_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bundles.register.PAGE", 3)
    with EvidenceStore.open(database.url) as store:
        purge(store, "purge", now=AGES["expired past grace"] + timedelta(days=1))
    database.sequence()
    assert evidence(database.verdict())["findings"] == []
    first, last = database.places_of("purge")
    for _, event_id in (first, last):
        database.change(f"DELETE FROM erasures WHERE event_id = '{event_id}'")  # noqa: S608
    found = evidence(database.verdict())["findings"]
    problem = "this purge is not in the register of what was destroyed"
    assert found == [{"seq": seq, "problem": problem} for seq, _ in (first, last)]


def test_an_answer_beside_a_record_is_sound_also_once_it_is_purged_apart(
    database: Database,
) -> None:
    event = decision("answered-twice")
    with EvidenceStore.open(database.url) as store:
        store.append(event)
        add_beside(store, event, received_at=event.received_at - timedelta(days=10))
        database.sequence()
        assert evidence(database.verdict())["findings"] == []
        assert purge(store, "purge", now=AGES["expired past grace"] - timedelta(days=5)).total == 1
    database.sequence()
    assert evidence(database.verdict())["findings"] == []


NO_OP = {
    "sqlite": """DROP TRIGGER events_change_rail;
    CREATE TRIGGER events_change_rail BEFORE UPDATE ON holds BEGIN SELECT 1; END""",
    "postgresql": """DROP TRIGGER events_change_rail ON events;
    CREATE TRIGGER events_change_rail BEFORE UPDATE ON holds
    FOR EACH ROW EXECUTE FUNCTION explaind_refuse()""",
}
ADDED = {
    "sqlite": "CREATE TRIGGER zz AFTER INSERT ON events BEGIN SELECT 1; END",
    "postgresql": "CREATE TRIGGER zz AFTER INSERT ON events"
    " FOR EACH ROW EXECUTE FUNCTION explaind_subjects()",
}


def altered(database: Database, statement: str) -> list[str]:
    engine = create_engine(database.url)
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        getattr(cursor, "executescript", cursor.execute)(statement)
        connection.commit()
    engine.dispose()
    return [one["problem"] for one in database.verdict()["findings"]]


def test_a_trigger_that_is_another_or_was_added_is_named(database: Database) -> None:
    kind = database.url.partition(":")[0].partition("+")[0]
    changed = ["the trigger events_change_rail is not as it was made"]
    assert altered(database, NO_OP[kind]) == changed
    added = ["the trigger zz on events is not one of ours"]
    assert altered(database, ADDED[kind]) == changed + added


def test_a_trigger_switched_off_or_a_function_made_empty_is_named(database: Database) -> None:
    if database.url.startswith("sqlite"):
        pytest.skip("SQLite has neither")
    off = "ALTER TABLE events DISABLE TRIGGER events_delete_rail"
    found = ["the trigger events_delete_rail is not as it was made"]
    assert altered(database, off) == found
    empty = """CREATE OR REPLACE FUNCTION explaind_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RETURN NEW; END $$"""
    found.append("the function explaind_refuse is not as it was made")
    assert altered(database, empty) == found


def test_what_checkpoints_were_compared_is_said(database: Database) -> None:
    found = evidence(database.verdict())
    assert found["checkpoint_file"] == "compared"
    assert found["stored_checkpoints"] == "1 of 1 compared"
    (database.directory / "checkpoint.evidence").unlink()
    verdict = database.verdict()
    assert verdict["verdict"] == CONSISTENT
    assert evidence(verdict)["checkpoint_file"] == "no checkpoint file compared"


def test_a_checkpoint_of_another_key_is_a_finding_unless_that_is_known(database: Database) -> None:
    with open_as_is(database.url) as store:
        known, former = Ledger(store, KEYRING), Ledger(store, Keyring(bytes(32)))
        signed = known.checkpoint()
        assert signed is not None
        note = former.signer.sign("evidence", signed.size, signed.root).note
        (database.directory / "checkpoint.evidence").write_text(note)
        for vkeys, is_sound in (((), False), ((former.vkey("access"),), True)):
            inspector = Inspector(store, known, database.directory, former=vkeys)
            found = evidence(inspector.inspect())
            assert (found["findings"] == []) is is_sound, found
            assert (found["checkpoint_file"] == "compared") is is_sound
        forked = former.signer.sign("evidence", signed.size, bytes(32)).note
        (database.directory / "checkpoint.evidence").write_text(forked)
        found = evidence(inspector.inspect())
    assert "forked: the file" in found["findings"][0]["problem"]
