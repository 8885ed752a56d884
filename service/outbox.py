"""Pending explanations that the queue lost or never took: queued again, counted late, given up.

The evidence store is the truth: what is pending there is wanted, whatever the queue remembers.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from service.endings import failed_final, unreadable_final
from service.evidence import (
    EvidenceError,
    EvidenceLog,
    FinalEvent,
    PendingRequest,
    Record,
    StoreBusyError,
    StoreUnavailableError,
    UnreadableRecord,
)
from service.evidence.events import EPOCH, microseconds
from service.logs import log, place_of
from service.metrics import Metrics
from service.queue import (
    PRIORITIES,
    Job,
    JobQueue,
    QueueAwayError,
    QueueError,
    QueueFullError,
)

TURN_SECONDS = 1.0
MOST_SHARE = 0.1
"""Of the time spent in sweeps: with a large backlog they come further apart than a second."""

GRACE = timedelta(seconds=5)
"""A younger decision's own request is still about to queue it."""

LATE_COMMIT = timedelta(seconds=60)
"""How much later than its receipt a decision may at most become durable."""

GIVE_UP = timedelta(hours=48)
"""Two days, so that a clock that is wrong by one gives up nothing early."""

DEEP_SECONDS = 600.0
"""Between sweeps that also find decisions of clocks that were wrong by up to a day."""

FAR = timedelta(days=366)
PAGE = 512
AT_ONCE = 64
ACTOR = "outbox"


