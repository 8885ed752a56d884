"""The one place where explanations are computed and checked: for answers and for jobs alike."""

import math
import time
from dataclasses import dataclass

import numpy as np

from explainers.base import Explainer, Explanation, FloatArray
from explainers.checks import additivity_error, all_finite, dummy_violations, link_error
from service.logs import log, place_of
from service.metrics import ModelMetrics
from service.models.base import Served
from service.registry import RegisteredModel

LINK_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """Explanations of N rows with what the invariants said of each.

    explanation None: the explainer itself failed. reasons[i] None: row i passed every check.
    """

    explanation: Explanation | None
    additivity: FloatArray
    reasons: tuple[str | None, ...]
    duration_seconds: float
    cpu_seconds: float

    def part(self, rows: slice) -> "ExplainedPart":
        """What concerns one request of the batch; times are its share by rows."""
        share = (rows.stop - rows.start) / len(self.reasons)
        reason = next((reason for reason in self.reasons[rows] if reason is not None), None)
        return ExplainedPart(
            self.explanation,
            rows,
            self.additivity[rows],
            reason,
            self.duration_seconds * share,
            self.cpu_seconds * share,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedPart:
    """The rows of one request within a batch's explanation; reason None when all rows passed."""

    explanation: Explanation | None
    rows: slice
    additivity: FloatArray
    reason: str | None
    duration_seconds: float
    cpu_seconds: float


def explain_rows(
    model: RegisteredModel, explainer: Explainer, X: FloatArray, served: Served
) -> Explained:
    """Explain (N, F) raw rows and check every row against what the model served.

    Never raises for anything the explainer does: a failing explainer is a reason, not an error.
    """
    start, cpu = time.perf_counter(), time.thread_time()
    try:
        explanation = explainer.explain(X).with_outputs(served.outputs)
        additivity, reasons = _check(model, explainer, explanation, served)
    except Exception as error:  # noqa: BLE001 - the prediction must outlive whatever happens here
        log.error(
            "explainer_failed", model=model.name, version=model.version, place=place_of(error)
        )
        reason = f"the explainer failed ({type(error).__name__})"
        nothing = np.full(len(X), np.nan)
        return _timed(None, nothing, (reason,) * len(X), start, cpu)
    return _timed(explanation, additivity, reasons, start, cpu)


def _timed(
    explanation: Explanation | None,
    additivity: FloatArray,
    reasons: tuple[str | None, ...],
    start: float,
    cpu: float,
) -> Explained:
    return Explained(
        explanation,
        additivity,
        reasons,
        time.perf_counter() - start,
        time.thread_time() - cpu,
    )


def _check(
    model: RegisteredModel, explainer: Explainer, explanation: Explanation, served: Served
) -> tuple[FloatArray, tuple[str | None, ...]]:
    """Additivity error and, for rows that break an invariant, the invariant's name."""
    additivity = additivity_error(explanation, output_scale=explainer.output_scale)
    broken = {
        "finite": ~all_finite(explanation),
        "additivity": ~(additivity <= explainer.tolerance),
        "link": ~(
            link_error(served.outputs, served.scores, model.manifest.explainer.link)
            <= LINK_TOLERANCE
        ),
        "dummy": dummy_violations(explanation.values, model.unused_columns),
    }
    if explanation.feature_names != model.schema.names:
        broken["names"] = np.ones(len(additivity), dtype=np.bool_)
    if not any(rows.any() for rows in broken.values()):
        return additivity, (None,) * len(additivity)
    return additivity, tuple(
        next((name for name, rows in broken.items() if rows[i]), None)
        for i in range(len(additivity))
    )


def count(metrics: ModelMetrics, part: ExplainedPart, tolerance: float) -> None:
    """Checks, error ratios and the broken invariant of one request."""
    passed = part.reason is None
    metrics.checks["ok" if passed else "failed"].inc(len(part.additivity))
    for error in part.additivity.tolist():
        if math.isfinite(error):
            metrics.error_ratio.observe(error / tolerance)
    if part.reason in metrics.invariant_failures:
        metrics.invariant_failures[part.reason].inc()
    if not passed:
        metrics.errors("explain", "explainer" if part.explanation is None else "invariant").inc()
    metrics.cpu_seconds.inc(part.cpu_seconds)
    if part.explanation is not None and part.explanation.model_evaluations:
        metrics.model_evaluations.inc(part.explanation.model_evaluations)
