"""The models being served: loaded, bound to metrics, and following the registry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Self

from schemas import DecodedBody
from service.answers import AnswerTemplates
from service.drift.baseline import Baseline
from service.drift.tallying import Tallies, Tap
from service.errors import CommandError, ModelDisabledError, NotFoundError
from service.evidence import HeaderConstants, HeaderTemplate
from service.logs import log
from service.metrics import Metrics, ModelMetrics
from service.policies import Policies
from service.policy import DEFAULT_REVIEW, ModelPolicy, Retention, hidden_columns
from service.privacy import Screening
from service.registry import RegisteredModel, Registry
from service.registry.errors import GoldenMismatchError
from service.registry.libraries import git_revision, installed_libraries, service_version

RETRY_SECONDS = 30.0
"""A refused version is tried again after this long: its files may have been repaired."""

NOT_SERVED = "no model of this name is served"

UNREADABLE = 0
"""Stands for the version of a name whose `serving` file names none."""


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
        tap: Tap | None = None,
    ) -> Self:
        """Bind a loaded version."""
        method = model.manifest.explainer.method or "none"
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
            *(model, AnswerTemplates.of(model), header, metrics.bind(model.name, method)),
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


def header_constants(  # noqa: PLR0913  # what differs between the headers of one version
    model: RegisteredModel,
    *,
    method: str | None,
    engine: str | None,
    is_exact: bool | None,
    policy_version: str | None,
    retention_class: str,
    config_digest: str | None = None,
) -> HeaderConstants:
    """What the headers of a version's decisions, or explanations by one method, have in common.

    config_digest: of a method other than the version's own.
    """
    manifest = model.manifest
    explainer, artifact = manifest.explainer, manifest.artifact
    return HeaderConstants(
        service_version=service_version(),
        git_revision=git_revision(),
        policy_version=policy_version,
        retention_class=retention_class,
        model=manifest.name,
        version=manifest.version,
        model_digest=model.digest,
        artifact_digest=artifact.digest,
        artifact_format=artifact.format,
        schema_digest=manifest.schema_digest,
        feature_names_digest=manifest.feature_names_digest,
        category_maps_digest=manifest.category_map_digest,
        trees_used=artifact.trees_used,
        library_versions=installed_libraries(),
        method=method,
        engine=engine,
        config_digest=config_digest or explainer.config_digest,
        background_digest=manifest.background.digest,
        output_space=explainer.output_space,
        link=explainer.link,
        exact=is_exact,
    )


class ServedModels:
    """The serving version of every registered name.

    A request takes one ServedModel and keeps it: a swap in between changes the next request.
    """

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        *,
        default: str | None,
        retention_days: int,
        policies: Policies | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        self.registry = registry
        self._tallies = tallies
        self._metrics = metrics
        self.default = default
        self._retention_days = retention_days
        self._served: dict[str, ServedModel] = {}
        self._refused: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}
        self._policies = policies
        self._disabled: frozenset[str] = frozenset()
        self._names: tuple[str, ...] = ()

    @property
    def all(self) -> Mapping[str, ServedModel]:
        """Name to served version."""
        return self._served

    @property
    def refused(self) -> Mapping[str, int]:
        """Names whose serving version could not be loaded; an older one may be answering."""
        return self._refused

    @property
    def disabled(self) -> Collection[str]:
        """Registered names that nobody may call for now."""
        return self._disabled

    @property
    def policy_troubles(self) -> Mapping[str, Sequence[str]]:
        """What of the policy file is not in force: sections of models that are not registered, and
        models that keep older rules because they do not fit the new ones.
        """
        if self._policies is None:
            return {}
        troubles = {
            "unknown_policy_models": self._policies.unknown_models(self._names),
            "policy_misfits": sorted(self._policies.misfits),
        }
        return {name: models for name, models in troubles.items() if models}

    def hidden(self, name: str, roles: Sequence[str], columns: Collection[str]) -> frozenset[str]:
        """Which columns of a model callers of these roles may not see; without a policy file no
        role is known, and what is not known may see nothing.
        """
        served = self._served.get(name)
        if self._policies is None:
            return hidden_columns({}, roles, columns)
        if served is None or served.policy is None:
            return self._policies.hidden(name, roles, columns)
        return hidden_columns(served.policy.masks, roles, columns)

    def review_size(self, name: str) -> int:
        """How many requests of a model, disabled or not, are listed for review; NotFoundError."""
        if name not in self._served and name not in self._disabled:
            raise NotFoundError(NOT_SERVED)
        return DEFAULT_REVIEW if self._policies is None else self._policies.review_size(name)

    def bound_to(self, metrics: Metrics) -> "ServedModels":
        """The same loaded versions, counted elsewhere; it follows the registry only if asked to."""
        twin = ServedModels(
            self.registry,
            metrics,
            default=self.default,
            retention_days=self._retention_days,
        )
        twin._served = {
            name: ServedModel.of(
                served.model,
                metrics,
                retention_days=self._retention_days,
                policy=served.policy,
            )
            for name, served in self._served.items()
        }
        return twin

    def resolve(self, name: str | None) -> ServedModel:
        """The version that answers for a name, or for /predict; NotFoundError says what to do."""
        if name is None:
            return self._resolve_default()
        served = self._served.get(name)
        if served is None:
            if name in self._disabled:
                raise ModelDisabledError(f"`explaind models enable {name}` lets it answer again")
            raise NotFoundError(NOT_SERVED)
        return served

    def _resolve_default(self) -> ServedModel:
        if self.default is not None:
            return self.resolve(self.default)
        # A disabled model counts: switching one of two off must not hand its callers to the other.
        names = self._served.keys() | self._disabled
        if len(names) == 1:
            return self.resolve(next(iter(names)))
        if not names:
            raise NotFoundError("no model is registered yet; `explaind register` makes one")
        raise NotFoundError(
            "several models are served and none is the default: "
            "use /models/{name}/predict, or set EXPLAIND_MODEL"
        )

    def refresh(self) -> None:
        """Load every serving version that changed, and a changed policy. What fails leaves the old
        version, or policy, in force.
        """
        self._follow_policy()
        layout = self.registry.layout
        registered = layout.names()
        disabled = frozenset(name for name in registered if layout.is_disabled(name))
        names = [name for name in registered if name not in disabled]
        self._names, self._disabled = tuple(registered), self._disabled | disabled
        for name in [name for name in self._served if name not in names]:
            self._retire(self._served[name])
            self._served = {k: v for k, v in self._served.items() if k != name}
            log.info("model_withdrawn", model=name, is_disabled=name in disabled)
        for name in names:
            try:
                self._follow(name)
            except (CommandError, ValueError) as error:
                self._refuse(name, UNREADABLE, error)
        self._disabled = disabled  # not before those enabled again are there to answer
        self._refused = {k: v for k, v in self._refused.items() if k in names}

    def _follow_policy(self) -> None:
        if self._policies is None:
            return
        changed = self._policies.changed([served.model for served in self._served.values()])
        if changed is None:
            return
        self._served = {
            name: self._bound(served.model, changed[name]) if name in changed else served
            for name, served in self._served.items()
        }
        self._retry_at.clear()  # what was refused for the old rules may fit these

    def _bound(self, model: RegisteredModel, policy: ModelPolicy | None) -> ServedModel:
        return ServedModel.of(
            model,
            self._metrics,
            retention_days=self._retention_days,
            policy=policy,
            tap=self._tap(model),
        )

    def _tap(self, model: RegisteredModel) -> Tap | None:
        if self._tallies is None:
            return None
        facts = {"model": model.name, "version": model.version}
        try:
            baseline = Baseline.read(self.registry.layout, model.name, model.version)
        except CommandError as error:
            log.error("drift_off", reason=str(error), **facts)
            return None
        if baseline.without_attributions is not None:
            log.info("attribution_drift_off", reason=baseline.without_attributions, **facts)
        return Tap(self._tallies, baseline)

    def _follow(self, name: str) -> None:
        version = self.registry.layout.serving(name)
        old = self._served.get(name)
        if version is None or (old is not None and old.model.version == version):
            self._refused.pop(name, None)
        elif self._refused.get(name) != version or monotonic() > self._retry_at.get(name, 0.0):
            self._load(name, version)

    def _load(self, name: str, version: int) -> None:
        try:
            model = self.registry.load(name, version)
            policy = None if self._policies is None else self._policies.of(model)
        except (CommandError, ValueError) as error:
            self._refuse(name, version, error)
            return
        served = self._bound(model, policy)
        old = self._served.get(name)
        # A new dictionary each time: requests iterate over the one they hold.
        self._served = {**self._served, name: served}
        self._refused.pop(name, None)
        if old is not None:
            self._retire(old)
        self._metrics.model_info.labels(*_info(served)).set(1)
        log.info("model_served", model=name, version=version, digest=model.digest)

    def _refuse(self, name: str, version: int, error: Exception) -> None:
        self._retry_at[name] = monotonic() + RETRY_SECONDS
        if self._refused.get(name) == version:
            return
        log.error("model_refused", model=name, version=version, error=str(error))
        self._metrics.errors.labels(name, "load", type(error).__name__).inc()
        if isinstance(error, GoldenMismatchError):
            self._metrics.invariant_failures.labels(name, error.method, "golden").inc()
        self._refused[name] = version

    def _retire(self, served: ServedModel) -> None:
        self._metrics.model_info.remove(*_info(served))


def _info(served: ServedModel) -> tuple[str, str, str, str, str]:
    model = served.model
    method = model.manifest.explainer.method or "none"
    return model.name, str(model.version), "serving", method, model.digest
