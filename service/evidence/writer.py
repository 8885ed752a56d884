"""The one thread that commits: whatever has arrived goes into one transaction."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, Protocol, TypeAlias, TypeVar

from service.evidence.errors import NothingWrittenError, StoreBusyError, StoreUnavailableError
from service.evidence.sealing import Ready, Sealed
from service.evidence.store import AppendOutcome, Outcome
from service.logs import log, place_of

BATCH_ROWS = 512
LOOK_SECONDS = 0.05
MOST_LOOK_SECONDS = 0.2
SLOW_SECONDS = 0.25
"""After so long without an outcome those who can do without the store go on without."""

OVERDUE_SECONDS = 5.0
DURABLE = frozenset({AppendOutcome.STORED, AppendOutcome.SPOOLED})

Item = TypeVar("Item")
Answer = asyncio.Future[AppendOutcome]
Pending = tuple[Item, Answer]
EventWriter: TypeAlias = "GroupWriter[Sealed | Ready]"


class CommitObserver(Protocol):
    """Told by the writer thread after each batch."""

    def on_commit(self, rows: int, seconds: float) -> None:
        """That many events are durable; the insert took so long."""
        ...

    def on_failure(self, rows: int) -> None:
        """That many events are not confirmed as stored."""
        ...


class GroupWriter(Generic[Item]):
    """Turns concurrent appends into few commits.

    It waits for no timer: it commits what is there, and while that commit waits for the disk the
    next batch forms by itself. Belongs to one event loop; `submit` and `close` are called on it.
    """

    def __init__(
        self,
        insert: Callable[[Sequence[Item]], Sequence[Outcome]],
        *,
        loop: asyncio.AbstractEventLoop,
        queue_limit: int,
        observer: CommitObserver | None = None,
        name: str = "evidence-writer",
        overdue_seconds: float = OVERDUE_SECONDS,
    ) -> None:
        self._insert = insert
        self._overdue_seconds = overdue_seconds
        self._submitted: deque[tuple[float, int, Sequence[Pending[Item]]]] = deque()
        self._n_submitted = self._n_resolved = 0  # rows, in the same order
        self._n_overdue = 0  # as far as rows were refused whose insert has not ended
        self._is_watched = False
        self._looked_at = self._clock_seconds = 0.0
        self._on_slow: list[Callable[[], None]] = []
        self.is_slow = False
        """At the last look a row had waited for longer than SLOW_SECONDS, or the insert of one
        that was refused as overdue had not ended, and something still waits.
        """

        self._loop = loop
        self._queue_limit = queue_limit
        self._observer = observer
        self._queue: SimpleQueue[Sequence[Pending[Item]] | None] = SimpleQueue()
        self._on_idle: list[Callable[[], None]] = []
        self._closed = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Pending[Item]]) -> None:
        """Queue rows that belong into one commit. Their futures get an outcome or
        StoreUnavailableError, after `overdue_seconds` at the latest; cancelling one does not take
        its row back, nor does being late.

        Raises StoreBusyError when queue_limit rows wait, StoreUnavailableError after `close`.
        """
        if self._closed:
            raise StoreUnavailableError("the evidence log is closed")
        if self.backlog() >= self._queue_limit:
            raise StoreBusyError(f"{self._queue_limit} events wait for the evidence store")
        if not rows:
            return  # an empty batch is how the thread ends
        self._n_submitted += len(rows)
        self._submitted.append((self._clock_seconds, self._n_submitted, rows))
        if not self._is_watched:
            self._watch()
        self._queue.put(rows)

    def backlog(self) -> int:
        """How many rows have no outcome yet."""
        return self._n_submitted - self._n_resolved

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call on the loop each time the last row that waited has its outcome."""
        self._on_idle.append(callback)

    def call_when_slow(self, callback: Callable[[], None]) -> None:
        """Call on the loop, again and again, while a row waits for longer than SLOW_SECONDS."""
        self._on_slow.append(callback)

    def is_alive(self) -> bool:
        """The thread runs and takes rows."""
        return not self._closed and self._thread.is_alive()

    async def close(self, *, timeout_seconds: float) -> Sequence[Item]:
        """Take no more rows, commit those that wait, end the thread; the rows that were not even
        tried.

        They fail with NothingWrittenError, what has not ended in time with StoreUnavailableError.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        left = self._take_all()
        reason = "the evidence log was closed before this was stored"
        self._resolve(left, [NothingWrittenError(reason) for _ in left])
        while self._submitted:  # the insert that did not end in time
            *_, rows = self._submitted.popleft()
            _refuse(rows, "the evidence log was closed, and the store has not answered")
        return [row for row, _ in left]

    def _take_all(self) -> list[Pending[Item]]:
        taken: list[Pending[Item]] = []
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
            self._commit(batch)

    def _next_batch(self) -> list[Pending[Item]]:
        """Everything that has arrived, at least one row; empty when there will be no more."""
        batch: list[Pending[Item]] = []
        item = self._queue.get()
        while item is not None:
            batch += item
            if len(batch) >= BATCH_ROWS or self._queue.empty():
                return batch
            item = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, batch: list[Pending[Item]]) -> None:
        started = time.perf_counter()
        outcomes: Sequence[Outcome]
        try:
            outcomes = self._insert([row for row, _ in batch])
        except StoreUnavailableError as error:
            log.warning("evidence_store_unavailable", events=len(batch), reason=str(error))
            outcomes = [type(error)(str(error)) for _ in batch]
        except Exception as error:  # noqa: BLE001  # this thread must outlive whatever a batch does
            log.error("evidence_writer_failed", events=len(batch), place=place_of(error))
            outcomes = [StoreUnavailableError("the evidence writer failed") for _ in batch]
        seconds = time.perf_counter() - started
        self._answer(batch, outcomes)
        try:
            self._report(outcomes, seconds)
        except Exception as error:  # noqa: BLE001
            log.error("commit_not_counted", events=len(batch), place=place_of(error))

    def _answer(self, batch: Sequence[Pending[Item]], outcomes: Sequence[Outcome]) -> None:
        # A closed loop has nobody waiting; what is queued is committed all the same.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, batch, outcomes)

    def _resolve(self, batch: Sequence[Pending[Item]], outcomes: Sequence[Outcome]) -> None:
        try:
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, StoreUnavailableError):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
        finally:
            self._n_resolved += len(batch)
        if not self.backlog():
            self.is_slow = False
            self._submitted.clear()  # at a look 16 batches later they are out of the caches
            for callback in self._on_idle:
                callback()

    def _watch(self) -> None:
        self._is_watched = True
        self._looked_at = self._loop.time()
        self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """See how long rows wait. One look for all of them: a timer for each would cost 2 us.

        The clock stands still while this loop does: a library that held the GIL for seconds kept
        the outcomes from being told, not the store from giving them.
        """
        self._is_watched = False
        self._clock_seconds += min(self._loop.time() - self._looked_at, MOST_LOOK_SECONDS)
        self._forget_answered()
        while self._waited_seconds() > self._overdue_seconds:
            _, self._n_overdue, rows = self._submitted.popleft()
            _refuse(rows, f"the store has not answered for {self._overdue_seconds:g} seconds")
        hangs = self._n_resolved < self._n_overdue
        self.is_slow = hangs or self._waited_seconds() > SLOW_SECONDS
        if self.is_slow:
            for callback in self._on_slow:
                callback()
        if self._submitted or hangs:
            self._watch()

    def _waited_seconds(self) -> float:
        """How long the oldest row that has no outcome waits; 0 without one."""
        return self._clock_seconds - self._submitted[0][0] if self._submitted else 0.0

    def _forget_answered(self) -> None:
        """By their count, which is cheap; what `close` refuses is counted before what hangs."""
        while self._submitted and self._submitted[0][1] <= self._n_resolved:
            if not all(answer.done() for _, answer in self._submitted[0][2]):
                break
            self._submitted.popleft()

    def _report(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        if self._observer is None:
            return
        failed = sum(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
        stored = sum(outcome in DURABLE for outcome in outcomes)
        if failed:
            self._observer.on_failure(failed)
        if stored:
            self._observer.on_commit(stored, seconds)


def _refuse(rows: Sequence[Pending[Item]], reason: str) -> None:
    for _, answer in rows:
        if not answer.done():
            answer.set_exception(StoreUnavailableError(reason))
