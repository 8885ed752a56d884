"""The one place where explanations are computed and checked."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, Self

import numpy as np
import orjson

from explainers.base import ExplainerError, Explanation, FloatArray, IntArray
from service.logs import log, place_of
from service.metrics import ModelMetrics
from service.models.base import Served
from service.registry import RegisteredModel

BROKEN_FIRST = ("finite", "additivity", "link", "dummy", "names")
"""The invariants of an explanation, in the order in which the first broken one is its reason."""

GOLDEN = {"golden": "passed"}
"""A version that does not come back to its golden values is not loaded, so it explains nothing."""

PASSED = orjson.dumps(dict.fromkeys(BROKEN_FIRST, "passed") | GOLDEN)


def encode_checks(reason: str | None, *, kept: Sequence[str] = BROKEN_FIRST) -> bytes:
    """What a record says of the invariants; null for those nothing is known of.

    reason: why there is no explanation, if there is none; kept: the invariants that apply to it.
    """
    if reason is None and kept is BROKEN_FIRST:
        return PASSED
    first = BROKEN_FIRST.index(reason) if reason in BROKEN_FIRST else 0
    known = kept if reason is None else BROKEN_FIRST[:first]
    said = {name: "passed" if name in known else None for name in BROKEN_FIRST}
    if reason in said:
        said[reason] = "failed"
    return orjson.dumps(said | GOLDEN)


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

    def tally(self) -> "Tally":
        """What the metrics count of it."""
        explanation = self.explanation
        return Tally(
            self.additivity.tolist(),
            self.reason,
            is_explained=explanation is not None,
            cpu_seconds=self.cpu_seconds,
            model_evaluations=0 if explanation is None else explanation.model_evaluations,
        )


class Explained(NamedTuple):
    """Explanations of N rows with what the invariants said of each."""

    explanation: Explanation | None
    additivity: FloatArray
    reasons: tuple[str | None, ...]
    duration_seconds: float
    cpu_seconds: float

    @classmethod
    def joined(cls, parts: Sequence["Explained"]) -> Self:
        """Consecutive rows of one request as one; without an explanation if a part has none."""
        computed = [part.explanation for part in parts if part.explanation is not None]
        return cls(
            _joined(computed) if len(computed) == len(parts) else None,
            np.concatenate([part.additivity for part in parts]),
            tuple(reason for part in parts for reason in part.reasons),
            sum(part.duration_seconds for part in parts),
            sum(part.cpu_seconds for part in parts),
        )

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


def _joined(parts: Sequence[Explanation]) -> Explanation:
    errors = [part.standard_errors for part in parts if part.standard_errors is not None]
    seeds = [part.seeds for part in parts if part.seeds is not None]
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        base_values=np.concatenate([part.base_values for part in parts]),
        standard_errors=np.concatenate(errors) if errors else None,
        seeds=np.concatenate(seeds) if seeds else None,
        model_evaluations=sum(part.model_evaluations for part in parts),
    )


class Explaining(Protocol):
    """What explains rows: an Explainer, or something that keeps more of what it gives."""

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        """Attribute each output of each row of X, (N, F)."""
        ...


def explain_rows(
    model: RegisteredModel,
    X: FloatArray,
    served: Served,
    *,
    explainer: Explaining | None = None,
    seeds: IntArray | None = None,
) -> Explained | None:
    """Explain (N, F) raw rows and check every row against what the model served.

    explainer: another than the version's own; seeds: (N,) for explainers that draw.
    None when the model has no explainer. Never raises for anything the explainer does: a failing
    explainer is a reason, not an error.
    """
    explainer = explainer or model.explainer
    if explainer is None or model.invariants is None:
        return None
    start, cpu = time.perf_counter(), time.thread_time()
    explanation: Explanation | None = None
    try:
        computed = explainer.explain(X, seeds=seeds)
        checked = model.invariants.check(computed, served.outputs, served.scores)
        explanation, additivity, reasons = computed, checked.additivity, checked.reasons
    except ExplainerError as error:
        additivity, reasons = np.full(len(X), np.nan), (str(error),) * len(X)
    except Exception as error:  # noqa: BLE001 - the prediction must outlive whatever happens here
        log.error(
            "explainer_failed", model=model.name, version=model.version, place=place_of(error)
        )
        additivity = np.full(len(X), np.nan)
        reasons = (failure_of(error),) * len(X)
    duration, spent = time.perf_counter() - start, time.thread_time() - cpu
    return Explained(explanation, additivity, reasons, duration, spent)


def failure_of(error: Exception) -> str:
    """The reason that names what an explainer raised; never its message: it may hold inputs."""
    return f"the explainer failed ({type(error).__name__})"


class Tally(NamedTuple):
    """What is counted of one request's explanation; plain numbers, so that it can be sent."""

    additivity: list[float]
    reason: str | None
    is_explained: bool
    cpu_seconds: float
    model_evaluations: int


def count(metrics: ModelMetrics, tally: Tally, *, lane: str, tolerance: float) -> None:
    """Checks, error ratios, the broken invariant and the cost of one request."""
    passed = tally.reason is None
    metrics.checks["ok" if passed else "failed"].inc(len(tally.additivity))
    for error in tally.additivity:
        if math.isfinite(error):
            metrics.error_ratio.observe(error / tolerance)
    if tally.reason in metrics.invariant_failures:
        metrics.invariant_failures[tally.reason].inc()
    if not passed:
        metrics.errors("explain", "invariant" if tally.is_explained else "explainer").inc()
    metrics.cpu_seconds[lane].inc(tally.cpu_seconds)
    if tally.model_evaluations:
        metrics.model_evaluations[lane].inc(tally.model_evaluations)
