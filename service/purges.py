"""The purge of a running service: every hour what has been kept for long enough is destroyed."""

import asyncio
from dataclasses import dataclass, field
from threading import Event

from service.disposal import Purge, purge
from service.evidence import EvidenceError, EvidenceLog
from service.logs import log, place_of
from service.metrics import Metrics

PURGE_SECONDS = 3600.0
PRINCIPAL = "purge"
MOST_SHARE = 0.1
"""Of the time spent in transactions, for which answers wait."""


@dataclass(slots=True, eq=False)
class PurgeJob:
    """Any number of processes may have one: each batch excludes the others, and finds the rest."""

    evidence: EvidenceLog
    metrics: Metrics
    _is_over: Event = field(default_factory=Event)

    async def run(self) -> None:
        """At once and then every hour, until cancelled; what fails is tried an hour later.

        Ends with the purge: what it accounts for at last still gets a place in the log.
        """
        purging = asyncio.create_task(self._run_once())
        try:
            while True:
                await asyncio.shield(purging)
                await asyncio.sleep(PURGE_SECONDS)
                purging = asyncio.create_task(self._run_once())
        finally:
            self._is_over.set()
            await purging

    async def _run_once(self) -> None:
        try:
            found = await asyncio.to_thread(self._purge)
        except EvidenceError as error:
            log.warning("purge_waits_for_store", reason=str(error))
        except Exception as error:  # noqa: BLE001 - without it nothing would ever expire
            log.error("purge_failed", place=place_of(error))
        else:
            self._tell(found)

    def _purge(self) -> Purge:
        return purge(self.evidence.store, PRINCIPAL, goes_on=self._let_others)

    def _tell(self, found: Purge) -> None:
        for (_, model, _), count in found.purged.items():
            self.metrics.purged.labels(model).inc(count)
        self.metrics.purge_held.set(found.held)
        self.metrics.purged_at.set_to_current_time()
        if found.total:
            log.info("purged", **found.document())

    def _let_others(self, seconds: float) -> bool:
        """Wait after a transaction that took so long; False when the service stops."""
        return not self._is_over.wait(seconds / MOST_SHARE)
