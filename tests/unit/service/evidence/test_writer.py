import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from service.evidence import (
    AppendOutcome,
    NothingWrittenError,
    StoreBusyError,
    StoreUnavailableError,
)
from service.evidence.events import Row
from service.evidence.store import Outcome
from service.evidence.writer import BATCH_ROWS, Answer, CommitObserver, GroupWriter

STORED = AppendOutcome.STORED


class Database:
    """An insert that waits at its gate and then does what `behaviour` says."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[Row]] = []
        self.error: Exception | None = None

    def insert(self, rows: Sequence[Row]) -> list[Outcome]:
        self.entered.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.batches.append(list(rows))
        return [STORED] * len(rows)


class BrokenObserver:
    def on_commit(self, rows: int, seconds: float) -> None:
        raise RuntimeError(f"{rows} rows, {seconds} s")

    def on_failure(self, rows: int) -> None:
        raise RuntimeError(f"{rows} rows")


def writer_of(
    insert: Callable[[Sequence[Row]], Sequence[Outcome]],
    *,
    limit: int = 5000,
    observer: CommitObserver | None = None,
    overdue_seconds: float = 5.0,
) -> GroupWriter[Row]:
    loop = asyncio.get_running_loop()
    return GroupWriter(
        insert, loop=loop, queue_limit=limit, observer=observer, overdue_seconds=overdue_seconds
    )


def submitted(writer: GroupWriter[Row], row: Row) -> Answer:
    answer: Answer = asyncio.get_running_loop().create_future()
    writer.submit([(row, answer)])
    return answer


async def blocked(database: Database, writer: GroupWriter[Row]) -> asyncio.Future[AppendOutcome]:
    database.gate.clear()
    first = submitted(writer, ("first",))
    await asyncio.to_thread(database.entered.wait, 10)
    return first


async def test_what_arrives_during_a_commit_goes_into_the_next_ones_whole() -> None:
    database = Database()
    writer = writer_of(database.insert)
    first = await blocked(database, writer)
    rest = [submitted(writer, (n,)) for n in range(BATCH_ROWS + 3)]
    assert writer.backlog() == BATCH_ROWS + 4
    database.gate.set()
    await asyncio.gather(first, *rest)
    await writer.close(timeout_seconds=10)
    assert [len(batch) for batch in database.batches] == [1, BATCH_ROWS, 3]
    rows = [row for batch in database.batches for row in batch]
    assert rows == [("first",), *((n,) for n in range(BATCH_ROWS + 3))]


async def test_the_queue_is_bounded_and_opens_again() -> None:
    database = Database()
    writer = writer_of(database.insert, limit=3)
    first = await blocked(database, writer)
    waiting = [submitted(writer, (n,)) for n in range(2)]
    with pytest.raises(StoreBusyError, match="3 events"):
        submitted(writer, ("one too many",))
    database.gate.set()
    await asyncio.gather(first, *waiting)
    assert await submitted(writer, ("again",)) is STORED
    await writer.close(timeout_seconds=10)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StoreUnavailableError("disk full"), "disk full"), (ZeroDivisionError("bug"), "failed")],
)
async def test_a_failed_batch_fails_all_its_rows_and_the_next_one_works(
    error: Exception, reason: str
) -> None:
    database = Database()
    writer = writer_of(database.insert)
    first = await blocked(database, writer)
    second = submitted(writer, ("second",))
    database.error = error
    database.gate.set()
    for answer in (first, second):
        with pytest.raises(StoreUnavailableError, match=reason):
            await answer
    database.error = None
    assert await submitted(writer, ("third",)) is STORED
    await writer.close(timeout_seconds=10)
    assert database.batches == [[("third",)]]


async def test_a_broken_observer_costs_no_answer() -> None:
    writer = writer_of(Database().insert, observer=BrokenObserver())
    assert await submitted(writer, ("one",)) is STORED
    assert await submitted(writer, ("two",)) is STORED
    assert writer.is_alive()
    await writer.close(timeout_seconds=10)


async def test_closing_commits_what_waits_and_refuses_what_comes_after() -> None:
    database = Database()
    writer = writer_of(database.insert)
    first = await blocked(database, writer)
    waiting = [submitted(writer, (n,)) for n in range(5)]
    closing = asyncio.ensure_future(writer.close(timeout_seconds=10))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="closed"):
        submitted(writer, ("late",))
    database.gate.set()
    await closing
    assert await asyncio.gather(first, *waiting) == [STORED] * 6
    assert not writer.is_alive()


async def test_closing_is_bounded_and_fails_what_was_not_taken() -> None:
    database = Database()
    writer = writer_of(database.insert)
    first = await blocked(database, writer)
    waiting = submitted(writer, ("waiting",))
    await writer.close(timeout_seconds=0.01)
    with pytest.raises(StoreUnavailableError, match="closed before"):
        await waiting
    with pytest.raises(StoreUnavailableError, match="has not answered"):
        await first
    database.gate.set()
    await writer.close(timeout_seconds=10)
    assert database.batches == [[("first",)]]


async def test_closing_ends_also_what_hangs_in_the_store() -> None:
    database = Database()
    database.gate.clear()
    writer = writer_of(database.insert)
    hanging: list[Answer] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    writer.submit([((n,), answer) for n, answer in enumerate(hanging)])
    await asyncio.to_thread(database.entered.wait, 10)
    waiting = [submitted(writer, (n,)) for n in range(5)]
    assert await writer.close(timeout_seconds=0.2) == [(n,) for n in range(5)]
    assert {type(answer.exception()) for answer in hanging} == {StoreUnavailableError}
    assert {type(answer.exception()) for answer in waiting} == {NothingWrittenError}
    database.gate.set()


def test_rows_are_committed_although_their_loop_is_gone() -> None:
    gate, finished = threading.Event(), threading.Event()
    committed: list[Row] = []

    def insert(rows: Sequence[Row]) -> list[Outcome]:
        assert gate.wait(10)
        committed.extend(rows)
        if ("last",) in rows:
            finished.set()
        return [STORED] * len(rows)

    async def leave() -> GroupWriter[Row]:
        writer = writer_of(insert)
        for n in range(BATCH_ROWS + 1):
            submitted(writer, (n,))
        submitted(writer, ("last",))
        return writer

    writer = asyncio.run(leave())
    gate.set()
    assert finished.wait(10)
    assert len(committed) == BATCH_ROWS + 2
    assert writer.is_alive()


async def test_nothing_submitted_does_not_end_the_thread() -> None:
    writer = writer_of(Database().insert)
    writer.submit([])
    assert await submitted(writer, ("one",)) is STORED
    await writer.close(timeout_seconds=10)


async def test_nobody_waits_for_a_store_that_hangs() -> None:
    database = Database()
    writer = writer_of(database.insert, overdue_seconds=0.3)
    slow: list[bool] = []
    writer.call_when_slow(lambda: slow.append(writer.is_slow))
    first = await blocked(database, writer)
    second = submitted(writer, ("second",))
    for answer in (first, second):
        with pytest.raises(StoreUnavailableError, match=r"has not answered for 0\.3 seconds"):
            await answer
    assert slow
    assert all(slow)
    assert writer.backlog() == 2
    again = asyncio.Event()
    writer.call_when_slow(again.set)
    await asyncio.wait_for(again.wait(), 5)  # who comes now should not wait for that insert
    assert writer.is_slow
    database.gate.set()
    assert await submitted(writer, ("third",)) is STORED
    assert not writer.is_slow
    await writer.close(timeout_seconds=10)
    assert [row for batch in database.batches for row in batch] == [
        ("first",),
        ("second",),
        ("third",),
    ]


async def test_a_loop_that_stands_still_makes_no_store_late() -> None:
    database = Database()
    writer = writer_of(database.insert, overdue_seconds=0.3)
    first = await blocked(database, writer)
    threading.Event().wait(0.6)  # as a library does that keeps the GIL
    for _ in range(3):  # by now the writer has looked how long its rows wait
        await asyncio.sleep(0)
    database.gate.set()
    assert await first is STORED
    await writer.close(timeout_seconds=10)
