"""The exact explainer that fits a model's form."""

from explainers.base import Background, Derivation, Explainer, FloatArray, Naming
from explainers.linear import LinearExplainer
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer

Coefficients = tuple[FloatArray, FloatArray]
"""Coefficients (P, C) and intercept (C,) of a model linear in its derived columns."""


def build_explainer(  # noqa: PLR0913 (what is explained, how it is named, and how it is computed)
    form: TreeEnsemble | Coefficients,
    background: Background,
    derivation: Derivation,
    *,
    naming: Naming,
    tolerance: float,
    engine: TreeEngine = "auto",
    stored_tables: bytes | None = None,
) -> Explainer:
    """An explainer of the model over this background.

    engine and stored_tables matter to trees only: "auto" to serve, "walk" for a second opinion on
    the tables or a background used once (it is ready in a tenth of the time); stored_tables as
    `Explainer.stored_tables` gave them. Raises UnsupportedModelError when there is no exact
    explainer, OutdatedTablesError when the stored tables are not of this model and background,
    MalformedModelError when they, or the form, contradict themselves.
    """
    if isinstance(form, TreeEnsemble):
        return TreeExplainer(
            form,
            background,
            derivation,
            naming=naming,
            tolerance=tolerance,
            engine=engine,
            stored_tables=stored_tables,
        )
    coefficients, intercept = form
    return LinearExplainer(
        coefficients, intercept, background, derivation, naming=naming, tolerance=tolerance
    )
