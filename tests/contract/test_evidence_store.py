"""What the evidence log promises, over SQLite and PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Timer

import orjson
import pytest
from decisions import (
    CONFLICT,
    START,
    STORED,
    TEMPLATE,
    change,
    decision,
    drop_rails,
    template,
)
from sqlalchemy import create_engine, text

from service.evidence import (
    BadCursorError,
    DecisionEvent,
    DecisionFilter,
    EvidenceLog,
    EvidenceStore,
    Page,
    SchemaVersionError,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
    laid_out,
)
from service.evidence.events import commitment, seal


def count(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM events")).scalar_one()
    engine.dispose()
    return int(rows)


class Counter:
    def __init__(self) -> None:
        self.commits: list[int] = []
        self.failed = 0

    def on_commit(self, rows: int, seconds: float) -> None:
        assert seconds > 0
        self.commits.append(rows)

    def on_failure(self, rows: int) -> None:
        self.failed += rows


async def test_bytes_come_back_identical_after_reopening(url: str) -> None:
    answer = '{"name":"Zoë \\u0000 \U0001f600","x":0.30000000000000004,"n":[]}'.encode()
    event = decision(answer=answer)
    log = await EvidenceLog.open(url)
    assert await log.append(event) is STORED
    await log.close()

    again = await EvidenceLog.open(url)
    found = await again.get("default", event.request_id)
    await again.close()

    assert found is not None
    assert found.payload == event.payload
    assert found.part("answer") == answer
    assert found.part("instances") == b'[{"age":33}]'
    header = orjson.loads(found.header)
    assert header["payload"]["commitment"] == commitment(found.record_key, event.payload)
    assert header["event_id"] == found.event_id == event.event_id
    assert found.received_at == event.received_at
    assert (found.model, found.version, found.status, found.lane) == (
        "credit",
        3,
        "complete",
        "inline",
    )


async def test_optional_columns_come_back_as_they_went_in(url: str) -> None:
    payload, parts = laid_out([b'{"answer":', b"1", b"}"], ["answer"])
    event = DecisionEvent(
        template=TEMPLATE,
        request_id="request-1",
        received_at=START,
        completed_at=START,
        status=None,
        lane=None,
        payload=payload,
        parts=parts,
        tenant="north",
        actor="teller",
        parent_request_id="request-0",
        subjects='["k1",null]',
    )
    log = await EvidenceLog.open(url)
    await log.append(event)
    found = await log.get("north", "request-1")
    await log.close()
    assert found is not None
    assert (found.status, found.lane) == (None, None)
    assert (found.actor, found.parent_request_id) == ("teller", "request-0")
    assert found.subjects == '["k1",null]'


async def test_unknown_requests_and_other_tenants_find_nothing(url: str) -> None:
    log = await EvidenceLog.open(url)
    await log.append(decision("request-1"))
    assert await log.get("default", "request-2") is None
    assert await log.get("other", "request-1") is None
    assert (await log.list("other")).items == ()
    await log.close()


async def test_the_second_of_two_twins_is_in_conflict_across_batches(url: str) -> None:
    first, second = decision("twin-0001"), decision("twin-0001")
    log = await EvidenceLog.open(url)
    assert await log.append(first) is STORED
    assert await log.append(second) is CONFLICT
    found = await log.get("default", "twin-0001")
    await log.close()
    assert found is not None
    assert found.event_id == first.event_id
    assert count(url) == 1


def test_the_first_of_two_twins_in_one_batch_wins(url: str) -> None:
    twins = [decision("twin-0001"), decision("other-001"), decision("twin-0001")]
    with EvidenceStore.open(url) as store:
        assert store.insert([seal(event) for event in twins]) == [STORED, STORED, CONFLICT]
        found = store.get("default", "twin-0001")
    assert found is not None
    assert found.event_id == twins[0].event_id


def test_the_same_request_id_of_two_tenants_is_two_decisions(url: str) -> None:
    with EvidenceStore.open(url) as store:
        assert store.append(decision("request-1", tenant="north")) is STORED
        assert store.append(decision("request-1", tenant="south")) is STORED


def test_the_same_event_again_is_stored_but_not_twice(url: str) -> None:
    event = decision()
    with EvidenceStore.open(url) as store:
        assert store.append(event) is STORED
        assert store.append(event) is STORED
    assert count(url) == 1


async def test_two_logs_racing_for_the_same_requests_store_each_once(url: str) -> None:
    names = [f"request-{n}" for n in range(300)]
    logs = await asyncio.gather(EvidenceLog.open(url), EvidenceLog.open(url))
    one, other = await asyncio.gather(
        asyncio.gather(*(logs[0].append(decision(name)) for name in names)),
        asyncio.gather(*(logs[1].append(decision(name)) for name in reversed(names))),
    )
    await asyncio.gather(*(log.close() for log in logs))
    assert all({a, b} == {STORED, CONFLICT} for a, b in zip(one, reversed(other), strict=True))
    assert count(url) == len(names)


async def test_two_thousand_concurrent_appends_need_few_commits(url: str) -> None:
    counter = Counter()
    log = await EvidenceLog.open(url, observer=counter)
    outcomes = await asyncio.gather(*(log.append(decision()) for _ in range(2000)))
    await log.close()
    assert outcomes == [STORED] * 2000
    assert count(url) == sum(counter.commits) == 2000
    assert len(counter.commits) <= 40
    assert max(counter.commits) <= 512


async def test_closing_stores_what_was_appended_before(url: str) -> None:
    log = await EvidenceLog.open(url)
    appends = [asyncio.ensure_future(log.append(decision())) for _ in range(100)]
    await asyncio.sleep(0)
    await log.close()
    assert await asyncio.gather(*appends) == [STORED] * 100


async def test_a_closed_log_refuses(url: str) -> None:
    log = await EvidenceLog.open(url)
    await log.close()
    await log.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await log.append(decision())
    with pytest.raises(StoreUnavailableError, match="closed"):
        await log.get("default", "request-1")
    assert not await log.is_writable()


async def test_a_full_queue_refuses_at_once(url: str) -> None:
    log = await EvidenceLog.open(url, queue_limit=5)
    results = await asyncio.gather(
        *(log.append(decision()) for _ in range(600)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, StoreBusyError)]
    assert refused
    assert await log.append(decision()) is STORED
    await log.close()
    assert count(url) == results.count(STORED) + 1 == 601 - len(refused)


async def test_an_event_that_cannot_be_sealed_fails_alone_and_at_once(url: str) -> None:
    log = await EvidenceLog.open(url)
    unsealable = replace(decision("request-1"), actor="\ud800")
    results = await asyncio.gather(
        *map(log.append, (decision(), unsealable, decision())), return_exceptions=True
    )
    assert [result is STORED for result in results] == [True, False, True]
    assert isinstance(results[1], TypeError)
    await log.close()
    assert count(url) == 2


async def test_a_cancelled_append_is_stored_all_the_same(url: str) -> None:
    log = await EvidenceLog.open(url)
    append = asyncio.ensure_future(log.append(decision("request-1")))
    await asyncio.sleep(0)
    append.cancel()
    await log.close()
    assert append.cancelled()
    assert count(url) == 1


async def test_an_open_log_is_writable(url: str) -> None:
    log = await EvidenceLog.open(url)
    assert await log.is_writable()
    assert log.backlog() == 0
    await log.close()


async def all_pages(
    first: Page, follow: Callable[[str], Awaitable[Page]]
) -> list[tuple[str, datetime]]:
    items = list(first.items)
    cursor = first.next_cursor
    while cursor is not None:
        page = await follow(cursor)
        items += page.items
        cursor = page.next_cursor
    return [(item.request_id, item.received_at) for item in items]


async def test_pages_are_complete_and_free_of_duplicates_while_inserts_go_on(url: str) -> None:
    log = await EvidenceLog.open(url)
    events = [decision(minute=n % 7) for n in range(103)]
    await asyncio.gather(*(log.append(event) for event in events))

    async def follow(cursor: str) -> Page:
        await asyncio.gather(*(log.append(decision(minute=8)) for _ in range(5)))
        return await log.list("default", limit=10, cursor=cursor)

    listed = await all_pages(await log.list("default", limit=10), follow)
    await log.close()
    newest_first = sorted(events, key=lambda e: (e.received_at, e.event_id), reverse=True)
    assert listed == [(event.request_id, event.received_at) for event in newest_first]


async def test_the_last_full_page_has_no_successor(url: str) -> None:
    log = await EvidenceLog.open(url)
    await asyncio.gather(*(log.append(decision()) for _ in range(4)))
    first = await log.list("default", limit=2)
    assert first.next_cursor is not None
    second = await log.list("default", limit=2, cursor=first.next_cursor)
    await log.close()
    assert len(second.items) == 2
    assert second.next_cursor is None


async def test_listings_can_be_narrowed(url: str) -> None:
    log = await EvidenceLog.open(url)
    await log.append(decision("old-credit", minute=0))
    await log.append(decision("new-credit", minute=9, status=("pending", "queued")))
    await log.append(decision("new-house", minute=9, model=template("house")))

    async def names(matching: DecisionFilter) -> set[str]:
        return {item.request_id for item in (await log.list("default", matching=matching)).items}

    boundary = START + timedelta(minutes=9, microseconds=7)
    assert await names(DecisionFilter(model="house")) == {"new-house"}
    assert await names(DecisionFilter(status="pending")) == {"new-credit"}
    assert await names(DecisionFilter(until=boundary)) == {"old-credit"}
    assert await names(DecisionFilter(since=boundary)) == {"new-credit", "new-house"}
    assert await names(DecisionFilter(since=boundary, model="credit")) == {"new-credit"}
    await log.close()


async def test_a_foreign_cursor_or_limit_is_refused(url: str) -> None:
    log = await EvidenceLog.open(url)
    with pytest.raises(BadCursorError):
        await log.list("default", cursor="' OR 1=1 --")
    with pytest.raises(ValueError, match="limit"):
        await log.list("default", limit=0)
    await log.close()


def test_a_row_the_database_cannot_hold_fails_alone(url: str) -> None:
    rows = [seal(decision()) for _ in range(9)]
    rows[4] = (rows[4][0], rows[4][1], None, *rows[4][3:])
    with EvidenceStore.open(url) as store:
        outcomes = store.insert(rows)
    assert isinstance(outcomes[4], StoreUnavailableError)
    assert outcomes[:4] + outcomes[5:] == [STORED] * 8
    assert count(url) == 8


def test_an_append_the_database_cannot_hold_raises(url: str) -> None:
    with EvidenceStore.open(url) as store, pytest.raises(StoreUnavailableError):
        store.append(replace(decision(), subjects="\udcff"))


async def test_a_missing_table_is_reported_and_healed(url: str) -> None:
    counter = Counter()
    log = await EvidenceLog.open(url, observer=counter)
    change(url, "ALTER TABLE events RENAME TO hidden")
    with pytest.raises(StoreUnavailableError) as caught:
        await log.append(decision("request-1"))
    with pytest.raises(StoreUnavailableError):
        await log.get("default", "request-1")
    change(url, "ALTER TABLE hidden RENAME TO events")
    assert await log.append(decision("request-1")) is STORED
    await log.close()
    assert "age" not in str(caught.value)
    assert counter.failed == 1
    assert counter.commits == [1]


def test_a_database_of_a_newer_release_is_refused(url: str) -> None:
    EvidenceStore.open(url).close()
    change(url, "UPDATE meta SET value = '3' WHERE name = 'schema_version'")
    with pytest.raises(SchemaVersionError, match="schema version 3"):
        EvidenceStore.open(url)


def test_a_payload_in_an_unknown_encoding_is_refused(url: str) -> None:
    event = decision()
    with EvidenceStore.open(url) as store:
        store.append(event)
        drop_rails(url)
        change(url, "UPDATE events SET encoding = 'of tomorrow'")
        with pytest.raises(UnreadablePayloadError, match="of tomorrow"):
            store.get("default", event.request_id)


async def test_lost_server_connections_are_replaced(postgres_url: str) -> None:
    log = await EvidenceLog.open(postgres_url)
    await log.append(decision("request-1"))
    assert await log.get("default", "request-1") is not None
    change(
        postgres_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert await log.append(decision("request-2")) is STORED
    assert await log.get("default", "request-1") is not None
    await log.close()


def test_a_new_file_that_somebody_reads_is_waited_for(tmp_path: Path) -> None:
    """To get a write-ahead log, one needs all of it."""
    file = tmp_path / "evidence.db"
    with closing(sqlite3.connect(file, check_same_thread=False)) as reader:
        reader.execute("CREATE TABLE other (x)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM other").fetchall()
        with pytest.raises(StoreUnavailableError, match="locked"):
            EvidenceStore.open(f"sqlite:///{file}", busy_timeout_seconds=0.1)
        ending = Timer(0.3, reader.rollback)
        ending.start()
        EvidenceStore.open(f"sqlite:///{file}").close()
        ending.join()


def test_replicas_may_open_a_new_database_at_the_same_time(url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: EvidenceStore.open(url), range(8)))
    for n, store in enumerate(stores):
        assert store.append(decision(f"request-{n}")) is STORED
        store.close()
    assert count(url) == 8
