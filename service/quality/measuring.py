"""Both measures of one row's explanation, within a bounded time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from explainers.base import Explainer, FloatArray, IntArray
from service.ondemand import PairedExplainer, explainer_by
from service.quality.faithfulness import correlation, drops, subsets_of
from service.quality.findings import Finding, Findings, Sample
from service.quality.stability import NEIGHBOURS, Surroundings, mean_cosine, neighbours_of
from service.registry import RegisteredModel

MOST_SECONDS = 5.0
"""For each measure. Of costlier explanations fewer neighbours are explained."""

FEWEST_NEIGHBOURS = 2
NOISE_FLOOR = 1e-9
"""Of a row's largest number: what is below has no direction worth comparing."""


class _TooCostlyError(Exception):
    """Going on would take longer than allowed."""


def measure(model: RegisteredModel, sample: Sample, beat: Callable[[], None]) -> Findings:
    """Stability and faithfulness of one stored row; what cannot be measured says why.

    ValueError where the version explains nothing, or the values are over another background.
    beat: called as it goes on. Cost: 10 explanations and 64 * B model rows, or 5 s for each.
    """
    measuring = _Measuring.of(model, sample, beat)
    cpu = time.process_time()
    stability, fidelity = measuring.stability(), measuring.fidelity()
    return Findings(
        {"stability": stability, "fidelity": fidelity},
        time.process_time() - cpu,
        measuring.model_evaluations,
    )


@dataclass(slots=True, eq=False)
class _Measuring:
    model: RegisteredModel
    sample: Sample
    explainer: Explainer
    x: FloatArray
    values: FloatArray
    outputs: FloatArray
    beat: Callable[[], None]
    model_evaluations: int = 0
    _until: float = field(default=0.0, init=False)

    @classmethod
    def of(cls, model: RegisteredModel, sample: Sample, beat: Callable[[], None]) -> "_Measuring":
        if model.explainer is None:
            raise ValueError(f"{model.name}/{model.version} has no explainer")
        if sample.background_digest != model.background.digest:
            raise ValueError("the explanation is over another background")
        # Pairs are another account of the same values, and take longer.
        method = None if sample.method == "interactions" else sample.method
        explainer = explainer_by(model, method)
        assert not isinstance(explainer, PairedExplainer)
        x, values, outputs = (
            np.array(part, np.float64) for part in (sample.fed, sample.values, sample.outputs)
        )
        return cls(model, sample, explainer, x, values, outputs, beat)

    @property
    def _size(self) -> float:
        """What this row's numbers are compared with."""
        return float(np.max(np.maximum(np.abs(self.outputs), self.explainer.output_scale)))

    @property
    def _floor(self) -> float:
        return NOISE_FLOOR * self._size

    def _go_on(self) -> None:
        if time.monotonic() > self._until:
            raise _TooCostlyError
        self.beat()

    def _unfit(self) -> Finding | None:
        """Why the stored values have no direction, if they have none."""
        if not np.isfinite(self.values).all():
            return Finding("not_finite")
        return Finding("zero") if np.linalg.norm(self.values) <= self._floor else None

    def stability(self) -> Finding:
        """Mean cosine between the stored values and those of neighbours, each with a seed of its
        own: the noise of an estimate is part of what makes it unstable.
        """
        if (unfit := self._unfit()) is not None:
            return unfit
        seconds = max(self.sample.row_seconds, 1e-9)
        count = min(NEIGHBOURS, int(MOST_SECONDS / seconds))
        if count < FEWEST_NEIGHBOURS:
            return Finding("too_costly")
        draws = np.random.default_rng([self.sample.seed, 0])
        near = neighbours_of(self.x, Surroundings.of(self.model), draws, count)
        if not len(near):
            return Finding("no_neighbour")
        seeds: IntArray = draws.integers(2**53, size=len(near), dtype=np.int64)
        self._until = time.monotonic() + MOST_SECONDS
        try:
            others = np.concatenate(
                [self._explained(near[[i]], seeds[[i]]) for i in range(len(near))]
            )
        except _TooCostlyError:
            return Finding("too_costly")
        if not np.isfinite(others).all():
            return Finding("not_finite")
        return Finding.of(mean_cosine(self.values, others, self._floor))

    def _explained(self, x: FloatArray, seeds: IntArray) -> FloatArray:
        self._go_on()
        explanation = self.explainer.explain(x, seeds=seeds)
        self.model_evaluations += explanation.model_evaluations
        return explanation.values

    def fidelity(self) -> Finding:
        """Correlation of what the stored values of random columns add up to with what the served
        output loses without them, in the output space that is explained.
        """
        if len(self.x) == 1:
            return Finding("one_column")
        if (unfit := self._unfit()) is not None:
            return unfit
        subsets = subsets_of(len(self.x), np.random.default_rng([self.sample.seed, 1]))
        self._until = time.monotonic() + MOST_SECONDS
        try:
            dropped = drops(
                self.model.evaluate,
                self.x,
                self.outputs,
                self.model.background.rows,
                subsets,
                beat=self._go_on,
            )
        except _TooCostlyError:
            return Finding("too_costly")
        self.model_evaluations += len(subsets) * len(self.model.background.rows)
        if not np.isfinite(dropped).all():
            return Finding("not_finite")
        if np.ptp(dropped, axis=0).max() <= self.explainer.tolerance * self._size:
            return Finding("constant")
        found = correlation(subsets @ self.values.reshape(len(self.x), -1), dropped)
        return Finding("zero") if np.isnan(found) else Finding.of(found)
