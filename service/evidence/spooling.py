"""All that spooling takes in a running service: files, writer thread, breaker and drain."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from service.evidence.best_effort import BestEffort, SpoolObserver
from service.evidence.doomed import doom_unstored
from service.evidence.draining import Drain
from service.evidence.errors import StoreUnavailableError
from service.evidence.events import Event
from service.evidence.reading import StoredDecision, as_queried, stored_decision
from service.evidence.sealing import ROOM_BYTES, Sealer, refusal_of
from service.evidence.spool import Spool, SpoolLimits
from service.evidence.store import EvidenceStore
from service.evidence.writer import Answer, EventWriter, GroupWriter

SPOOL_SECONDS = 1.0
"""After so long without its sync an event counts as not kept."""

QUEUE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class SpoolState:
    """is_needed: the store is passed by; is_taking: what comes now would be kept."""

    records: int
    is_needed: bool
    is_taking: bool


class Spooling:
    """Given to the evidence log it belongs to, which starts and closes it."""

    def __init__(self, limits: SpoolLimits, *, observer: SpoolObserver | None = None) -> None:
        damaged = () if observer is None else (observer.on_damaged,)
        self._spool = Spool(limits, *damaged)
        self._observer = observer
        self._sealer: Sealer
        self._writer: EventWriter
        self._best_effort: BestEffort
        self._drain: Drain
        self._draining: asyncio.Task[None]

    async def start(
        self, writer: EventWriter, store: EvidenceStore, is_writable: Callable[[], Awaitable[bool]]
    ) -> None:
        """Find what processes that are gone have left, and begin to drain into this store."""
        self._sealer = sealer = store.sealer
        await asyncio.to_thread(self._spool.adopt)
        loop, observer = asyncio.get_running_loop(), self._observer
        self._writer = GroupWriter(
            partial(sealer.insert, insert=self._spool.insert),
            loop=loop,
            queue_limit=QUEUE_LIMIT,
            observer=observer,
            overdue_seconds=SPOOL_SECONDS,
        )
        self._best_effort = BestEffort(
            writer, self._writer, self._spool, give_back=sealer.give_back, observer=observer
        )
        doom = partial(doom_unstored, store)
        self._drain = Drain(self._spool, writer, self._best_effort, is_writable, doom, observer)
        self._draining = loop.create_task(self._drain.run())

    async def close(self, *, timeout_seconds: float) -> None:
        """Sync what is on its way and leave it to who comes next; the store is closed by now."""
        self._draining.cancel()
        await asyncio.gather(self._draining, return_exceptions=True)
        await self._writer.close(timeout_seconds=timeout_seconds)
        await asyncio.to_thread(self._spool.close)

    def submit(self, events: Sequence[tuple[Event, Answer]]) -> None:
        """As `BestEffort.submit`, of events to be sealed; one that cannot be is kept nowhere."""
        sealed, room = [], ROOM_BYTES
        for event, answer in events:
            try:
                one = self._sealer.seal(event, may_be_spooled=True, room=room)
                sealed.append((one, answer))
                room -= len(event.payload)
            except StoreUnavailableError as error:  # without a key nothing may be written
                self._best_effort.lose(event, answer, error)
            except Exception as error:  # noqa: BLE001 - it costs this event alone
                self._best_effort.lose(event, answer, refusal_of(error))
        self._best_effort.submit(sealed)

    def call_when_drained(self, callback: Callable[[datetime], None]) -> None:
        """Call with the time of receipt of the oldest of some events that are stored now."""
        self._drain.on_drained.append(callback)

    def holds(self, key: str) -> bool:
        """An event of this idempotency key is on its way, or waits in the spool."""
        return self._best_effort.is_claimed(key) or self._spool.holds(key)

    def decision(self, key: str) -> StoredDecision | None:
        """The decision of this idempotency key that waits in the spool. Reads a file.

        Raises StoreUnavailableError when its keys cannot be had.
        """
        row = self._spool.find(key)
        if row is None:
            return None
        found = as_queried(row)
        return stored_decision(found, *self._sealer.open([found]))

    def state(self) -> SpoolState:
        """How it is now."""
        return SpoolState(
            self._spool.records(),
            self._best_effort.is_diverting,
            not (self._spool.is_full() or self._spool.is_failing),
        )
