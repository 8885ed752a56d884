"""Queued explanations of requests that may wait: handed to workers, and picked up again."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import orjson

from service import answers
from service.answers import Fragments
from service.evidence import DecisionEvent, EvidenceError, EvidenceLog, Record, StoredDecision
from service.logs import log
from service.metrics import Metrics
from service.queue import Job, JobQueue, QueueError

SETTLE_SECONDS = 2.0
"""How long a repetition waits for the first answer's fate, and no longer than that answer waits."""

POLL_SECONDS = 0.05

LEFT_SECONDS = 5.0
"""What the queue did not take is left to the outbox, which queues it no sooner than that."""


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

    @property
    def is_full(self) -> bool:
        """The queue takes no more; what would be queued is shed."""
        return self.queue is not None and self.queue.depth >= self.max_queue

    @property
    def is_queue_away(self) -> bool:
        """Pending explanations wait in the evidence store."""
        return self.queue is not None and not self.queue.is_available

    async def submit(self, job: Job) -> bool:
        """Queue a job whose record is durable; False: it is left to the outbox."""
        if self.queue is None:
            return False
        try:
            await self.queue.submit(job)
        except QueueError as error:
            self.metrics.errors.labels(job.model, "queue", type(error).__name__).inc()
            log.warning("explanation_left_pending", request_id=job.request_id, reason=str(error))
            return False
        return True

    async def deliver(self, event: DecisionEvent, job: Job, seconds: float) -> bytes | None:
        """Queue a job and return the answer with its explanation, if it is final in time.

        What the queue did not take is waited for only as far as the outbox may help in time.
        """
        if seconds <= 0 or self.queue is None:
            await self.submit(job)
            return None
        deadline = monotonic() + seconds
        async with self.queue.notices.waiting(job.tenant, job.request_id) as waiting:
            if not await self.submit(job) and seconds <= LEFT_SECONDS:
                return None
            if not await waiting.wait(deadline - monotonic()):
                return None
        try:
            record = await self.evidence.record(job.tenant, job.request_id)
            if record is None or record.final is None:
                return None
            # A repetition must get these bytes again, so that they went out is stored first.
            await self.evidence.mark_answered(event)
        except EvidenceError as error:
            log.warning("explanation_not_delivered", request_id=job.request_id, reason=str(error))
            return None
        return final_answer(record)

    async def first_answer(self, record: Record) -> bytes | None:
        """The bytes the first answer to a stored request had; None while it still waits."""
        decision = record.decision
        if decision.status != "pending":
            return decision.part("answer")
        deadline = monotonic() + SETTLE_SECONDS
        current: Record | None = record
        while current is not None:
            if current.answered_final:
                return final_answer(current)
            if datetime.now(UTC) > _answer_by(decision.part("ask")):
                return decision.part("answer")
            if monotonic() > deadline:
                return None
            await asyncio.sleep(POLL_SECONDS)
            current = await self.evidence.record(decision.tenant, decision.request_id)
        return None


def job_of(
    event: DecisionEvent | StoredDecision,
    digest: str,
    *,
    priority: answers.Priority,
    method: str | None = None,
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


def _answer_by(ask: bytes) -> datetime:
    by: str | None = orjson.loads(ask)["answer_by"]
    return datetime.min.replace(tzinfo=UTC) if by is None else datetime.fromisoformat(by)
