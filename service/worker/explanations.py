"""A worker's work in this service: explanations of pending records, into the evidence store."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from prometheus_client import CollectorRegistry

from service.endings import failed_final
from service.evidence import EvidenceError, EvidenceLog, FinalEvent, Record
from service.logs import log, place_of
from service.metrics import CommitCounts, Metrics, ModelMetrics
from service.queue import Job
from service.secrets import Keyring
from service.settings import KEY_ENCRYPTION_KEY, Settings
from service.storing import evidence_log
from service.tasks import Finished, count_finished, final_event, task_of
from service.worker.work import Absent, Ending, GivenUp

MODELS_BOUND = 64


class ExplanationWork:
    """Fetches records, and stores final explanations with their outcome."""

    function = "service.computing:compute_task"

    def __init__(
        self,
        evidence: EvidenceLog,
        keyring: Keyring,
        metrics: Metrics,
        worker: str,
        *,
        environment: Mapping[str, str],
        opened: AsyncExitStack | None = None,
    ) -> None:
        self.environment = environment
        self._opened = opened
        self._evidence = evidence
        self._keyring = keyring
        self._worker = worker
        self._metrics = metrics
        self._metrics_of = lru_cache(MODELS_BOUND)(metrics.bind)

    @classmethod
    async def open(cls, settings: Settings, registry: CollectorRegistry, worker: str) -> Self:
        """Over the same database and secret as the API's. Raises UnavailableError."""
        metrics = Metrics(registry)
        keyring = Keyring.open(settings.secret_file)
        opened = AsyncExitStack()
        log_of_settings = evidence_log(settings, observer=CommitCounts(metrics))
        evidence = await opened.enter_async_context(log_of_settings)
        # For a child, which reads the settings anew and opens no payloads.
        environment = {**settings.environment(), KEY_ENCRYPTION_KEY: ""}
        facts = evidence, keyring, metrics, worker
        return cls(*facts, environment=environment, opened=opened)

    async def fetch(self, jobs: Sequence[Job]) -> list["ExplanationAssignment | Absent"]:
        """What is to be explained for each job: nothing any more where there is a final event."""
        records = {
            (record.decision.tenant, record.decision.request_id): record
            for record in await self._evidence.records([job.key for job in jobs])
        }
        return [self._assignment(job, records.get(job.key)) for job in jobs]

    async def close(self) -> None:
        """Let in-flight results reach the disk."""
        if self._opened is not None:
            await self._opened.aclose()

    def _assignment(self, job: Job, record: Record | None) -> "ExplanationAssignment | Absent":
        if record is None:
            return Absent.UNKNOWN
        if not record.is_pending:
            return Absent.FINAL
        try:
            task = task_of(record, self._keyring, worker=self._worker)
        except (KeyError, ValueError) as error:
            request_id = record.decision.request_id
            log.error("record_not_understood", request_id=request_id, place=place_of(error))
            return Absent.UNKNOWN
        task_bytes, metrics = task.to_bytes(), self._metrics
        return ExplanationAssignment(
            self._evidence, job, record, task_bytes, metrics, self._metrics_of
        )


@dataclass(slots=True, eq=False)
class ExplanationAssignment:
    """One pending record, and its task as the child gets it."""

    evidence: EvidenceLog
    job: Job
    record: Record
    task: bytes
    metrics: Metrics
    metrics_of: Callable[[str, str], ModelMetrics]
    _event: FinalEvent | None = field(default=None, init=False)

    async def store(self, ending: Ending) -> None:
        """Store the end with its outcome, both or none, and count it if nobody had.

        Raises StoreUnavailableError or StoreBusyError: called again, it stores the same event.
        """
        if self._event is None:
            self._event = self._made(ending)
        try:
            outcome = await self.evidence.append_final(self._event)
        except EvidenceError as error:
            kind = type(error).__name__
            self.metrics.errors.labels(self.job.model, "store", kind).inc()
            raise
        if outcome.stored:  # else another worker's result or a cancellation was, and is counted
            self._count(ending, self._event, is_first=outcome.counted)

    def _made(self, ending: Ending) -> FinalEvent:
        if isinstance(ending, GivenUp):
            return failed_final(self.record, ending.reason, outcome=ending.outcome, actor="worker")
        return final_event(self.record, Finished.from_bytes(ending.body))

    def _count(self, ending: Ending, event: FinalEvent, *, is_first: bool) -> None:
        """is_first False: how it ended was known before (a timeout), so only its cost counts."""
        model = event.template.model
        if is_first:
            self.metrics.ended(model, event.outcome, was_counted=self.record.was_counted)
        if isinstance(ending, GivenUp):
            self.metrics.errors.labels(model, "explain", "WorkerGaveUp").inc()
            return
        finished = Finished.from_bytes(ending.body)
        metrics = self.metrics_of(model, finished.method)
        count_finished(metrics, finished)
        if is_first and finished.status == "complete":
            seconds = (datetime.now(UTC) - event.received_at).total_seconds()
            metrics.duration["queued"].observe(seconds, self._exemplar)

    @property
    def _exemplar(self) -> dict[str, str]:
        exemplar = {"request_id": self.job.request_id}
        if self.job.trace_id is not None:
            exemplar["trace_id"] = self.job.trace_id
        return exemplar
