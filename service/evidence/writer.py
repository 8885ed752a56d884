"""The one thread that commits: whatever has arrived goes into one transaction."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from service.evidence.errors import StoreBusyError, StoreUnavailableError
from service.evidence.sealing import Sealed
from service.evidence.store import AppendOutcome, Outcome
from service.logs import log, place_of

BATCH_ROWS = 512

Insert = Callable[[Sequence[Sealed]], Sequence[Outcome]]
Answer = asyncio.Future[AppendOutcome]
Pending = tuple[Sealed, Answer]


class CommitObserver(Protocol):
    """Told by the writer thread after each batch."""

    def on_commit(self, rows: int, seconds: float) -> None:
        """That many events are durable; the insert took so long."""
        ...

    def on_failure(self, rows: int) -> None:
        """That many events are not confirmed as stored."""
        ...


class GroupWriter:
    """Turns concurrent appends into few commits.

    It waits for no timer: it commits what is there, and while that commit waits for the disk the
    next batch forms by itself. Belongs to one event loop; `submit` and `close` are called on it.
    """

    def __init__(
        self,
        insert: Insert,
        *,
        loop: asyncio.AbstractEventLoop,
        queue_limit: int,
        observer: CommitObserver | None = None,
    ) -> None:
        self._insert = insert
        self._loop = loop
        self._queue_limit = queue_limit
        self._observer = observer
        self._queue: SimpleQueue[Sequence[Pending] | None] = SimpleQueue()
        self._pending = 0  # touched on the loop's thread only
        self._on_idle: list[Callable[[], None]] = []
        self._closed = False
        self._thread = Thread(target=self._run, name="evidence-writer", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Pending]) -> None:
        """Queue rows that belong into one commit. Their futures get an outcome or
        StoreUnavailableError; cancelling one does not take its row back.

        Raises StoreBusyError when queue_limit rows wait, StoreUnavailableError after `close`.
        """
        if self._closed:
            raise StoreUnavailableError("the evidence log is closed")
        if self._pending >= self._queue_limit:
            raise StoreBusyError(f"{self._queue_limit} events wait for the evidence store")
        self._pending += len(rows)
        self._queue.put(rows)

    def backlog(self) -> int:
        """How many rows have no outcome yet."""
        return self._pending

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call on the loop each time the last row that waited has its outcome."""
        self._on_idle.append(callback)

    def is_alive(self) -> bool:
        """The thread runs and takes rows."""
        return not self._closed and self._thread.is_alive()

    async def close(self, *, timeout_seconds: float) -> None:
        """Take no more rows, commit those that wait, end the thread.

        Rows that the store did not take in time fail with StoreUnavailableError.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        left = self._take_all()
        self._resolve(
            left, _unavailable("the evidence log was closed before this was stored", left)
        )

    def _take_all(self) -> list[Pending]:
        taken: list[Pending] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            taken += item or ()
        self._queue.put(None)
        return taken

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001  # this thread must outlive whatever a batch does
                log.error("evidence_writer_failed", events=len(batch), place=place_of(error))
                self._answer(batch, _unavailable("the evidence writer failed", batch))

    def _next_batch(self) -> list[Pending]:
        """Everything that has arrived, at least one row; empty when there will be no more."""
        batch: list[Pending] = []
        item = self._queue.get()
        while item is not None:
            batch += item
            if len(batch) >= BATCH_ROWS or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, batch: list[Pending]) -> None:
        started = time.perf_counter()
        try:
            outcomes = self._insert([row for row, _ in batch])
        except StoreUnavailableError as error:
            log.warning("evidence_store_unavailable", events=len(batch), reason=str(error))
            outcomes = _unavailable(str(error), batch)
        seconds = time.perf_counter() - started
        self._answer(batch, outcomes)
        self._report(outcomes, seconds)

    def _answer(self, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        # A closed loop has nobody waiting; what is queued is committed all the same.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, batch, outcomes)

    def _resolve(self, batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, StoreUnavailableError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
        self._pending -= len(batch)
        if not self._pending:
            for callback in self._on_idle:
                callback()

    def _report(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        if self._observer is None:
            return
        failed = sum(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
        stored = sum(outcome is AppendOutcome.STORED for outcome in outcomes)
        if failed:
            self._observer.on_failure(failed)
        if stored:
            self._observer.on_commit(stored, seconds)


def _unavailable(reason: str, batch: Sequence[Pending]) -> list[Outcome]:
    return [StoreUnavailableError(reason) for _ in batch]
