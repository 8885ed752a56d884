"""What is spooled goes into the store, in order, as soon as the store is back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic

from service.evidence.best_effort import BestEffort, SpoolObserver
from service.evidence.errors import (
    EventRefusedError,
    StoreBusyError,
    StoreUnavailableError,
)
from service.evidence.events import EPOCH, Row
from service.evidence.sealing import Ready
from service.evidence.segments import Segment
from service.evidence.spool import KEY, Spool, rows_of
from service.evidence.store import AppendOutcome
from service.evidence.tables import BESIDE, INSERTED_COLUMNS
from service.evidence.writer import Answer, EventWriter
from service.logs import log, place_of

PAUSE_SECONDS = 0.5
ADOPT_SECONDS = 10.0
BATCH = 256
BATCH_BYTES = 4 * 1024 * 1024
_EVENT_ID = INSERTED_COLUMNS.index("event_id")
_HEADER = INSERTED_COLUMNS.index("header")
_RECEIVED = INSERTED_COLUMNS.index("received_us")


class _AwayError(Exception):
    """The store does not work: the rest is for the next turn."""


@dataclass(slots=True, eq=False)
class Drain:
    """Empties one process's spool, and tells when the store works again."""

    spool: Spool
    store: EventWriter
    best_effort: BestEffort
    is_writable: Callable[[], Awaitable[bool]]
    doom: Callable[[Sequence[Row]], None]
    """Destroys the keys of rows that are stored nowhere. Blocks; raises StoreUnavailableError."""

    observer: SpoolObserver | None = None
    on_drained: list[Callable[[datetime], None]] = field(default_factory=list)
    """Called with the time of receipt of the oldest event of each batch that has been stored."""

    _adopt_at: float = 0.0
    _refused: set[Segment] = field(default_factory=set)

    async def run(self) -> None:
        """Drain whenever there is something, until cancelled."""
        while True:
            try:
                await self._turn()
            except _AwayError:
                pass
            except Exception as error:  # noqa: BLE001 - without it nothing spooled is ever stored
                log.error("spool_not_drained", place=place_of(error))
            self.best_effort.on_need.clear()
            if self.best_effort.is_diverting or self.spool.records():
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(ADOPT_SECONDS):
                    await self.best_effort.on_need.wait()

    async def _turn(self) -> None:
        if monotonic() >= self._adopt_at:
            await asyncio.to_thread(self.spool.adopt)
            self._adopt_at = monotonic() + ADOPT_SECONDS
        if self.best_effort.is_diverting:
            if not await self.is_writable():
                return
            if not self.spool.records():
                self.best_effort.resume()
        while (segment := await asyncio.to_thread(self._next_segment)) is not None:
            await self._drain(segment)

    def _next_segment(self) -> Segment | None:
        return self.spool.next_finished(self._refused)

    async def _drain(self, segment: Segment) -> None:
        """Store all events of a file, then delete it. Raises _AwayError."""
        started, stored, refused = monotonic(), 0, 0
        rows = rows_of(segment)
        while batch := await asyncio.to_thread(_next_batch, rows):
            refused += await self._store(batch)
            stored += len(batch)
            self.best_effort.resume()
            oldest = min(int(row[_RECEIVED] or 0) for row in batch)
            for callback in self.on_drained:
                callback(EPOCH + timedelta(microseconds=oldest))
        if refused:
            self._refused.add(segment)
            return
        await asyncio.to_thread(self.spool.discard, segment)
        log.info("spool_drained", events=stored, seconds=round(monotonic() - started, 3))

    async def _store(self, rows: Sequence[Row]) -> int:
        """Have rows stored, beside another answer's where there is one; how many of them the store
        refuses for what they are. Raises _AwayError.
        """
        outcomes = await self._commit(rows)
        taken = _in_conflict(rows, outcomes)
        beside = await self._commit_beside(taken)
        erased = _in_conflict(taken, beside)
        await self._drop(erased)
        n_refused = sum(isinstance(one, EventRefusedError) for one in (*outcomes, *beside))
        if self.observer is not None:
            self.observer.on_drained(
                len(rows) - n_refused - len(erased),
                beside.count(AppendOutcome.STORED),
                n_refused,
                len(erased),
            )
        return n_refused

    async def _commit_beside(self, rows: Sequence[Row]) -> list[AppendOutcome | EventRefusedError]:
        """Another process answered the same request meanwhile: both answers went out, so both are
        evidence. Only one can be found by the request's ID. Raises _AwayError.
        """
        if not rows:
            return []
        outcomes = await self._commit([_beside(row) for row in rows])
        twins = [
            row[_EVENT_ID]
            for row, outcome in zip(rows, outcomes, strict=True)
            if outcome is not AppendOutcome.CONFLICT
        ]
        if twins:
            log.error("spooled_twins", event_ids=twins)
        return outcomes

    async def _drop(self, rows: Sequence[Row]) -> None:
        """Destroy the keys of what the store takes in no place: its request has been erased, or
        whom it is about from it. Raises _AwayError.
        """
        if not rows:
            return
        log.info("spooled_erased", event_ids=[row[_EVENT_ID] for row in rows])
        try:
            await asyncio.to_thread(self.doom, rows)
        except StoreUnavailableError as error:
            raise _AwayError from error

    async def _commit(self, rows: Sequence[Row]) -> list[AppendOutcome | EventRefusedError]:
        loop = asyncio.get_running_loop()
        answers: list[Answer] = [loop.create_future() for _ in rows]
        try:
            self.store.submit(list(zip(map(Ready, rows), answers, strict=True)))
        except (StoreBusyError, StoreUnavailableError) as error:
            raise _AwayError from error
        outcomes: list[AppendOutcome | EventRefusedError] = []
        for outcome in await asyncio.gather(*answers, return_exceptions=True):
            if not isinstance(outcome, AppendOutcome | EventRefusedError):
                raise _AwayError
            outcomes.append(outcome)
        return outcomes


def _in_conflict(
    rows: Sequence[Row], outcomes: Sequence[AppendOutcome | EventRefusedError]
) -> list[Row]:
    return [
        row
        for row, outcome in zip(rows, outcomes, strict=True)
        if outcome is AppendOutcome.CONFLICT
    ]


def _next_batch(rows: Iterator[Row]) -> list[Row]:
    """Some rows, not more than a few megabytes unless one alone is; none at the end."""
    batch: list[Row] = []
    size = 0
    for row in islice(rows, BATCH):
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if size > BATCH_BYTES:
            break
    return batch


def _beside(row: Row) -> Row:
    """The same event under a key of its own, which its header says: whoever verifies the log would
    take a second decision of a request for a forgery.
    """
    key, header = f"{BESIDE}{row[_EVENT_ID]!s}", row[_HEADER]
    assert isinstance(header, bytes)
    said = header[:-1] + b',"beside":true}'
    return (*row[:KEY], key, *row[KEY + 1 : _HEADER], said, *row[_HEADER + 1 :])
