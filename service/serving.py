"""The models being served: loaded, bound to metrics, and following the registry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from service.drift.baseline import Baseline
from service.drift.tallying import Tallies, Tap
from service.errors import CommandError, ModelDisabledError, NotFoundError
from service.logs import log
from service.metrics import ROLE, Metrics
from service.policies import Policies
from service.policy import DEFAULT_REVIEW, ModelPolicy, hidden_columns
from service.registry import RegisteredModel, Registry
from service.registry.errors import GoldenMismatchError
from service.registry.rollouts import Rollout, check_same_input, read_rollout
from service.served import ServedModel, Tried
from service.trials import Trial

RETRY_SECONDS = 30.0
"""A refused version is tried again after this long: its files may have been repaired."""

NOT_SERVED = "no model of this name is served"

UNREADABLE = 0
"""Stands for the version of a name whose `serving` file names none."""


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
        self._untried: dict[str, Rollout] = {}

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
                self._follow_rollout(name)
            except (CommandError, ValueError) as error:
                self._refuse(name, UNREADABLE, error)
        self._disabled = disabled  # not before those enabled again are there to answer
        self._refused = {k: v for k, v in self._refused.items() if k in names}

    def is_answering(self, served: ServedModel) -> bool:
        """The version serves, or is tried."""
        current = self._served.get(served.model.name)
        if current is served or current is None or current.tried is None:
            return current is served
        return current.tried.candidate is served

    def _follow_policy(self) -> None:
        if self._policies is None:
            return
        changed = self._policies.changed([served.model for served in self._served.values()])
        if changed is None:
            return
        self._served = {
            name: replace(self._bound(served.model, changed[name]), tried=served.tried)
            if name in changed
            else served
            for name, served in self._served.items()
        }
        for name, served in self._served.items():
            if served.tried is not None:
                self._bind_again(name, served, served.tried)
        self._retry_at.clear()  # what was refused for the old rules may fit these

    def _bind_again(self, name: str, served: ServedModel, tried: Tried) -> None:
        """The candidate by the rules in force, its counts kept; where it misfits them, none."""
        try:
            bound = self._bound_candidate(tried.candidate.model, tried.rollout, tried.trial)
        except (CommandError, ValueError) as error:
            version = tried.rollout.version
            log.error("candidate_refused", model=name, version=version, error=str(error))
            self.abandon(name, tried.rollout)
            return
        self._served = {**self._served, name: replace(served, tried=bound)}

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

    def _follow_rollout(self, name: str) -> None:
        served = self._served.get(name)
        if served is None:
            return
        found = read_rollout(self.registry.layout, name)
        wanted = None
        if found is not None and found.is_tried_beside(served.model.version):
            wanted = None if found == self._untried.get(name) else found
        present = None if served.tried is None else served.tried.rollout
        if wanted != present:
            self.try_out(name, served, wanted)

    def try_out(self, name: str, served: ServedModel, rollout: Rollout | None) -> None:
        """Try a candidate, or none any more. One that cannot be loaded is logged once."""
        tried = None
        if rollout is not None and rollout.version != served.model.version:
            try:
                tried = self._tried(served, rollout)
            except (CommandError, ValueError) as error:
                version = rollout.version
                log.error("candidate_refused", model=name, version=version, error=str(error))
                self._untried[name] = rollout
        if self._served.get(name) is not served or (tried is None and served.tried is None):
            return
        if served.tried is not None:
            self._metrics.model_info.remove(*_info(served.tried.candidate, _alias(served.tried)))
        self._served = {**self._served, name: replace(served, tried=tried)}
        if tried is not None:
            self._metrics.model_info.labels(*_info(tried.candidate, _alias(tried))).set(1)
            log.info("rollout_begun", model=name, **tried.rollout.model_dump(mode="json"))

    def abandon(self, name: str, rollout: Rollout) -> None:
        """Stop trying it here at once, whether or not the registry can be written."""
        self._untried[name] = rollout
        served = self._served.get(name)
        if served is not None and served.tried is not None and served.tried.rollout == rollout:
            self.try_out(name, served, None)

    def _tried(self, served: ServedModel, rollout: Rollout) -> Tried:
        candidate = self.registry.load(served.model.name, rollout.version)
        check_same_input(served.model.manifest.schema_digest, candidate.manifest.schema_digest)
        return self._bound_candidate(candidate, rollout, Trial())

    def _bound_candidate(self, candidate: RegisteredModel, rollout: Rollout, trial: Trial) -> Tried:
        policy = None
        if self._policies is not None:
            policy = self._policies.of(candidate, is_tried=True)
        bound = ServedModel.of(
            *(candidate, self._metrics),
            retention_days=self._retention_days,
            policy=policy,
            role=rollout.mode,
        )
        tried = Tried(rollout, bound, trial)
        object.__setattr__(bound, "tried", tried)  # both are made for each other
        return tried

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
        if served.tried is not None:
            self._metrics.model_info.remove(*_info(served.tried.candidate, _alias(served.tried)))


def _alias(tried: Tried) -> str:
    return tried.rollout.mode


def _info(served: ServedModel, alias: str = ROLE) -> tuple[str, str, str, str, str]:
    model = served.model
    method = model.manifest.explainer.method or "none"
    return model.name, str(model.version), alias, method, model.digest
