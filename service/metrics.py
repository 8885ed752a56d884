"""Every metric of the service, in one registry per application, prebound for the hot path."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from service.drift_metrics import DriftMetrics
from service.performance_metrics import PerformanceMetrics
from service.reason_metrics import ReasonMetrics
from service.recourse_metrics import RecourseMetrics
from service.tallies import TalliedCounter, TalliedHistogram

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10)
EXPLANATION_BUCKETS = (*LATENCY_BUCKETS, 15, 30, 60, 120, 300, 900)
ERROR_RATIO_BUCKETS = tuple(10.0**power for power in range(-6, 2))
GAP_BUCKETS = tuple(10.0**power for power in range(-12, 1))
RATIO_BUCKETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
SIZE_BUCKETS = tuple(512 * 4**k for k in range(8))
RATINGS = (1, 2, 3, 4, 5)

LANES = ("inline", "queued")
COST_LANES = (*LANES, "bulk", "quality")
"""`bulk`: of `explaind explain`, queued too; `quality`: explanations measured and checked again."""

REPLAY_OUTCOMES = ("equal", "different", "not_compared")
QUALITY_MEASURES = ("stability", "fidelity")
NOT_MEASURED = ("constant", "zero", "one_column", "no_neighbour", "not_finite", "too_costly")
QUALITY_OUTCOMES = ("measured", *NOT_MEASURED, "failed")
OUTCOMES = ("served", "stored", "failed", "timeout", "rejected", "dead")
PREDICTION_OUTCOMES = ("ok", "invalid", "error")
INVARIANTS = ("additivity", "link", "names", "finite", "dummy", "golden", "canary")
FREQUENT_ERRORS = (
    ("validate", "content"),
    ("explain", "explainer"),
    ("explain", "invariant"),
    ("explain", "WorkerGaveUp"),
    ("explain", "CanaryGaveUp"),
    ("load", "GoldenMismatchError"),
    ("load", "DamagedVersionError"),
    ("queue", "QueueAwayError"),
    ("queue", "QueueFullError"),
    ("store", "StoreUnavailableError"),
    ("store", "StoreBusyError"),
    ("store", "UnreadablePayloadError"),
)
"""Made at zero; types are an open set."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER")
"""Any method that is not here is counted as OTHER."""

HTTP_CHILDREN = 256
ROLE: Final = "serving"
TRIED_OUTCOMES = ("ok", "error", "failed", "dropped")
"""Of requests during a rollout: failed lacks its explanation, dropped was too many for a shadow."""

BACKEND = "sql"
SPOOL = "spool"
SPOOL_OUTCOMES = ("ok", "error", "none", "drained", "twin", "refused", "erased", "damaged")
LOG_BACKEND = "log"


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The children one model's requests touch, bound once (0.3 us instead of 1.1 us a call)."""

    predictions: dict[str, Counter]
    wanted: dict[str, Counter]
    explanations: dict[tuple[str, str], Counter]
    duration: dict[str, Histogram]
    payload_size: dict[str, Histogram]
    checks: dict[str, Counter]
    error_ratio: Histogram
    invariant_failures: dict[str, Counter]
    canary_gap: Histogram
    quality: dict[str, Histogram]
    quality_samples: dict[tuple[str, str], Counter]
    replays: dict[str, Counter]
    cpu_seconds: dict[str, Counter]
    model_evaluations: dict[str, Counter]
    reasons: dict[str, Counter]
    errors: Callable[[str, str], Counter]


