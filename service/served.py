"""One version as it is served: everything a request to it touches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from schemas import DecodedBody
from service.answers import AnswerTemplates
from service.drift.tallying import Tap
from service.evidence import HeaderTemplate
from service.metrics import ROLE, Metrics, ModelMetrics
from service.policy import ModelPolicy, Retention
from service.privacy import Screening
from service.provenance import header_constants
from service.registry import RegisteredModel
from service.registry.rollouts import Rollout
from service.trials import Trial, canary_metrics, shadow_metrics

Role = Literal["serving", "shadow", "canary"]


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One version with everything a request to it touches, swapped as a whole."""

    model: RegisteredModel
    templates: AnswerTemplates
    header: HeaderTemplate
    metrics: ModelMetrics
    policy: ModelPolicy | None = None
    screening: Screening | None = None
    """None where no request can hold a text that is not a level of the model's."""
    tap: Tap | None = None
    """Where requests are seen for drift; None where nobody looks."""

    tried: "Tried | None" = None
    """The candidate that is tried beside it, if one is."""

    @property
    def is_candidate(self) -> bool:
        """It is what is tried."""
        return self.tried is not None and self.tried.candidate is self

    @property
    def is_best_effort(self) -> bool:
        """Its predictions are answered whether or not the evidence store takes their record."""
        return self.policy is not None and self.policy.is_best_effort

    @classmethod
    def of(
        cls,
        model: RegisteredModel,
        metrics: Metrics,
        *,
        retention_days: int,
        policy: ModelPolicy | None = None,
        role: Role = ROLE,
        tap: Tap | None = None,
    ) -> Self:
        """Bind a loaded version."""
        method = model.manifest.explainer.method or "none"
        counted = _BOUND[role](metrics, model.name, method)
        said = None if policy is None else policy.retention
        retention = said or Retention.default(retention_days)
        constants = header_constants(
            model,
            method=model.manifest.explainer.method,
            engine=model.engine,
            is_exact=model.is_exact,
            policy_version=None if policy is None else policy.version,
            retention_class=retention.name,
        )
        header = HeaderTemplate.of(constants, retention=retention.period)
        return cls(
            *(model, AnswerTemplates.of(model), header, counted),
            policy=policy,
            screening=Screening.of(model.schema, model.personal_levels, metrics),
            tap=tap,
        )

    def kept(self, body: DecodedBody, instances: bytes) -> tuple[DecodedBody, bytes]:
        """A body and its rows as JSON, as they are stored and shown: without personal data."""
        if self.screening is None:
            return body, instances
        kept = self.screening.kept(body)
        if kept is body:
            return body, instances
        return kept, self.model.codec.instances_json(kept.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A candidate as it is tried: bound for its role, with the counts of both versions."""

    rollout: Rollout
    candidate: ServedModel
    trial: Trial = field(default_factory=Trial)


_BOUND: Mapping[Role, Callable[[Metrics, str, str], ModelMetrics]] = {
    "serving": Metrics.bind,
    "shadow": shadow_metrics,
    "canary": canary_metrics,
}
