"""The purge of what has expired."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from threading import Thread
from typing import Any

import orjson
import pytest
from decisions import decision, final, pending
from disposals import AGES, ERASURE, EXPIRY, ORDER, add_beside, contents
from sqlalchemy import select, text
from structlog.testing import capture_logs

from service.accesses import AccessFilter, listed
from service.disposal import (
    erase,
    hold,
    of_requests,
    purge,
    survey_purge,
)
from service.evidence import (
    EvidenceStore,
)
from service.evidence.events import OutcomeEvent, ShadowEvent, seal
from service.evidence.tables import INSERTED_COLUMNS, erasures, events
from service.uuid7 import uuid7


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as opened:
        yield opened


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


@pytest.mark.parametrize("erased_before", [False, True])
def test_two_answers_to_one_request_leave_nothing(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch, *, erased_before: bool
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 1)
    event = decision("answered-twice")
    store.append(event)
    if erased_before:
        erase(store, of_requests(store, "default", ["answered-twice"]), ERASURE)
        with store.changing() as connection:
            rows = list(connection.execute(erasures.select()))
            connection.execute(text("DROP TRIGGER erasures_delete_rail" + _of(store)))
            connection.execute(erasures.delete())
            add = erasures.insert()
        add_beside(store, event)
        with store.changing() as connection:
            connection.execute(add, [dict(row._mapping) for row in rows])
    else:
        add_beside(store, event)
    store.append(decision("after-it", minute=1))
    found = purge(store, "purge", now=AGES["expired past grace"] + timedelta(hours=1))
    assert found.total == 2
    content = select(events.c.request_id).where(
        events.c.payload.is_not(None), events.c.event_type == "decision"
    )
    with store.reading() as connection:
        assert list(connection.scalars(content)) == []


@pytest.mark.parametrize("n_at_once", [1, 100])
def test_an_answer_that_stood_beside_a_record_and_expired_before_it_has_an_event_of_its_own(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch, n_at_once: int
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", n_at_once)
    event, n_days = decision("answered-twice"), timedelta(days=10)
    store.append(event)
    earlier = replace(event, event_id=uuid7(), received_at=event.received_at - n_days)
    add_beside(store, earlier, event_id=earlier.event_id, received_at=earlier.received_at)
    between, later = (AGES["expired past grace"] - n_days / 2, AGES["expired past grace"])
    expected = {("default", "credit", "default"): 1}
    assert survey_purge(store, now=between).purged == expected
    assert purge(store, "purge", now=between).purged == expected
    (account,) = listed(store, AccessFilter(principal="purge"))
    assert [each["purged"] for each in account["kinds"]] == [1]
    assert store.record("default", "answered-twice") is not None
    (told,) = purges_of(store)
    assert (told["destroys"], told["apart"]) == ([earlier.event_id], True)
    assert (told["request_id"], told["retention_class"]) == ("answered-twice", "default")
    assert purge(store, "purge", now=between).total == 0
    assert survey_purge(store, now=later).purged == expected
    assert purge(store, "purge", now=later).purged == expected
    assert purges_of(store)[1]["destroys"] == [event.event_id]


@pytest.mark.parametrize("n_at_once", [1, 100])
def test_an_answer_beside_a_record_goes_with_it_where_both_have_expired(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch, n_at_once: int
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", n_at_once)
    event = decision("answered-twice")
    store.append(event)
    for n_days in (-3, 3):
        add_beside(store, event, received_at=event.received_at + timedelta(days=n_days))
    now = AGES["expired past grace"] + timedelta(days=4)
    expected = {("default", "credit", "default"): 1}
    assert survey_purge(store, now=now).purged == expected
    assert purge(store, "purge", now=now).purged == expected
    (told,) = purges_of(store)
    assert len(told["destroys"]) == 3
    assert "apart" not in told


def test_the_purge_of_what_has_no_decision_is_an_event_too(store: EvidenceStore) -> None:
    shadow = ShadowEvent.of(decision("kept-nowhere"))
    store.append(shadow)
    purge(store, "purge", now=AGES["expired past grace"])
    assert contents(store, "kept-nowhere") == {("shadow", False), ("purge", True)}
    (told,) = purges_of(store)
    assert (told["destroys"], told["apart"]) == ([shadow.event_id], True)


def purges_of(store: EvidenceStore) -> list[dict[str, Any]]:
    query = select(events.c.header).where(events.c.event_type == "purge")
    with store.reading() as connection:
        found = connection.scalars(query.order_by(events.c.event_id))
        return [orjson.loads(header) for header in found]


def _of(store: EvidenceStore) -> str:
    return "" if store.is_sqlite else " ON erasures"


def test_a_record_that_cannot_be_purged_keeps_nothing_else(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 3)
    for i in range(8):
        store.append(decision(f"expired-{i}", minute=i))
    stray = seal(decision("stray"))
    place = INSERTED_COLUMNS.index("idempotency_key")
    store.insert([(*stray[:place], "purge/default/expired-1", *stray[place + 1 :])])
    with capture_logs() as told:
        found = purge(store, "purge", now=AGES["expired past grace"] + timedelta(hours=1))
    assert found.total == 7
    assert ("decision", True) in contents(store, "expired-1")
    assert [each["event"] for each in told] == ["purge_passed_over"]


def test_what_was_purged_is_accounted_for_when_a_later_batch_fails(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 2)
    for i in range(4):
        store.append(decision(f"expired-{i}"))
    batches = iter([True])
    with pytest.raises(StopIteration):
        purge(
            store,
            "purge",
            now=AGES["expired past grace"],
            goes_on=lambda _: next(batches),
        )
    (entry,) = listed(store, AccessFilter())
    assert entry["kinds"] == [{"model": "credit", "retention_class": "default", "purged": 2}]
