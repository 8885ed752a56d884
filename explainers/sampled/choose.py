"""The explainer of a model that can only be called."""

from typing import Literal

from explainers.base import Background, Explainer, Naming
from explainers.sampled.calls import Evaluate
from explainers.sampled.enumeration import MOST_COLUMNS, EnumerationExplainer, enumeration_rows
from explainers.sampled.kernel_shap import KernelExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

ENUMERATION_SECONDS = 2.0
"""What exact values of a row may take of a worker's time, where estimates would be faster."""

CalledMethod = Literal["exact", "permutation", "kernel"]


def build_sampled(
    evaluate: Evaluate,
    background: Background,
    *,
    naming: Naming,
    tolerance: float,
    seconds_per_row: float,
    config: PermutationConfig | None = None,
) -> Explainer:
    """Enumeration of up to 12 columns if a row takes at most ENUMERATION_SECONDS, or no more model
    rows than the first planned size of permutation sampling; else permutation sampling.

    seconds_per_row: calibrated, of a model row in a call of config.rows_per_call. Which it is
    belongs to what a version's explanations mean: to be chosen once. Cost: B model rows. Raises
    UnsupportedModelError when sampling, too, is beyond config's budget.
    """
    chosen = config or PermutationConfig()
    n_background_rows, n_columns = background.rows.shape
    stages = chosen.stages(n_columns, n_background_rows)
    rows = enumeration_rows(n_columns, n_background_rows, chosen.rows_per_call)
    is_cheaper = bool(stages) and rows <= stages[0].model_rows
    is_affordable = rows * seconds_per_row <= ENUMERATION_SECONDS
    if n_columns <= MOST_COLUMNS and (is_cheaper or is_affordable):
        return EnumerationExplainer(
            evaluate,
            background,
            naming=naming,
            tolerance=tolerance,
            rows_per_call=chosen.rows_per_call,
        )
    return PermutationExplainer(
        evaluate, background, naming=naming, tolerance=tolerance, config=chosen
    )


def build_by_method(
    method: CalledMethod,
    evaluate: Evaluate,
    background: Background,
    *,
    naming: Naming,
    tolerance: float,
) -> Explainer:
    """The explainer of a method asked for by name, with its own configuration's defaults.

    Cost: B model rows. Raises UnsupportedModelError when sampling is beyond its budget.
    """
    if method == "exact":
        return EnumerationExplainer(evaluate, background, naming=naming, tolerance=tolerance)
    if method == "permutation":
        return PermutationExplainer(evaluate, background, naming=naming, tolerance=tolerance)
    return KernelExplainer(evaluate, background, naming=naming, tolerance=tolerance)
