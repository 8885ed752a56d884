"""Explanations by a method asked for by name, beside the version's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from explainers.base import Engine, Explainer, Explanation, FloatArray, IntArray, Interactions
from service.methods import sampling_config
from service.models.base import Differentiable
from service.registry import RegisteredModel
from service.registry.registered import naming_of

Progress = Callable[[int], None]
"""Told how many rows are done."""

Extras = Mapping[str, object]
"""Objects that stand in an explanation beside its values, by name."""


def explainer_by(model: RegisteredModel, method: str | None) -> "Explainer | PairedExplainer":
    """The version's own explainer, or one by that method over the same background.

    Raises UnsupportedModelError where the method cannot explain this model.
    """
    own = model.explainer
    assert own is not None
    if method is None or method == own.method:
        return own
    if method == "interactions":
        return PairedExplainer(own)
    from explainers.sampled.choose import CalledMethod, build_by_method

    return build_by_method(
        cast("CalledMethod", method),
        model.evaluate,
        model.background,
        naming=naming_of(model.manifest, model.schema),
        tolerance=own.tolerance,
        config=sampling_config(model),
    )


@dataclass(slots=True, eq=False)
class PairedExplainer:
    """An explainer that splits its values into pairs and keeps them: for one thread."""

    own: Explainer
    found: list[Interactions] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """What computes values and pairs."""
        return self.own.engine

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        """The values which the pairs add up to."""
        self.found.append(self.own.interactions(X, seeds=seeds))
        return self.found[-1].explanation

    def extras(self) -> Extras:
        """All pairs since the beginning, (N, F, F, C), and their standard errors if estimated."""
        errors = [one.standard_errors for one in self.found if one.standard_errors is not None]
        return {
            "interactions": {
                "values": np.concatenate([one.values for one in self.found]),
                "standard_errors": np.concatenate(errors) if errors else None,
            }
        }


@dataclass(frozen=True, slots=True, eq=False)
class NotShapley:
    """What a method gave that is no Shapley value: an object of its own, and what it took."""

    extras: Extras
    seeds: list[int] | None
    model_evaluations: int

    @property
    def is_finite(self) -> bool:
        """Every number in it can be written."""
        return all(
            np.isfinite(array).all()
            for extra in self.extras.values()
            if isinstance(extra, dict)
            for array in extra.values()
            if isinstance(array, np.ndarray)
        )


def explain_otherwise(
    model: RegisteredModel, method: str, X: FloatArray, seeds: IntArray, on_progress: Progress
) -> NotShapley:
    """LIME or integrated gradients of (N, F) rows.

    Raises UnsupportedModelError where the method cannot explain this model or these rows.
    """
    explain = {"lime": _local_model, "integrated_gradients": _path}[method]
    return explain(model, X, seeds, on_progress)


def _local_model(
    model: RegisteredModel, X: FloatArray, seeds: IntArray, on_progress: Progress
) -> NotShapley:
    from explainers.sampled.local_model import explain_locally

    naming = naming_of(model.manifest, model.schema)
    parts = []
    for row in range(len(X)):
        rows = slice(row, row + 1)
        parts.append(
            explain_locally(
                model.evaluate, model.background, X[rows], naming=naming, seeds=seeds[rows]
            )
        )
        on_progress(row + 1)
    config = parts[0].config
    local = {
        "coefficients": np.concatenate([part.coefficients for part in parts]),
        "intercept": np.concatenate([part.intercept for part in parts]),
        "r2": np.concatenate([part.r2 for part in parts]),
        "samples": config.samples,
        "kernel_width": config.kernel_width,
        "ridge": config.ridge,
    }
    evaluations = sum(part.model_evaluations for part in parts)
    return NotShapley({"local_model": local}, seeds.tolist(), evaluations)


def _path(model: RegisteredModel, X: FloatArray, _: IntArray, on_progress: Progress) -> NotShapley:
    from explainers.base import UnsupportedModelError
    from explainers.sampled.gradients import integrate_gradients

    native = model.native
    if not isinstance(native, Differentiable):
        raise UnsupportedModelError(f"{native.library} models give no gradients")
    found = integrate_gradients(
        model.evaluate,
        native.gradient,
        X,
        baseline=model.background.rows.mean(axis=0),
        naming=naming_of(model.manifest, model.schema),
    )
    on_progress(len(X))
    path = {
        "attributions": found.attributions,
        "baseline": found.baseline,
        "completeness_gap": found.completeness_gap,
        "steps": found.steps,
    }
    return NotShapley({"path": path}, None, found.model_evaluations)
