"""What the evidence log promises of explanations that come later, over SQLite and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from decisions import START, STORED, decision, final, pending, template
from sqlalchemy import create_engine, text

from service.evidence import (
    DecisionFilter,
    EvidenceLog,
    EvidenceStore,
    FinalEvent,
    FinalOutcome,
    Status,
    StoreUnavailableError,
)
from service.evidence.events import Answered, commitment, seal

NEW = FinalOutcome(stored=True, counted=True)
OLD = FinalOutcome(stored=False, counted=False)
LATE = FinalOutcome(stored=True, counted=False)
YEAR = timedelta(days=365)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[EvidenceLog]:
    log = await EvidenceLog.open(url)
    try:
        yield log
    finally:
        await log.close()


async def names(log: EvidenceLog, *, limit: int = 100) -> list[str]:
    found = await log.pending(since=START - YEAR, until=START + YEAR, limit=limit)
    return [request.request_id for request in found]


def stored_types(url: str) -> list[tuple[str, str, str | None]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        query = "SELECT request_id, event_type, status FROM events ORDER BY request_id, event_type"
        rows = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return rows  # type: ignore[return-value]


async def test_a_final_comes_back_beside_its_decision(url: str) -> None:
    event = pending("request-1")
    later = final(event, explanation=b'{"values":[0.30000000000000004]}')
    async with opened(url) as log:
        await log.append(event)
        before = await log.record("default", "request-1")
        assert await log.append_final(later) == NEW
        after = await log.record("default", "request-1")
    assert before is not None
    assert after is not None
    assert (before.final, before.status, before.is_pending) == (None, "pending", True)
    assert (after.status, after.is_pending, after.answered) == ("complete", False, None)
    assert after.decision == before.decision
    assert after.part("explanation") == b'{"values":[0.30000000000000004]}'
    assert after.part("instances") == event.payload[slice(*event.parts["instances"])]
    assert after.final is not None
    header = orjson.loads(after.final.header)
    assert header["payload"]["commitment"] == commitment(after.final.record_key, later.payload)
    assert (header["event_type"], header["request_id"]) == ("explanation", "request-1")
    assert header["received_at"] == orjson.loads(after.decision.header)["received_at"]


async def test_only_the_first_final_is_stored_and_counted(url: str) -> None:
    event = pending("request-1")
    async with opened(url) as log:
        await log.append(event)
        assert await log.append_final(final(event, explanation=b"1")) == NEW
        assert await log.append_final(final(event, explanation=b"2")) == OLD
        found = await log.record("default", "request-1")
    assert found is not None
    assert found.part("explanation") == b"1"
    assert stored_types(url) == [
        ("request-1", "decision", "pending"),
        ("request-1", "explanation", "complete"),
        ("request-1", "outcome", "stored"),
    ]


async def test_the_same_final_again_is_stored_but_not_twice(url: str) -> None:
    event = pending("request-1")
    later = final(event)
    async with opened(url) as log:
        await log.append(event)
        assert await log.append_final(later) == NEW
        assert await log.append_final(later) == NEW
    assert len(stored_types(url)) == 3


async def test_racing_finals_give_each_request_one_with_its_own_outcome(url: str) -> None:
    events = [pending(f"request-{n}") for n in range(100)]
    done = [final(event) for event in events]
    given_up = [final(event, status="failed", outcome="dead") for event in reversed(events)]
    async with opened(url) as one, opened(url) as other:
        await asyncio.gather(*(one.append(event) for event in events))
        won, lost = await asyncio.gather(
            asyncio.gather(*(one.append_final(event) for event in done)),
            asyncio.gather(*(other.append_final(event) for event in given_up)),
        )
        records = await one.records([("default", event.request_id) for event in events])
    assert all({a, b} == {NEW, OLD} for a, b in zip(won, reversed(lost), strict=True))
    for record, outcome in zip(records, won, strict=True):
        assert record.status == ("complete" if outcome == NEW else "failed")
    kinds = stored_types(url)
    ending = {name: status for name, kind, status in kinds if kind == "outcome"}
    assert len(kinds) == 300
    assert all(
        ending[record.decision.request_id] == {"complete": "stored", "failed": "dead"}[status]
        for record in records
        if (status := record.status)
    )


async def test_what_was_counted_as_late_is_stored_but_not_recounted(url: str) -> None:
    event = pending("request-1")
    async with opened(url) as log:
        await log.append(event)
        (late,) = await log.pending(since=START, until=START + YEAR, limit=9)
        assert not late.timed_out
        assert await log.mark_timeout(late, actor="outbox")
        assert not await log.mark_timeout(late, actor="outbox")
        (late,) = await log.pending(since=START, until=START + YEAR, limit=9)
        assert late.timed_out
        assert await log.append_final(final(event)) == LATE
        assert await names(log) == []
        assert not await log.mark_timeout(late, actor="outbox")
    assert ("request-1", "outcome", "timeout") in stored_types(url)


def test_the_store_without_a_loop_takes_finals_alike(url: str) -> None:
    event = pending("request-1")
    with EvidenceStore.open(url) as store:
        store.append(event)
        assert store.append_final(final(event)) == NEW
        assert store.append_final(final(event)) == OLD
        with pytest.raises(StoreUnavailableError):
            store.append_final(replace(final(pending("request-2")), subjects="\udcff"))
        found = store.record("default", "request-1")
    assert found is not None
    assert found.status == "complete"
    assert len(stored_types(url)) == 3


def test_no_outcome_is_counted_without_its_final(url: str) -> None:
    refused = seal(replace(final(pending("request-1")), subjects="\udcff"))
    outcome = seal(final(pending("request-1")).counted())
    others = [seal(decision()) for _ in range(4)]
    with EvidenceStore.open(url) as store:
        outcomes = store.insert([*others[:3], refused, outcome, others[3]])
    assert [result is STORED for result in outcomes] == [True, True, True, False, False, True]
    assert len(stored_types(url)) == 4


@pytest.mark.parametrize(("first", "second"), [("final", "pending"), ("pending", "final")])
async def test_what_the_first_answer_carried_is_decided_once(
    url: str, first: Answered, second: Answered
) -> None:
    event = pending("request-1")
    async with opened(url) as log:
        await log.append(event)
        await log.append_final(final(event))
        assert await log.mark_answered(event, first)
        found = await log.record("default", "request-1")
        assert found is not None
        assert not await log.mark_answered(found.decision, second)
    assert found.answered == first


async def test_several_records_come_in_the_order_asked_for(url: str) -> None:
    north, south = decision("request-1", tenant="north"), pending("request-1", tenant="south")
    async with opened(url) as log:
        await asyncio.gather(log.append(north), log.append(south))
        await log.append_final(final(south))
        found = await log.records(
            [("south", "request-1"), ("west", "request-1"), ("north", "request-1")]
        )
        assert await log.records([]) == []
        assert await log.record("north", "request-2") is None
    assert [(r.decision.tenant, r.status) for r in found] == [
        ("south", "complete"),
        ("north", "complete"),
    ]
    assert (found[0].final is None, found[1].final is None) == (False, True)


async def test_pending_gives_what_is_still_to_come_oldest_first(url: str) -> None:
    asked = b'{"top":5,"method":"exact","priority":"low","answer_by":"2026-03-01T12:05:00Z"}'
    events = [
        pending("minute-2", minute=2, tenant="south"),
        pending("minute-1", minute=1, ask=asked),
        pending("ended-01", minute=1),
        pending("minute-3", minute=3, model=template("house")),
        decision("complete", minute=1),
        decision("skipped1", minute=1, status=("skipped", None)),
    ]
    async with opened(url) as log:
        await asyncio.gather(*(log.append(event) for event in events))
        await log.append_final(final(events[2]))
        assert await names(log) == ["minute-1", "minute-2", "minute-3"]
        assert await names(log, limit=2) == ["minute-1", "minute-2"]
        first, second = await log.pending(
            since=events[1].received_at, until=events[3].received_at, limit=9
        )
    assert (first.method, first.priority) == ("exact", "low")
    assert (second.method, second.priority) == (None, "high")
    assert (second.tenant, second.model, second.version) == ("south", "credit", 3)
    assert second.model_digest == "sha256:" + "0" * 64
    assert second.received_at == events[0].received_at
    assert second.template == events[0].template


async def test_pending_does_not_take_the_final_of_another_tenant(url: str) -> None:
    north, south = pending("request-1", tenant="north"), pending("request-1", tenant="south")
    async with opened(url) as log:
        await asyncio.gather(log.append(north), log.append(south))
        await log.append_final(final(north))
        (left,) = await log.pending(since=START, until=START + YEAR, limit=9)
    assert left.tenant == "south"


async def listed(log: EvidenceLog, status: Status | None) -> dict[str, Status | None]:
    items, cursor = [], None
    while True:
        page = await log.list(
            "default", matching=DecisionFilter(status=status), limit=2, cursor=cursor
        )
        items += [(item.request_id, item.status) for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            assert len(items) == len(dict(items))
            return dict(items)


async def test_listings_show_and_filter_by_the_current_status(url: str) -> None:
    waiting = [pending(f"waiting-{n}", minute=n) for n in range(5)]
    ended = [pending(f"ended-{n:03}", minute=n % 3) for n in range(7)]
    failed = [pending(f"failed-{n:02}", minute=n % 3) for n in range(3)]
    async with opened(url) as log:
        await asyncio.gather(*(log.append(e) for e in (*waiting, *ended, *failed)))
        await log.append(decision("inline-1", minute=1))
        await log.append(decision("failed-inline", minute=1, status=("failed", "inline")))
        await log.append(decision("unasked1", minute=1, status=(None, None)))
        await asyncio.gather(*(log.append_final(final(e)) for e in ended))
        gone = [final(e, status="failed", outcome="rejected") for e in failed]
        await asyncio.gather(*(log.append_final(e) for e in gone))
        by_status = {status: set(await listed(log, status)) for status in STATUSES}
        everything = await listed(log, None)
    assert by_status["pending"] == {e.request_id for e in waiting}
    assert by_status["complete"] == {e.request_id for e in ended} | {"inline-1"}
    assert by_status["failed"] == {e.request_id for e in failed} | {"failed-inline"}
    assert by_status["skipped"] == set()
    assert len(everything) == 18
    assert everything["unasked1"] is None
    for status in STATUSES:
        assert {n for n, shown in everything.items() if shown == status} == by_status[status]


STATUSES: tuple[Status, ...] = ("complete", "pending", "failed", "skipped")


async def test_a_filtered_listing_keeps_its_order_and_other_filters(url: str) -> None:
    events = [pending(minute=n % 4, model=template("ab"[n % 2])) for n in range(12)]
    matching = DecisionFilter(
        model="b", status="complete", since=START + timedelta(minutes=2), until=START + YEAR
    )
    async with opened(url) as log:
        await asyncio.gather(*(log.append(event) for event in events))
        await asyncio.gather(*(log.append_final(final(event)) for event in reversed(events)))
        first = await log.list("default", matching=matching, limit=2)
        second = await log.list("default", matching=matching, limit=2, cursor=first.next_cursor)
    wanted = [e for n, e in enumerate(events) if n % 4 == 3]
    newest_first = sorted(wanted, key=lambda e: (e.received_at, e.event_id), reverse=True)
    shown = [item.request_id for item in (*first.items, *second.items)]
    assert shown == [event.request_id for event in newest_first]
    assert second.next_cursor is None


async def test_explanations_of_a_request_made_again_are_found_by_it(url: str) -> None:
    def child(name: str, parent: str, tenant: str = "default") -> FinalEvent:
        event = replace(pending(name, tenant=tenant), parent_request_id=parent)
        children.append(event)
        return final(event)

    children = [decision("request-1")]
    done = child("child-001", "request-1")
    child("child-002", "request-1")
    child("child-003", "request-2")
    child("child-004", "request-1", "other")
    async with opened(url) as log:
        await asyncio.gather(*(log.append(event) for event in children))
        await log.append_final(done)
        page = await log.list("default", matching=DecisionFilter(parent="request-1"))
        assert (await log.list("default", matching=DecisionFilter(parent="request-3"))).items == ()
    assert [(item.request_id, item.status) for item in page.items] == [
        ("child-002", "pending"),
        ("child-001", "complete"),
    ]


def test_a_database_made_before_gets_the_new_indexes(url: str) -> None:
    EvidenceStore.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        for name in ("events_pending", "events_by_parent"):
            connection.execute(text(f"DROP INDEX {name}"))
    with EvidenceStore.open(url) as store:
        assert store.append(pending("request-1")) is STORED
    with engine.begin() as connection:
        for name in ("events_pending", "events_by_parent"):
            connection.execute(text(f"DROP INDEX {name}"))
    engine.dispose()
