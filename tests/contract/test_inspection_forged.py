"""What is put into the database where nobody looks, or in forms nobody expects, is found."""

from pathlib import Path

import orjson
import pytest
from decisions import change, decision
from disposals import ERASURE, ORDER
from filled_database import PLACE, SIZE, Database, evidence, filled
from ledgers import KEYRING, sequencer

from service.bundles.inspecting import Inspector
from service.disposal import erase, hold
from service.evidence import EvidenceStore
from service.evidence.looking import open_as_is
from service.evidence.tables import events
from service.ledger import Ledger
from service.uuid7 import uuid7


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Database:
    return filled(f"sqlite:///{tmp_path}/evidence.db", tmp_path)


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
    assert [one["seq"] for one in found] == [PLACE, PLACE + 2], found


def test_a_bad_cell_of_the_log_s_own_tables_is_a_finding(on_sqlite: Database) -> None:
    on_sqlite.change("UPDATE tree_nodes SET hash = 'x'")
    assert evidence(on_sqlite.verdict())["verdict"] == "failed"
    on_sqlite.change("INSERT INTO checkpoints VALUES ('evidence', 3, 1, x'ff')")
    found = [one["problem"] for one in evidence(on_sqlite.verdict())["findings"]]
    assert "the stored checkpoint of size 3: it is no text" in found
