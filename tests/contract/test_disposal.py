"""Holding, erasing and purging: what each may do to a record, and what is left of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import orjson
import pytest
from decisions import CONFLICT, START, STORED, decision, final, pending
from sqlalchemy import select, text

from service.disposal import (
    PURGE_GRACE,
    Destruction,
    Order,
    erase,
    hold,
    of_model,
    of_requests,
    of_subject,
    purge,
    release,
    standing_holds,
    survey,
    survey_purge,
)
from service.errors import UsageError
from service.evidence import (
    DecisionEvent,
    DecisionFilter,
    ErasedError,
    EvidenceStore,
    InQuarantineError,
    StoreUnavailableError,
)
from service.evidence.events import OutcomeEvent, seal
from service.evidence.exclusive import exclusively, forget_pages
from service.evidence.tables import erasures, events

EXPIRY = START + timedelta(days=183)
AGES = {
    "not expired": EXPIRY - timedelta(days=1),
    "expired within grace": EXPIRY + PURGE_GRACE - timedelta(minutes=1),
    "expired past grace": EXPIRY + PURGE_GRACE + timedelta(minutes=1),
}
ORDER = Order("cli:test", "case-7", datetime.now(UTC))
ERASURE = Destruction("erasure", Order("cli:test", "request", datetime.now(UTC)))
SUBJECT = "ab" * 32


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as opened:
        yield opened


def about(subject: str, request_id: str, **changes: object) -> DecisionEvent:
    return replace(decision(request_id), subjects=orjson.dumps([subject]).decode(), **changes)  # type: ignore[arg-type]


def is_gone(store: EvidenceStore, request_id: str) -> bool:
    try:
        assert store.record("default", request_id) is not None
    except ErasedError:
        return True
    return False


def types_of(store: EvidenceStore, request_id: str) -> list[str]:
    query = select(events.c.event_type).where(events.c.request_id == request_id)
    with store.reading() as connection:
        return list(connection.scalars(query.order_by(events.c.event_id)))


def contents(store: EvidenceStore, request_id: str) -> set[tuple[str, bool]]:
    """Types of the events about a request, and whether anything is left in each."""
    query = select(events).where(events.c.request_id == request_id)
    with store.reading() as connection:
        return {
            (row.event_type, row.payload is not None or row.record_key is not None)
            for row in connection.execute(query)
        }


@pytest.mark.parametrize("age", list(AGES))
@pytest.mark.parametrize("standing", ["no hold", "held", "released"])
@pytest.mark.parametrize("deed", ["erase", "purge"])
def test_a_hold_beats_erasure_and_expiry_and_only_what_is_past_its_grace_is_purged(
    store: EvidenceStore, age: str, standing: str, deed: str
) -> None:
    store.append(decision("of-the-matrix"))
    keys = of_requests(store, "default", ["of-the-matrix"])
    if standing != "no hold":
        assert hold(store, keys, ORDER).changed == 1
    if standing == "released":
        assert release(store, keys, ORDER).changed == 1
    if deed == "erase":
        found = erase(store, keys, ERASURE)
        assert (found.erased, len(found.held)) == ((0, 1) if standing == "held" else (1, 0))
    else:
        purged = purge(store, "purge", now=AGES[age])
        is_due = age == "expired past grace"
        assert purged.total == int(is_due and standing != "held")
        assert purged.held == int(is_due and standing == "held")
    expected = standing != "held" and (deed == "erase" or age == "expired past grace")
    assert is_gone(store, "of-the-matrix") is expected
    assert types_of(store, "of-the-matrix").count({"erase": "erasure"}.get(deed, deed)) == expected


def test_hold_and_release_alternate_and_the_last_of_several_holds_counts(
    store: EvidenceStore,
) -> None:
    store.append(decision("held-often"))
    keys = of_requests(store, "default", ["held-often"])
    other = replace(ORDER, reason="case-8")
    for _ in range(2):
        assert hold(store, keys, ORDER).changed == 1
        assert hold(store, keys, ORDER).unchanged == 1
        assert hold(store, keys, other).changed == 1
        assert release(store, keys, ORDER, placed_for="case-7").changed == 1
        assert [each.reason for each in standing_holds(store)] == ["case-8"]
        assert len(survey(store, keys).held) == 1
        assert release(store, keys, ORDER).changed == 1
        assert release(store, keys, ORDER).unchanged == 1
    assert standing_holds(store, "default") == []
    assert types_of(store, "held-often") == [
        "decision",
        *["hold", "hold", "release", "release"] * 2,
    ]
    assert erase(store, keys, ERASURE).erased == 1
    assert hold(store, keys, ORDER).gone == 1


def test_erasing_twice_is_erasing_once(store: EvidenceStore) -> None:
    store.append(decision("erased-twice"))
    keys = of_requests(store, "default", ["erased-twice", "never-known"])
    assert keys == [("default", "erased-twice")]
    assert survey(store, keys).erased == 1
    assert erase(store, keys, ERASURE).erased == 1
    assert (erase(store, keys, ERASURE).erased, erase(store, keys, ERASURE).gone) == (0, 1)
    assert types_of(store, "erased-twice") == ["decision", "erasure"]


def test_what_is_left_is_the_header_and_the_event_that_says_who_and_why(
    store: EvidenceStore,
) -> None:
    event = pending("asked-later")
    for each in (event, final(event)):
        store.append(each)
    with store.reading() as connection:
        headers = list(connection.scalars(select(events.c.header)))
    erase(store, of_requests(store, "default", ["asked-later"]), ERASURE)
    with pytest.raises(ErasedError) as found:
        store.record("default", "asked-later")
    assert (found.value.kind, found.value.actor) == ("erasure", "local")
    assert found.value.at == ERASURE.order.at.replace(microsecond=ERASURE.order.at.microsecond)
    assert orjson.loads(found.value.header)["request_id"] == "asked-later"
    assert contents(store, "asked-later") == {
        ("decision", False),
        ("explanation", False),
        ("erasure", True),
    }
    with store.reading() as connection:
        kept = list(connection.scalars(select(events.c.header)))
    assert set(headers) < set(kept)
    (said,) = (orjson.loads(header) for header in kept if header not in headers)
    assert (said["event_type"], said["actor"], said["reason"]) == ("erasure", "cli:test", "request")
    assert len(said["destroys"]) == 2
    assert said["expires_at"] is None


def test_a_subject_is_erased_from_all_his_records_and_from_nobody_elses(
    store: EvidenceStore,
) -> None:
    child = about(SUBJECT, "his-child", parent_request_id="his-record")
    for event in (about(SUBJECT, "his-record"), child, about("cd" * 32, "of-another")):
        store.append(event)
    store.append(replace(about(SUBJECT, "his-elsewhere"), tenant="elsewhere"))
    keys = of_subject(store, "default", SUBJECT)
    assert set(keys) == {("default", "his-record"), ("default", "his-child")}
    assert erase(store, keys, ERASURE).erased == 2
    assert of_subject(store, "default", SUBJECT) == []
    assert not is_gone(store, "of-another")
    assert store.record("elsewhere", "his-elsewhere") is not None


def test_records_that_explain_a_request_again_are_found_with_it(store: EvidenceStore) -> None:
    for request_id, parent in (("first-one", None), ("again", "first-one"), ("thrice", "again")):
        store.append(replace(decision(request_id), parent_request_id=parent))
    found = of_requests(store, "default", ["first-one"])
    assert found == [("default", each) for each in ("first-one", "again", "thrice")]
    assert of_requests(store, "default", ["thrice"]) == [("default", "thrice")]


def test_a_model_is_held_for_a_time_page_by_page(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.targets._PAGE", 3)
    monkeypatch.setattr("service.disposal.targets.BATCH", 2)
    for minute in range(10):
        store.append(decision(f"at-minute-{minute}", minute=minute))
    period = START + timedelta(minutes=2), START + timedelta(minutes=9)
    counts: list[int] = []
    keys = of_model(store, "default", "credit", period)
    held = hold(store, keys, ORDER, progress=counts.append)
    assert (held.changed, counts) == (7, [2, 4, 6, 7])
    assert len(list(of_model(store, "default", "credit", (None, None)))) == 10
    assert list(of_model(store, "default", "other", (None, None))) == []


def test_nothing_is_said_of_an_erased_record_that_would_bring_it_back(
    store: EvidenceStore,
) -> None:
    waiting = pending("still-waiting")
    store.append(waiting)
    store.append(decision("erased-one"))
    keys = of_requests(store, "default", ["still-waiting", "erased-one"])
    erase(store, keys, ERASURE)
    assert store.append(final(waiting)) is CONFLICT
    assert not store.append_final(final(waiting)).stored
    copy = replace(decision("its-copy"), parent_request_id="erased-one")
    assert store.append(copy) is CONFLICT
    assert store.append(decision("erased-one")) is CONFLICT
    assert store.insert([seal(copy), seal(decision("unrelated"))]) == [CONFLICT, STORED]
    assert store.pending(since=START, until=EXPIRY, limit=9) == []
    note = OutcomeEvent.about(decision("erased-one"), "timeout", actor="o", completed_at=EXPIRY)
    assert store.append(note) is STORED


def test_a_final_that_was_refused_leaves_no_bytes(store: EvidenceStore) -> None:
    waiting = pending("never-final")
    store.append(waiting)
    erase(store, of_requests(store, "default", ["never-final"]), ERASURE)
    store.append_final(final(waiting, explanation=b'{"values":[123.456]}'))
    with store.reading() as connection:
        payloads = list(connection.scalars(select(events.c.payload)))
    assert {bytes(payload) for payload in payloads if payload is not None} == {b"{}"}


def test_finals_stored_while_their_records_are_erased_never_outlive_them(
    store: EvidenceStore,
) -> None:
    waiting = [pending(f"in-hand-{i:03}", minute=i) for i in range(120)]
    for event in waiting:
        store.append(event)
    worker = Thread(target=lambda: [store.append_final(final(event)) for event in waiting])
    worker.start()
    keys = of_requests(store, "default", [event.request_id for event in reversed(waiting)])
    assert erase(store, keys, ERASURE).erased == 120
    worker.join()
    content = select(events.c.event_type).where(
        events.c.payload.is_not(None), events.c.payload != b"{}"
    )
    with store.reading() as connection:
        assert list(connection.scalars(content)) == []


def test_quarantine_keeps_a_record_and_keeps_everybody_from_it(store: EvidenceStore) -> None:
    store.append(decision("leaked-one"))
    keys = of_requests(store, "default", ["leaked-one"])
    assert hold(store, keys, ORDER, kind="quarantine").changed == 1
    with pytest.raises(InQuarantineError):
        store.record("default", "leaked-one")
    assert erase(store, keys, ERASURE).held == (("default", "leaked-one"),)
    assert purge(store, "purge", now=AGES["expired past grace"]).held == 1
    assert release(store, keys, ORDER).changed == 0
    assert release(store, keys, ORDER, kind="quarantine").changed == 1
    assert not is_gone(store, "leaked-one")


def test_listings_and_samples_say_what_is_erased(store: EvidenceStore) -> None:
    waiting = pending("listed-3", minute=3)
    for event in (decision("listed-1"), decision("listed-2", minute=1), waiting, final(waiting)):
        store.append(event)
    erase(store, of_requests(store, "default", ["listed-1", "listed-3"]), ERASURE)
    assert {item.request_id: item.status for item in store.list("default").items} == {
        "listed-1": "erased",
        "listed-2": "complete",
        "listed-3": "erased",
    }
    for status, expected in (
        ("erased", ["listed-3", "listed-1"]),
        ("complete", ["listed-2"]),
        ("pending", []),
        ("failed", []),
    ):
        page = store.list("default", matching=DecisionFilter(status=status))  # type: ignore[arg-type]
        assert [item.request_id for item in page.items] == expected
    sample = store.sample(
        "default", "credit", period=(START, EXPIRY), size=9, rank=lambda each: each.encode()
    )
    assert [item.request_id for item in sample] == ["listed-2"]


def test_a_purge_counts_by_tenant_model_and_class_and_passes_over_what_is_held(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 3)
    for i in range(10):
        waiting = pending(f"expired-{i}", tenant=f"t{i % 2}")
        store.append(waiting)
        store.append_final(final(waiting))
    later = AGES["expired past grace"]
    hold(store, of_requests(store, "t0", ["expired-0"]), ORDER)
    expected = {("t0", "credit", "default"): 4, ("t1", "credit", "default"): 5}
    assert survey_purge(store, now=later).purged == expected
    found = purge(store, "purge", now=later)
    assert (found.purged, found.held, found.total) == (expected, 1, 9)
    assert purge(store, "purge", now=later).total == 0
    left = select(events.c.request_id).where(
        events.c.payload.is_not(None), events.c.expires_us.is_not(None)
    )
    with store.reading() as connection:
        assert set(connection.scalars(left)) == {"expired-0"}
        assert len(list(connection.execute(select(erasures)))) == 9
    assert survey_purge(store, now=later).document() == {"purged": 0, "held": 1, "by_kind": []}


def test_two_purges_at_once_destroy_each_record_once(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 2)
    for i in range(20):
        store.append(decision(f"expired-{i:02}"))
    totals: list[int] = []

    def run() -> None:
        totals.append(purge(store, "purge", now=AGES["expired past grace"]).total)

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals) == 20


def test_what_is_noted_after_an_erasure_is_purged_in_its_time(store: EvidenceStore) -> None:
    event = decision("noted-later")
    store.append(event)
    erase(store, of_requests(store, "default", ["noted-later"]), ERASURE)
    note = OutcomeEvent.about(event, "timeout", actor="outbox", completed_at=EXPIRY)
    store.append(note)
    assert purge(store, "purge", now=AGES["expired past grace"]).total == 0
    assert ("outcome", False) in contents(store, "noted-later")


def test_keys_go_before_their_payloads_and_an_interrupted_erasure_is_completed(
    store: EvidenceStore,
) -> None:
    store.append(decision("interrupted"))
    with exclusively(store) as connection:
        connection.execute(text("DROP TRIGGER events_change_rail" + _of(store)))
        connection.execute(text("UPDATE events SET encoding = 'aesgcm'"))
    keys, broken, whole = of_requests(store, "default", ["interrupted"]), KeyStub(), KeyStub()
    broken.fails = True
    with pytest.raises(StoreUnavailableError):
        erase(store, keys, replace(ERASURE, keys=broken))
    assert contents(store, "interrupted") == {("decision", True)}
    assert survey(store, keys).erased == 1
    assert erase(store, keys, replace(ERASURE, keys=whole)).erased == 1
    assert broken.destroyed == whole.destroyed != []
    assert contents(store, "interrupted") == {("decision", False), ("erasure", True)}


class KeyStub:
    """Remembers what it was told to destroy; fails after that, as if the disk were full."""

    def __init__(self) -> None:
        self.destroyed: list[bytes] = []
        self.fails = False

    def destroy(self, refs: Sequence[bytes]) -> None:
        self.destroyed += refs
        if self.fails:
            raise OSError


def _of(store: EvidenceStore) -> str:
    with store.reading() as connection:
        return "" if connection.dialect.name == "sqlite" else " ON events"


@pytest.mark.parametrize("reason", ["", "Max Mustermann", "a" * 65, "x@y.example", "ü"])
def test_a_reason_is_a_code_and_no_prose(reason: str) -> None:
    with pytest.raises(UsageError):
        Order("cli:test", reason, datetime.now(UTC))


def test_erased_bytes_and_their_keys_are_in_no_page_of_the_database(tmp_path: Path) -> None:
    secret = b"jane.doe@example.org 4111111111111111 "
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        for i in range(30):
            padding = secret * (1 if i % 3 else 400)
            store.append(decision(f"with-secret-{i}", answer=b'{"x":"%s"}' % padding))
        with store.reading() as connection:
            planted = [secret, *connection.scalars(select(events.c.record_key))]
        assert all(found_in(tmp_path, each) for each in planted)
        erase(
            store, of_requests(store, "default", [f"with-secret-{i}" for i in range(30)]), ERASURE
        )
        assert forget_pages(store)
        assert not any(found_in(tmp_path, each) for each in planted)


def found_in(directory: Path, planted: bytes) -> bool:
    return any(planted in file.read_bytes() for file in directory.glob("evidence.db*"))
