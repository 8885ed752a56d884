"""Reasons of adverse decisions in explanations: from the attributions of the very answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from explainers.base import Explainer, Explanation, FloatArray
from service.explaining import ExplainedPart, explain_rows
from service.metrics import ModelMetrics
from service.models.base import Served
from service.policy import Entry, Reasons
from service.registry import RegisteredModel

Beside = Mapping[str, object]
"""What stands in an explanation beside the contract's own members: `reasons`, or nothing."""

NOTHING: Beside = {}
PENDING: Beside = {"reasons": None}
NO_COHORT = "the reference cohort is not at hand where this was explained"
NOT_SHAPLEY = "this method gives no contributions"


def pending(reasons: Reasons | None) -> Beside:
    """Of an explanation that is still to come."""
    return NOTHING if reasons is None else PENDING


def withheld(reasons: Reasons | None, status: str, reason: str | None) -> Beside:
    """Of an explanation that is not there, for the reason it gives."""
    if reasons is None:
        return NOTHING
    what = "no explanation was made" if status == "skipped" else "the explanation failed"
    return {"reasons": reasons.withheld(f"{what}: {reason}")}


def without_contributions(reasons: Reasons | None) -> Beside:
    """Of an explanation that is no Shapley values."""
    return NOTHING if reasons is None else {"reasons": reasons.withheld(NOT_SHAPLEY)}


class ExplainedRows(NamedTuple):
    """The rows of one request as they were explained: X (N, F), asked for only if need be."""

    model: RegisteredModel
    part: ExplainedPart
    X: Callable[[], FloatArray]
    served: Served


def given(reasons: Reasons | None, rows: ExplainedRows, cohort: Explainer | None) -> Beside:
    """Of a complete explanation that passed its checks.

    With a cohort its adverse rows are explained once more, relative to it, and checked like any;
    cohort None although the rule has one: it is not at hand.
    """
    if reasons is None:
        return NOTHING
    explanation = rows.part.explanation
    assert explanation is not None
    places = reasons.adverse
    found: dict[int, Sequence[float] | str] = {}
    if places and reasons.rule.cohort_digest is None:
        found = _contributions(reasons, explanation, rows.part.rows, places)
    elif places and cohort is None:
        found = dict.fromkeys(places, NO_COHORT)
    elif places and cohort is not None:
        found = _relative(reasons, rows, cohort)
    return {"reasons": reasons.given(explanation.feature_names, found)}


def _contributions(
    reasons: Reasons, explanation: Explanation, rows: slice, places: Sequence[int]
) -> dict[int, Sequence[float] | str]:
    output = explanation.output_names.index(reasons.rule.output)
    values = explanation.values[rows][list(places), :, output]
    return dict(zip(places, values.tolist(), strict=True))


def _relative(
    reasons: Reasons, rows: ExplainedRows, cohort: Explainer
) -> dict[int, Sequence[float] | str]:
    places = reasons.adverse
    X, served = rows.X()[places], rows.served
    own = Served(served.outputs[places], served.scores[places])
    explained = explain_rows(rows.model, X, own, explainer=cohort)
    assert explained is not None  # there is an explainer
    broken = dict(zip(places, explained.reasons, strict=True))
    found: dict[int, Sequence[float] | str] = {
        place: f"the explanation relative to the cohort failed: {reason}"
        for place, reason in broken.items()
    }
    if explained.explanation is not None:
        whole = slice(0, len(places))
        values = _contributions(reasons, explained.explanation, whole, range(len(places)))
        found |= {p: values[i] for i, p in enumerate(places) if broken[p] is None}
    return found


def row_array(codes: Sequence[Sequence[float | None]]) -> Callable[[], FloatArray]:
    """(N, F) of rows as they were fed, made when it is asked for."""
    return lambda: np.array(codes, dtype=np.float64)


class ReasonCounts(NamedTuple):
    """How many adverse decisions got their reasons, and how many did not."""

    given: int = 0
    withheld: int = 0

    @classmethod
    def of(cls, beside: Beside) -> "ReasonCounts":
        """Of what stands in an explanation."""
        entries = beside.get("reasons")
        if not isinstance(entries, list):
            return NO_REASONS
        said = [_status(entry) for entry in entries]
        return cls(said.count("given"), said.count("withheld"))

    def add_to(self, metrics: ModelMetrics) -> None:
        """Once their explanation is stored."""
        for status, number in zip(self._fields, self, strict=True):
            if number:
                metrics.reasons[status].inc(number)


NO_REASONS = ReasonCounts()


def _status(entry: Entry | None) -> object:
    return None if entry is None else entry["status"]
