"""A worker's work in this service: explanations of pending records, into the evidence store."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

import orjson
from prometheus_client import CollectorRegistry

from service.audit_counts import CommitCounts
from service.canary import Check
from service.drift.explained import ExplainedTap
from service.drift.keeping import keeping
from service.drift.tallying import Tallies
from service.endings import failed_final, unreadable_final
from service.errors import CommandError
from service.evidence import (
    EvidenceError,
    EvidenceLog,
    FinalEvent,
    Record,
    UnreadablePayloadError,
    UnreadableRecord,
)
from service.logs import log, place_of
from service.metrics import Metrics, ModelMetrics
from service.provenance import Taken
from service.quality import QualitySampling, Sample
from service.queue import Claim, Job, JobQueue
from service.registry.described import describe_version
from service.registry.layout import Layout
from service.secrets import Keyring
from service.settings import KEY_ENCRYPTION_KEY, Settings
from service.storing import evidence_log
from service.tasks import Finished, count_finished, final_event, task_of
from service.worker.canaries import CanaryAssignment, count_refusal
from service.worker.qualities import QualityAssignment
from service.worker.work import Absent, Ending, Fetched, GivenUp, Uncomputable

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
        self.tap: ExplainedTap | None = None
        self.environment = environment
        self._opened = opened
        self.quality: QualitySampling | None = None
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
        tallies = Tallies(metrics.drift.on_dropped)
        await opened.enter_async_context(keeping(evidence.store, tallies))
        # For a child, which reads the settings anew and opens no payloads.
        environment = {**settings.environment(), KEY_ENCRYPTION_KEY: ""}
        layout = Layout(settings.registry)
        work = cls(evidence, keyring, metrics, worker, environment=environment, opened=opened)
        bind_serving(metrics, layout)
        work.tap = ExplainedTap(tallies, layout)
        work.quality = await _sampling(settings, keyring, opened)
        return work

    async def fetch(self, claims: Sequence[Claim]) -> list[Fetched]:
        """What is to be explained for each job: nothing any more where there is a final event."""
        found = await self._evidence.records([claim.job.key for claim in claims])
        records = {record.key: record for record in found}
        return [self._assignment(claim, records.get(claim.job.key)) for claim in claims]

    async def close(self) -> None:
        """Let in-flight results reach the disk."""
        if self._opened is not None:
            await self._opened.aclose()

    def _assignment(self, claim: Claim, record: Record | UnreadableRecord | None) -> Fetched:
        if record is None:
            return Absent.UNKNOWN
        if isinstance(record, UnreadableRecord):
            return self._ended(claim, record)
        job, decision = claim.job, record.decision
        if record.status != ("pending" if job.kind == "explanation" else "complete"):
            return Absent.FINAL
        try:
            _check_job(job, record)
            return self._understood(claim, record)
        except (KeyError, ValueError) as error:
            log.error(
                "record_not_understood", request_id=decision.request_id, place=place_of(error)
            )
            return Absent.UNKNOWN

    def _understood(self, claim: Claim, record: Record) -> Fetched:
        job = claim.job
        if job.kind == "canary":
            return CanaryAssignment(job, _method(record), Check.of(record), self._metrics_of)
        if job.kind == "quality":
            sample = Sample.of(record, _method(record), self._keyring)
            if sample is None:
                return Absent.FINAL
            return QualityAssignment(job, sample, self._metrics_of)
        return self._explanation(claim, record)

    def _ended(self, claim: Claim, record: UnreadableRecord) -> Fetched:
        job = claim.job
        log.error("record_unreadable", request_id=job.request_id, reason=record.reason)
        self._metrics.errors.labels(job.model, "store", UnreadablePayloadError.__name__).inc()
        if job.kind != "explanation" or not record.is_pending:
            return Absent.FINAL
        ending = UnreadableAssignment(self._evidence, record, self._metrics)
        return Uncomputable(ending, record.reason)

    def _explanation(self, claim: Claim, record: Record) -> "ExplanationAssignment":
        queued = time.time() - claim.queued_ms / 1000
        taken = Taken(self._worker, claim.deliveries, round(max(0.0, queued), 3))
        task = task_of(record, self._keyring, taken=taken).to_bytes()
        return ExplanationAssignment(
            *(self._evidence, claim.job, record, taken, task, self._metrics, self._metrics_of),
            tap=self.tap,
            quality=self.quality,
        )


def bind_serving(metrics: Metrics, layout: Layout) -> None:
    """Make the series of every serving version, so that the first job's counts are a rate too."""
    for name in layout.names():
        with suppress(CommandError, ValueError):
            version = layout.serving(name)
            if version is not None:
                explainer = describe_version(layout, name, version).manifest.explainer
                metrics.bind(name, explainer.method or "none")


