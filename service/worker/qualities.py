"""Explanations whose quality is measured: counted, and stored nowhere."""

from collections.abc import Callable
from dataclasses import dataclass, field

from service.logs import log
from service.metrics import QUALITY_MEASURES, ModelMetrics
from service.quality import Findings, Sample
from service.queue import Job
from service.worker.canaries import count_refusal
from service.worker.work import Ending, GivenUp

LANE = "quality"


@dataclass(slots=True, eq=False)
class QualityAssignment:
    """One row of a complete record, to be measured."""

    job: Job
    sample: Sample
    metrics_of: Callable[[str, str], ModelMetrics]
    task: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.task = self.sample.to_bytes()

    def refused(self, kind: str) -> None:
        """Count a version that this worker's registry has and refuses."""
        count_refusal(self._metrics, kind)

    @property
    def _metrics(self) -> ModelMetrics:
        return self.metrics_of(self.job.model, self.sample.method)

    async def store(self, ending: Ending) -> None:
        """Count what was found and what it cost. A value below its target is no error: rules judge
        the distribution.
        """
        metrics = self._metrics
        if isinstance(ending, GivenUp):
            facts = {"tenant": self.job.tenant, "request_id": self.job.request_id}
            log.warning("quality_not_measured", reason=ending.reason, **facts)
            for measure in QUALITY_MEASURES:
                metrics.quality_samples[measure, "failed"].inc()
            return
        findings = Findings.from_bytes(ending.body)
        for measure, finding in findings.found.items():
            metrics.quality_samples[measure, finding.outcome].inc()
            if finding.value is not None:
                metrics.quality[measure].observe(finding.value)
        metrics.cpu_seconds[LANE].inc(findings.cpu_seconds)
        metrics.model_evaluations[LANE].inc(findings.model_evaluations)
