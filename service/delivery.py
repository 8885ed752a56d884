"""Queued explanations of requests that may wait: handed to workers, and picked up again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic

import orjson

from service import answers
from service.answers import Fragments
from service.evidence import DecisionEvent, EvidenceError, EvidenceLog, Record, StoredDecision
from service.logs import log
from service.metrics import Metrics
from service.quality import QualitySampling
from service.queue import Job, JobQueue, QueueAwayError, QueueError, Waiting

SETTLE_SECONDS = 2.0
"""How long a repetition waits for the first answer's fate, and no longer than that answer waits."""

POLL_SECONDS = 0.05
STOP_SECONDS = 1.0
"""Between two looks, while an answer waits, whether the service stops."""


@dataclass(slots=True, eq=False)
class Delivery:
    """Hands queued explanations over after their record is durable, and waits for the result.

    Nothing here fails a request: what the queue does not take stays pending in the evidence store,
    from where the outbox queues it again. queue None: nothing is handed over.
    """

    queue: JobQueue | None
    evidence: EvidenceLog
    metrics: Metrics
    max_queue: int = 10_000
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    quality: QualitySampling | None = None

    @property
    def is_full(self) -> bool:
        """The queue takes no more; what would be queued is shed."""
        return self.queue is not None and self.queue.depth >= self.max_queue

    @property
    def is_queue_away(self) -> bool:
        """Pending explanations wait in the evidence store."""
        return self.queue is not None and not self.queue.is_available

    async def submit(self, job: Job) -> bool:
        """Queue a job whose record is durable; False when the queue does not take it now.

        A queue that is there but did not answer in time may have it, or be given it again soon.
        """
        if self.queue is None:
            return False
        try:
            await self.queue.submit(job)
        except QueueError as error:
            self.metrics.errors.labels(job.model, "queue", type(error).__name__).inc()
            log.warning("explanation_left_pending", request_id=job.request_id, reason=str(error))
            return isinstance(error, QueueAwayError) and self.queue.is_available
        return True

    async def submit_canary(self, event: DecisionEvent, digest: str) -> None:
        """Queue a check of an inline explanation, while the queue is at most half full: checks are
        never in the way of explanations, and one that is lost is no loss.
        """
        if self.queue is None or 2 * self.queue.depth > self.max_queue:
            return
        job = replace(job_of(event, digest, priority="low"), kind="canary")
        with suppress(QueueError):
            await self.queue.submit(job)

    def measures(self, tenant: str, request_id: str) -> bool:
        """The quality of this explanation is to be measured."""
        return self.quality is not None and self.quality.takes(tenant, request_id)

    async def submit_quality(self, event: DecisionEvent, digest: str) -> None:
        """Queue the measuring of an inline explanation that `measures` took."""
        if self.quality is not None:
            await self.quality.submit(job_of(event, digest, priority="low"))

    async def deliver(self, event: DecisionEvent, job: Job, seconds: float) -> bytes | None:
        """Queue a job and return the answer with its explanation, if it is final in time.

        A job that the queue does not take is not waited for.
        """
        if seconds <= 0 or self.queue is None:
            await self.submit(job)
            return None
        deadline = monotonic() + seconds
        async with self.queue.notices.waiting(job.tenant, job.request_id) as waiting:
            if not await self.submit(job):
                return None
            try:
                record = await self._final(job, waiting, deadline)
                if record is None:
                    return None
                # A repetition must get these bytes again, so that they go out is stored first.
                if not await self.evidence.mark_answered(event, "final"):
                    return None  # a repetition that came late has been told it is pending
            except EvidenceError as error:
                reason = str(error)
                log.warning("explanation_not_delivered", request_id=job.request_id, reason=reason)
                return None
        return final_answer(record)

    async def _final(self, job: Job, waiting: Waiting, deadline: float) -> Record | None:
        """The record once it is final, None if it is not by the deadline or the service stops."""
        while (left := deadline - monotonic()) > 0 and not self.is_stopping():
            if not await waiting.wait(min(left, STOP_SECONDS)):
                continue
            # Perhaps announcements were only missed: then there is more to wait for.
            record = await self.evidence.record(job.tenant, job.request_id)
            if record is not None and record.final is not None:
                return record
        return None

    async def first_answer(self, record: Record) -> bytes | None:
        """The bytes the first answer to a stored request had; None while it still waits.

        Whoever stores first what they are decides it, the first answer or its late repetition.
        Raises StoreUnavailableError, StoreBusyError.
        """
        decision = record.decision
        if decision.status != "pending":
            return decision.part("answer")
        answer_by = _answer_by(decision.part("ask"))
        if answer_by is None:  # nothing was waited for
            return decision.part("answer")
        started, longest = monotonic(), (answer_by - decision.received_at).total_seconds()
        current: Record | None = record
        while current is not None:
            if current.answered == "final":
                return final_answer(current)
            waited = monotonic() - started
            if current.answered == "pending":
                return decision.part("answer")
            if datetime.now(UTC) > answer_by or waited > longest:
                await self.evidence.mark_answered(decision, "pending")
            elif waited > SETTLE_SECONDS:
                return None
            else:
                await asyncio.sleep(POLL_SECONDS)
            current = await self.evidence.record(decision.tenant, decision.request_id)
        return None


def job_of(
    event: DecisionEvent | StoredDecision,
    digest: str,
    *,
    priority: answers.Priority,
    method: str | None = None,
    trace_id: str | None = None,
) -> Job:
    """The job of a pending decision; it names the record and carries nothing of it."""
    return Job(
        tenant=event.tenant,
        request_id=event.request_id,
        model=event.template.model,
        version=event.template.version,
        digest=digest,
        priority=priority,
        method=method,
        received_us=round(event.received_at.timestamp() * 1e6),
        trace_id=trace_id,
    )


def final_answer(record: Record) -> bytes:
    """The body of POST /predict with the explanation a worker stored."""
    assert record.final is not None
    decision = record.decision
    fragments = Fragments(
        predictions=decision.part("predictions"),
        warnings=decision.part("warnings"),
        explanation=record.final.part("explanation"),
    )
    answer, _ = answers.encode_answer(decision.part("model"), decision.request_id, fragments)
    return answer


def _answer_by(ask: bytes) -> datetime | None:
    by: str | None = orjson.loads(ask)["answer_by"]
    return None if by is None else datetime.fromisoformat(by)
