"""The work there is in an evidence store: pending records in, final explanations out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from prometheus_client import CollectorRegistry

from service.endings import failed_final
from service.errors import UnavailableError
from service.evidence import EvidenceError, EvidenceLog, FinalOutcome, Record
from service.metrics import ROLE, Metrics, ModelMetrics
from service.queue import Job
from service.secrets import Keyring
from service.settings import Settings
from service.tasks import Finished as Result
from service.tasks import count_finished, final_event, task_of
from service.worker.work import Absent, Assignment, Ending, GivenUp


@dataclass(slots=True, eq=False)
class RecordedWork:
    """Opened by one worker process, closed by it."""

    evidence: EvidenceLog
    keyring: Keyring
    metrics: Metrics
    worker: str
    environment: Mapping[str, str]
    function: str = "service.computing:compute_task"
    bound: Callable[[str, str], ModelMetrics] = field(init=False)

    def __post_init__(self) -> None:
        self.bound = lru_cache(maxsize=256)(self.metrics.bind)

    @classmethod
    async def open(cls, settings: Settings, registry: CollectorRegistry, worker: str) -> Self:
        """Raises UnavailableError when the evidence store or the secret is out of reach."""
        keyring = Keyring.open(settings.secret_file)
        try:
            evidence = await EvidenceLog.open(settings.database_url)
        except EvidenceError as error:
            raise UnavailableError(f"evidence store: {error}") from error
        environment = {
            "EXPLAIND_DATA_DIR": str(settings.data_dir.absolute()),
            "EXPLAIND_REGISTRY": str(settings.registry.absolute()),
        }
        return cls(evidence, keyring, Metrics(registry), worker, environment)

    async def fetch(self, jobs: Sequence[Job]) -> Sequence[Assignment | Absent]:
        """What is to be done for each job, from its record. Raises StoreUnavailableError."""
        records = await self.evidence.records([job.key for job in jobs])
        found = {(one.decision.tenant, one.decision.request_id): one for one in records}
        return [self._assigned(found.get(job.key)) for job in jobs]

    def _assigned(self, record: Record | None) -> "RecordedAssignment | Absent":
        if record is None:
            return Absent.UNKNOWN
        if not record.is_pending:
            return Absent.FINAL
        task = task_of(record, self.keyring, worker=self.worker)
        return RecordedAssignment(record, self, task.to_bytes())

    async def close(self) -> None:
        """Let go of the evidence store."""
        await self.evidence.close()


@dataclass(frozen=True, slots=True, eq=False)
class RecordedAssignment:
    """One pending record."""

    record: Record
    work: RecordedWork
    task: bytes

    async def store(self, ending: Ending) -> None:
        """Return once the end is durable; count it if this call stored it first."""
        if isinstance(ending, GivenUp):
            await self._give_up(ending)
            return
        result = Result.from_bytes(ending.body)
        outcome = await self.work.evidence.append_final(final_event(self.record, result))
        if outcome.stored:
            count_finished(
                self._metrics(result.method),
                result,
                seconds=self._age_seconds(),
                is_counted=outcome.counted,
            )

    async def _give_up(self, ending: GivenUp) -> None:
        event = failed_final(
            self.record, ending.reason, outcome=ending.outcome, actor=self.work.worker
        )
        self._count(await self.work.evidence.append_final(event), ending.outcome)

    def _count(self, outcome: FinalOutcome, ending: str) -> None:
        model = self.record.decision.model
        if outcome.counted:
            self.work.metrics.explanations.labels(model, ROLE, "queued", ending).inc()
        if outcome.stored:
            self.work.metrics.errors.labels(model, "explain", "worker").inc()

    def _metrics(self, method: str) -> ModelMetrics:
        return self.work.bound(self.record.decision.model, method)

    def _age_seconds(self) -> float:
        return (datetime.now(UTC) - self.record.decision.received_at).total_seconds()
