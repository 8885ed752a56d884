"""The one place where explanations are computed and checked."""

import math
import time
from typing import NamedTuple

import numpy as np

from explainers.base import Explanation, FloatArray
from service.logs import log, place_of
from service.metrics import ModelMetrics
from service.models.base import Served
from service.registry import RegisteredModel


class ExplainedPart(NamedTuple):
    """The rows of one request within a batch's explanation.

    explanation None: the explainer itself failed. reason None: all rows passed every check.
    """

    explanation: Explanation | None
    rows: slice
    additivity: FloatArray
    reason: str | None
    duration_seconds: float
    cpu_seconds: float


class Explained(NamedTuple):
    """Explanations of N rows with what the invariants said of each."""

    explanation: Explanation | None
    additivity: FloatArray
    reasons: tuple[str | None, ...]
    duration_seconds: float
    cpu_seconds: float

    def part(self, rows: slice) -> ExplainedPart:
        """What concerns one request of the batch; times are its share by rows."""
        share = (rows.stop - rows.start) / len(self.reasons)
        return ExplainedPart(
            self.explanation,
            rows,
            self.additivity[rows],
            next((reason for reason in self.reasons[rows] if reason is not None), None),
            self.duration_seconds * share,
            self.cpu_seconds * share,
        )


def explain_rows(model: RegisteredModel, X: FloatArray, served: Served) -> Explained | None:
    """Explain (N, F) raw rows and check every row against what the model served.

    None when the model has no explainer. Never raises for anything the explainer does: a failing
    explainer is a reason, not an error.
    """
    if model.explainer is None or model.invariants is None:
        return None
    start, cpu = time.perf_counter(), time.thread_time()
    explanation: Explanation | None = None
    try:
        computed = model.explainer.explain(X)
        checked = model.invariants.check(computed, served.outputs, served.scores)
        explanation, additivity, reasons = computed, checked.additivity, checked.reasons
    except Exception as error:  # noqa: BLE001 - the prediction must outlive whatever happens here
        log.error(
            "explainer_failed", model=model.name, version=model.version, place=place_of(error)
        )
        additivity = np.full(len(X), np.nan)
        reasons = (f"the explainer failed ({type(error).__name__})",) * len(X)
    duration, spent = time.perf_counter() - start, time.thread_time() - cpu
    return Explained(explanation, additivity, reasons, duration, spent)


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
