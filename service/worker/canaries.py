"""Checks of inline explanations by a second engine: counted, and stored nowhere."""

from collections.abc import Callable
from dataclasses import dataclass, field

from service.canary import Check, Opinion
from service.logs import log
from service.metrics import ModelMetrics
from service.queue import Job
from service.registry.errors import GoldenMismatchError
from service.worker.work import Ending, GivenUp


def count_refusal(metrics: ModelMetrics, kind: str) -> None:
    """Count a version that is there but was not loaded, by the error for which it was refused."""
    metrics.errors("load", kind).inc()
    if kind == GoldenMismatchError.__name__:
        metrics.invariant_failures["golden"].inc()


@dataclass(slots=True, eq=False)
class CanaryAssignment:
    """One complete record that is to be checked."""

    job: Job
    method: str
    check: Check
    metrics_of: Callable[[str, str], ModelMetrics]
    task: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.task = self.check.to_bytes()

    def refused(self, kind: str) -> None:
        """Count a version that this worker's registry has and refuses."""
        count_refusal(self.metrics_of(self.job.model, self.method), kind)

    async def store(self, ending: Ending) -> None:
        """Count what the second engine said; what it did not agree with is told by request ID, so
        that somebody replays it.
        """
        metrics = self.metrics_of(self.job.model, self.method)
        facts = {"tenant": self.job.tenant, "request_id": self.job.request_id}
        if isinstance(ending, GivenUp):
            metrics.errors("explain", "CanaryGaveUp").inc()
            log.warning("canary_gave_up", reason=ending.reason, **facts)
            return
        metrics.cpu_seconds["quality"].inc(ending.cpu_seconds)
        opinion = Opinion.from_bytes(ending.body)
        metrics.canary_gap.observe(opinion.gap)
        if not opinion.agrees:
            metrics.invariant_failures["canary"].inc()
            log.error("canary_disagrees", gap=opinion.gap, engine=opinion.engine, **facts)
