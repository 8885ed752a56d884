"""Counts what was seen and stores it, every few seconds and at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock

from service.drift import windows
from service.drift.tallying import Tallies
from service.evidence import EvidenceError, EvidenceStore
from service.logs import log, place_of

COUNT_SECONDS = 2.0
COUNTS_A_SAVE = 5
"""A process that is killed loses what it saw in the last ten seconds."""


@dataclass(slots=True, eq=False)
class Keeper:
    """The tallies of one process on their way into the database. For any thread."""

    store: EvidenceStore
    tallies: Tallies
    _lock: Lock = field(default_factory=Lock)

    def count(self) -> None:
        """Count what was seen."""
        with self._lock:
            self.tallies.count()

    def save(self) -> None:
        """Count and store it. Raises StoreUnavailableError; then the next call stores it too."""
        with self._lock:
            self.tallies.count()
            unsaved = self.tallies.unsaved()
            windows.save(self.store, unsaved)
            self.tallies.saved(unsaved)

    async def run(self) -> None:
        """Until cancelled; a store that is away is tried again."""
        turn = 0
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            turn += 1
            try:
                await asyncio.to_thread(self.count if turn % COUNTS_A_SAVE else self.save)
            except EvidenceError as error:
                log.warning("drift_waits_for_store", reason=str(error))
            except Exception as error:  # noqa: BLE001 - without it nothing would be counted again
                log.error("drift_failed", place=place_of(error))


@asynccontextmanager
async def keeping(store: EvidenceStore, tallies: Tallies) -> AsyncIterator[Keeper]:
    """Counts and stores inside the block, and once more at its end."""
    keeper = Keeper(store, tallies)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await asyncio.to_thread(keeper.save)
        except EvidenceError as error:
            log.warning("drift_not_stored", reason=str(error))