async def _sampling(
    settings: Settings, keyring: Keyring, opened: AsyncExitStack
) -> QualitySampling | None:
    if settings.redis_url is None:
        return None
    queue = await JobQueue.open(settings.redis_url, max_queue=settings.max_queue)
    opened.push_async_callback(queue.close)
    return QualitySampling(queue, keyring, settings.quality_share, settings.quality_per_minute)


def _check_job(job: Job, record: Record) -> None:
    """ValueError for a job of another version, or method, than its record's.

    A job is a hint, the record the truth: what was queued before a database was restored is not
    computed. The outbox queues the right one.
    """
    decision = record.decision
    ask = orjson.loads(decision.part("ask")) if "ask" in decision.parts else {"method": None}
    digest = orjson.loads(decision.part("model"))["digest"]
    named = (job.model, job.version, job.digest, job.method)
    if named != (decision.model, decision.version, digest, ask["method"]):
        raise ValueError("the job names another version or method than its record")


def _method(record: Record) -> str:
    method: str | None = orjson.loads(record.decision.header)["method"]
    return method or "none"


@dataclass(frozen=True, slots=True, eq=False)
class UnreadableAssignment:
    """The end of a request whose record cannot be read."""

    evidence: EvidenceLog
    record: UnreadableRecord
    metrics: Metrics
    task: bytes = b""

    def refused(self, kind: str) -> None:
        """No version is looked for."""

    async def store(self, _: Ending) -> None:
        """As `ExplanationAssignment.store`."""
        event = unreadable_final(self.record, actor="worker")
        outcome = await self.evidence.append_final(event)
        if outcome.counted:
            was_counted = self.record.was_counted
            self.metrics.ended(event.template.model, event.outcome, was_counted=was_counted)


@dataclass(slots=True, eq=False)
class ExplanationAssignment:
    """One pending record, and its task as the child gets it."""

    evidence: EvidenceLog
    job: Job
    record: Record
    taken: Taken
    task: bytes
    metrics: Metrics
    metrics_of: Callable[[str, str], ModelMetrics]
    tap: ExplainedTap | None = None
    quality: QualitySampling | None = None
    _event: FinalEvent | None = field(default=None, init=False)

    def refused(self, kind: str) -> None:
        """Count a version that this worker's registry has and refuses."""
        count_refusal(self.metrics_of(self.job.model, _method(self.record)), kind)

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
            if self._event.status == "complete":
                await self._have_measured()

    async def _have_measured(self) -> None:
        """Queue a job for the quality of this explanation, if it is one of the sample."""
        if self.quality is not None and self.quality.takes(*self.job.key):
            await self.quality.submit(self.job)

    def _made(self, ending: Ending) -> FinalEvent:
        if isinstance(ending, GivenUp):
            return failed_final(
                self.record,
                ending.reason,
                outcome=ending.outcome,
                actor="worker",
                taken=self.taken,
            )
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
        count_finished(metrics, finished, lane="queued" if self.record.was_counted else "bulk")
        if self._is_seen(finished):
            assert self.tap is not None
            self.tap.see(model, event.template.version, finished.explanation)
        if is_first and finished.status == "complete":
            seconds = (datetime.now(UTC) - event.received_at).total_seconds()
            metrics.duration["queued"].observe(seconds, self._exemplar)

    def _is_seen(self, finished: Finished) -> bool:
        """It tells of live requests what the version's own explainer says."""
        is_own = self.job.method is None and finished.status == "complete"
        return self.tap is not None and is_own and self.record.was_counted

    @property
    def _exemplar(self) -> dict[str, str]:
        exemplar = {"request_id": self.job.request_id}
        if self.job.trace_id is not None:
            exemplar["trace_id"] = self.job.trace_id
        return exemplar