@dataclass(slots=True, eq=False)
class Outbox:
    """Sweeps the pending decisions of all tenants. Any number of processes may do so at once: the
    queue takes a job once, the store one ending of each kind, and who inserts it counts it.

    queue None: nothing is queued again, but late and old ones are still ended.
    """

    evidence: EvidenceLog
    queue: JobQueue | None
    metrics: Metrics
    deadline: timedelta
    _since: datetime = EPOCH
    """Everything pending was received after it, but for what deep sweeps find."""

    _looked_back_to: datetime = EPOCH
    _deep_since: datetime = EPOCH
    _deep_at: float = 0.0

    async def run(self) -> None:
        """Sweep about every second until cancelled; a store that is away is tried again."""
        while True:
            started = monotonic()
            try:
                await self.sweep()
            except EvidenceError as error:
                log.warning("outbox_waits_for_store", reason=str(error))
            except Exception as error:  # noqa: BLE001 - without it nothing lost is queued again
                log.error("outbox_failed", place=place_of(error))
            spent = monotonic() - started
            await asyncio.sleep(max(TURN_SECONDS, spent / MOST_SHARE))

    def look_back(self, received_at: datetime) -> None:
        """The next sweep begins there: something received then has become durable only now."""
        self._since = min(self._since, received_at)
        self._looked_back_to = min(self._looked_back_to, received_at)

    async def sweep(self) -> None:
        """Deal with everything pending for longer than the grace, once. Raises EvidenceError.

        Cost: `EvidenceLog.pending` since the oldest one that is still pending, at least of the
        last minute.
        """
        now = datetime.now(UTC)
        self._looked_back_to = now
        grace = min(GRACE, self.deadline)  # what is late is to be counted then
        if monotonic() < self._deep_at:
            oldest = await self._sweep(self._since, now - grace, now)
        else:
            oldest = await self._sweep(self._deep_since, now + FAR, now)
            self._deep_at = monotonic() + DEEP_SECONDS
            self._deep_since = now - GIVE_UP - GIVE_UP
        # What came in late during this sweep may lie before what it has seen.
        self._since = min(oldest, now - grace - LATE_COMMIT, self._looked_back_to)

    async def _sweep(self, since: datetime, until: datetime, now: datetime) -> datetime:
        """Deal with what is pending in [since, until); the first that still is, or until."""
        oldest, requeued, is_taking = until, 0, True
        async for page in self._pages(since, until):
            left = [pending for pending in page if not await self._ended(pending, now)]
            oldest = min([oldest, *(pending.received_at for pending in left)])
            if is_taking:
                taken = await self._submit(left)
                is_taking = taken is not None
                requeued += taken or 0
        if requeued:
            log.info("outbox_requeued", explanations=requeued)
        return oldest

    async def _pages(
        self, since: datetime, until: datetime
    ) -> AsyncIterator[Sequence[PendingRequest]]:
        is_last = False
        while not is_last:
            page = await self.evidence.pending(since=since, until=until, limit=PAGE)
            yield page
            is_last = len(page) < PAGE
            if not is_last:  # the last one's microsecond again, unless the page held no other
                since = max(page[-1].received_at, since + timedelta(microseconds=1))

    async def _ended(self, pending: PendingRequest, now: datetime) -> bool:
        """Count it if it is late, give it up if it is old; True when it is pending no more.

        One that cannot be dealt with holds up no other.
        Raises StoreUnavailableError, StoreBusyError.
        """
        try:
            if await self._given_up(pending, now):
                return True
            await self._count_late(pending, now)
        except (StoreUnavailableError, StoreBusyError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this record
            log.error("outbox_passed_over", request_id=pending.request_id, place=place_of(error))
        return False

    async def _given_up(self, pending: PendingRequest, now: datetime) -> bool:
        if now - pending.received_at < GIVE_UP:
            return False
        found = await self.evidence.records([(pending.tenant, pending.request_id)])
        record = next(iter(found), None)
        if record is None or not record.is_pending:
            return True
        event = _ending(record)
        outcome = await self.evidence.append_final(event)
        if outcome.counted:
            self._count(pending, event.outcome)
        if outcome.stored and self.queue is not None:
            with suppress(QueueError):  # who waits looks into the store in a few seconds
                await self.queue.announce_final(pending.tenant, pending.request_id)
        return True

    async def _count_late(self, pending: PendingRequest, now: datetime) -> None:
        is_late = now - pending.received_at > self.deadline
        if not is_late or pending.timed_out:
            return
        if await self.evidence.mark_timeout(pending, actor=ACTOR):
            self._count(pending, "timeout")

    def _count(self, pending: PendingRequest, outcome: str) -> None:
        self.metrics.ended(pending.model, outcome, was_counted=pending.was_counted)

    async def _submit(self, left: Sequence[PendingRequest]) -> int | None:
        """How many the queue took; None when it is away, until the next sweep."""
        if self.queue is None:
            return None
        try:
            lost = await self.queue.lacking([_job(pending) for pending in left])
            taken = [
                await self._submit_all(self.queue, [job for job in lost if job.priority == each])
                for each in PRIORITIES
            ]
        except QueueAwayError:
            return None
        return sum(taken)

    async def _submit_all(self, queue: JobQueue, jobs: Sequence[Job]) -> int:
        """How many of one priority were taken until there was no room for more."""
        taken = 0
        for start in range(0, len(jobs), AT_ONCE):
            chunk = [queue.submit(job) for job in jobs[start : start + AT_ONCE]]
            answers = await asyncio.gather(*chunk, return_exceptions=True)
            refusals = [answer for answer in answers if isinstance(answer, BaseException)]
            taken += len(answers) - len(refusals)
            if refusals and isinstance(refusals[0], QueueFullError):
                break
            if refusals:
                raise refusals[0]
        return taken


def _ending(record: Record | UnreadableRecord) -> FinalEvent:
    if isinstance(record, UnreadableRecord):
        log.error("record_unreadable", request_id=record.request_id, reason=record.reason)
        return unreadable_final(record, actor=ACTOR)
    hours = GIVE_UP // timedelta(hours=1)
    reason = f"no worker explained it within {hours} hours"
    return failed_final(record, reason, outcome="dead", actor=ACTOR)


def _job(pending: PendingRequest) -> Job:
    return Job(
        tenant=pending.tenant,
        request_id=pending.request_id,
        model=pending.model,
        version=pending.version,
        digest=pending.model_digest,
        priority=pending.priority,
        received_us=microseconds(pending.received_at),
        method=pending.method,
        trace_id=pending.trace_id,
    )