@dataclass(slots=True)
class Metrics:
    """All families, named and labelled as the contract fixes them."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    http_duration: Histogram = field(init=False)
    http_active: Gauge = field(init=False)
    predictions: Counter = field(init=False)
    wanted: Counter = field(init=False)
    explanations: Counter = field(init=False)
    duration: Histogram = field(init=False)
    errors: Counter = field(init=False)
    checks: Counter = field(init=False)
    error_ratio: Histogram = field(init=False)
    invariant_failures: Counter = field(init=False)
    canary_gap: Histogram = field(init=False)
    stability: Histogram = field(init=False)
    fidelity: Histogram = field(init=False)
    quality_samples: Counter = field(init=False)
    replays: Counter = field(init=False)
    payload_size: Histogram = field(init=False)
    cpu_seconds: Counter = field(init=False)
    model_evaluations: Counter = field(init=False)
    audit_writes: Counter = field(init=False)
    audit_reads: Counter = field(init=False)
    audit_write_duration: Histogram = field(init=False)
    audit_backlog: Gauge = field(init=False)
    http_duration_of: Callable[[str, str, int], Histogram] = field(init=False)
    http_active_now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METHODS, 0))
    """Requests being answered by method, changed on the event loop only."""

    purged: Counter = field(init=False)
    purge_held: Gauge = field(init=False)
    purged_at: Gauge = field(init=False)
    privacy_scans: Counter = field(init=False)
    privacy_findings: Counter = field(init=False)
    feedback_rating: Histogram = field(init=False)
    labels: Counter = field(init=False)
    drift: DriftMetrics = field(init=False)
    performance: PerformanceMetrics = field(init=False)
    reasons: ReasonMetrics = field(init=False)
    recourse: RecourseMetrics = field(init=False)
    build_info: Gauge = field(init=False)
    model_info: Gauge = field(init=False)
    tried: Counter = field(init=False)
    rollbacks: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._make_http()
        self._make_explanations()
        self._make_checks()
        self._make_quality()
        self._make_audit()
        self._make_purge()
        self._make_people()
        self._make_rollouts()
        self.drift = DriftMetrics(self.registry)
        self.performance = PerformanceMetrics(self.registry)
        self.reasons = ReasonMetrics(self.registry)
        self.recourse = RecourseMetrics(self.registry)
        self.http_duration_of = lru_cache(HTTP_CHILDREN)(self.http_duration.labels)
        self.build_info.labels(version("explaind"), platform.python_version()).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return TalliedCounter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return TalliedHistogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _make_http(self) -> None:
        self.http_duration = self._histogram(
            "http_server_request_duration_seconds",
            "Time from the request's first byte to the answer's last",
            LATENCY_BUCKETS,
            "http_request_method",
            "http_route",
            "http_response_status_code",
        )
        self.http_active = self._gauge(
            "http_server_active_requests", "Requests being answered", "http_request_method"
        )
        for method in self.http_active_now:
            self.http_active.labels(method).set_function(
                partial(self.http_active_now.__getitem__, method)
            )
        self.predictions = self._counter(
            "explain_predictions", "Prediction requests by outcome", "model", "outcome"
        )

    def _make_explanations(self) -> None:
        self.wanted = self._counter(
            "explain_explanations_wanted",
            "Explanations asked for or required, counted on asking",
            *("model", "role", "lane"),
        )
        self.explanations = self._counter(
            "explain_explanations",
            "Explanations by final outcome",
            *("model", "role", "lane", "outcome"),
        )
        self.duration = self._histogram(
            "explain_explanation_duration_seconds",
            "From asking for an explanation to its delivery",
            EXPLANATION_BUCKETS,
            *("model", "method", "lane", "role"),
        )
        self.payload_size = self._histogram(
            "explain_payload_size_bytes", "Explanation bytes per instance", SIZE_BUCKETS, "lane"
        )
        self.cpu_seconds = self._counter(
            "explain_cpu_seconds", "CPU time spent on explanations", "model", "method", "lane"
        )
        self.model_evaluations = self._counter(
            "explain_model_evaluations",
            "Model rows evaluated for explanations",
            *("model", "method", "lane"),
        )

    def _make_checks(self) -> None:
        self.errors = self._counter(
            "explain_errors", "Errors by stage and type", "model", "stage", "type"
        )
        self.checks = self._counter(
            "explain_additivity_checks",
            "Explanations checked against the served output",
            *("model", "method", "outcome"),
        )
        self.error_ratio = self._histogram(
            "explain_additivity_error_ratio",
            "Additivity error as a share of the tolerance; over 1 fails",
            ERROR_RATIO_BUCKETS,
            *("model", "method"),
        )
        self.invariant_failures = self._counter(
            "explain_invariant_failures",
            "Invariants an explanation broke",
            *("model", "method", "invariant"),
        )
        self.canary_gap = self._histogram(
            "explain_canary_gap_ratio",
            "Relative gap between served attributions and a second engine's",
            GAP_BUCKETS,
            *("model", "method"),
        )

    def _make_quality(self) -> None:
        self.stability = self._histogram(
            "explain_attribution_stability_ratio",
            "Mean cosine between a row's attributions and those of rows almost like it, sampled",
            RATIO_BUCKETS,
            *("model", "method"),
        )
        self.fidelity = self._histogram(
            "explain_fidelity_ratio",
            "Correlation of attributions with what the output loses without columns, sampled",
            RATIO_BUCKETS,
            *("model", "method"),
        )
        self.quality_samples = self._counter(
            "explain_quality_samples",
            "Explanations whose quality was to be measured, by what came of it",
            *("model", "method", "measure", "outcome"),
        )
        self.replays = self._counter(
            "explain_replays",
            "Stored decisions computed again over HTTP, by whether they came out the same",
            *("model", "method", "outcome"),
        )

    def _make_audit(self) -> None:
        self.audit_writes = self._counter(
            "explain_audit_writes", "Evidence records written", "backend", "outcome"
        )
        self.audit_reads = self._counter(
            "explain_audit_reads", "Evidence records read", "backend", "outcome"
        )
        self.audit_write_duration = self._histogram(
            "explain_audit_write_duration_seconds",
            "One evidence commit, all its records together",
            LATENCY_BUCKETS,
            "backend",
        )
        self.audit_backlog = self._gauge(
            "explain_audit_backlog_records",
            "Records waiting to be written (sql), or for their place in a log (log)",
            "backend",
        )
        for family in (self.audit_writes, self.audit_reads):
            for outcome in ("ok", "error"):
                family.labels(BACKEND, outcome)
        for outcome in SPOOL_OUTCOMES:
            self.audit_writes.labels(SPOOL, outcome)
        for outcome in ("not_found", "gone"):
            self.audit_reads.labels(BACKEND, outcome)
        for backend in (BACKEND, SPOOL):
            self.audit_write_duration.labels(backend)
        for backend in (BACKEND, LOG_BACKEND, SPOOL):
            self.audit_backlog.labels(backend)
        self.build_info = self._gauge(
            "explain_build_info", "What is running", "version", "python_version"
        )
        self.model_info = self._gauge(
            "explain_model_info",
            "The versions being served",
            *("model", "version", "alias", "method", "digest"),
        )

    def _make_purge(self) -> None:
        self.purged = self._counter(
            "explain_records_purged", "Expired records destroyed by this process", "model"
        )
        self.purge_held = self._gauge(
            "explain_purge_held_records", "Expired records that a hold keeps, at the last purge"
        )
        self.purged_at = self._gauge(
            "explain_purge_last_success_timestamp_seconds", "When the last purge was complete"
        )

    def _make_people(self) -> None:
        self.privacy_scans = self._counter(
            "explain_privacy_scans", "Texts searched for personal data", "detector", "outcome"
        )
        self.privacy_findings = self._counter(
            "explain_privacy_findings",
            "Personal data found, and what was done about it",
            *("detector", "entity", "action"),
        )
        self.feedback_rating = self._histogram(
            "explain_feedback_rating", "Ratings of explanations", RATINGS, "model"
        )
        self.labels = self._counter(
            "explain_labels", "Instances whose outcome was told; once more if told again", "model"
        )

    def _make_rollouts(self) -> None:
        self.tried = self._counter(
            "explain_rollout_requests",
            "Requests while a candidate is tried, by who answered",
            *("model", "role", "outcome"),
        )
        self.rollbacks = self._counter(
            "explain_rollbacks", "Canaries this process gave up for an SLI", "model"
        )

    def _begin(self, model: str) -> None:
        self.recourse.begin(model)
        for counted in (self.purged, self.feedback_rating, self.labels, self.rollbacks):
            counted.labels(model)
        for tried in ("serving", "canary", "shadow"):
            for outcome in TRIED_OUTCOMES:
                self.tried.labels(model, tried, outcome)

    def ended(self, model: str, outcome: str, *, was_counted: bool) -> None:
        """Count how the wish for a queued explanation ended, and the wish itself where whoever had
        it is not scraped.
        """
        if not was_counted:
            self.wanted.labels(model, ROLE, "queued").inc()
        self.explanations.labels(model, ROLE, "queued", outcome).inc()

    def bind(self, model: str, method: str, role: str = ROLE) -> ModelMetrics:
        """Every child of one model, created at zero so that rates exist from the first scrape."""
        for stage, kind in FREQUENT_ERRORS:
            self.errors.labels(model, stage, kind)
        self._begin(model)
        return ModelMetrics(
            predictions={o: self.predictions.labels(model, o) for o in PREDICTION_OUTCOMES},
            wanted={lane: self.wanted.labels(model, role, lane) for lane in LANES},
            explanations={
                (lane, outcome): self.explanations.labels(model, role, lane, outcome)
                for lane in LANES
                for outcome in OUTCOMES
            },
            duration={lane: self.duration.labels(model, method, lane, role) for lane in LANES},
            payload_size={lane: self.payload_size.labels(lane) for lane in LANES},
            checks={o: self.checks.labels(model, method, o) for o in ("ok", "failed")},
            error_ratio=self.error_ratio.labels(model, method),
            invariant_failures={
                name: self.invariant_failures.labels(model, method, name) for name in INVARIANTS
            },
            canary_gap=self.canary_gap.labels(model, method),
            quality={
                "stability": self.stability.labels(model, method),
                "fidelity": self.fidelity.labels(model, method),
            },
            quality_samples={
                (measure, outcome): self.quality_samples.labels(model, method, measure, outcome)
                for measure in QUALITY_MEASURES
                for outcome in QUALITY_OUTCOMES
            },
            replays={o: self.replays.labels(model, method, o) for o in REPLAY_OUTCOMES},
            cpu_seconds={lane: self.cpu_seconds.labels(model, method, lane) for lane in COST_LANES},
            model_evaluations={
                lane: self.model_evaluations.labels(model, method, lane) for lane in COST_LANES
            },
            reasons=self.reasons.bind(model),
            errors=lru_cache(64)(lambda stage, kind: self.errors.labels(model, stage, kind)),
        )
