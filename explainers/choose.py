"""The exact explainer that fits a model's form."""

from explainers.base import Background, Derivation, Explainer, FloatArray, Naming
from explainers.linear import LinearExplainer
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer

Coefficients = tuple[FloatArray, FloatArray]
"""Coefficients (P, C) and intercept (C,) of a model linear in its derived columns."""


def build_explainer(
    form: TreeEnsemble | Coefficients,
    background: Background,
    derivation: Derivation,
    *,
    naming: Naming,
    tolerance: float,
    engine: TreeEngine = "auto",
) -> Explainer:
    """An explainer of the model over this background.

    engine matters to trees only: "auto" to serve, the walk as the second opinion on the tables
    and for a background used once (it takes a few ms to build). Raises UnsupportedModelError when
    there is no exact explainer.
    """
    if isinstance(form, TreeEnsemble):
        return TreeExplainer(
            form, background, derivation, naming=naming, tolerance=tolerance, engine=engine
        )
    coefficients, intercept = form
    return LinearExplainer(
        coefficients, intercept, background, derivation, naming=naming, tolerance=tolerance
    )
