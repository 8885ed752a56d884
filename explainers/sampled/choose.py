"""The explainer of a model that can only be called."""

from dataclasses import replace
from typing import Literal

from explainers.base import Background, Naming
from explainers.sampled.calls import Evaluate
from explainers.sampled.enumeration import MOST_COLUMNS, EnumerationExplainer, enumeration_rows
from explainers.sampled.kernel_shap import KernelExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

SAMPLING_SECONDS = 10.0
"""What a row may take of a worker's time, unless the first planned size of estimates takes longer:
what would be sampled for as long is exact instead, where it can be.
"""

CalledMethod = Literal["exact", "permutation", "kernel"]


def choose_method(
    n_columns: int, n_background_rows: int, *, seconds_per_row: float, config: PermutationConfig
) -> Literal["exact", "permutation"]:
    """Enumeration of up to 12 columns if a row takes at most SAMPLING_SECONDS, or no more model
    rows than the first planned size of permutation sampling; else permutation sampling.

    seconds_per_row: calibrated, of a model row in a call of config.rows_per_call. Which it is
    belongs to what a version's explanations mean: to be chosen once.
    """
    if n_columns > MOST_COLUMNS:
        return "permutation"
    stages = config.stages(n_columns, n_background_rows)
    rows = enumeration_rows(n_columns, n_background_rows, config.rows_per_call)
    is_cheaper = bool(stages) and rows <= stages[0].model_rows
    is_affordable = rows * seconds_per_row <= SAMPLING_SECONDS
    return "exact" if is_cheaper or is_affordable else "permutation"


def affordable(
    config: PermutationConfig, n_columns: int, n_background_rows: int, *, seconds_per_row: float
) -> PermutationConfig:
    """The configuration with a budget of SAMPLING_SECONDS a row, or of the first planned size if
    that takes longer; never a larger budget than it has.
    """
    stages = config.stages(n_columns, n_background_rows)
    least = stages[0].model_rows if stages else config.budget_rows
    in_time = int(SAMPLING_SECONDS / max(seconds_per_row, 1e-9))
    return replace(config, budget_rows=min(config.budget_rows, max(least, in_time)))


def build_by_method(
    method: CalledMethod,
    evaluate: Evaluate,
    background: Background,
    *,
    naming: Naming,
    tolerance: float,
    config: PermutationConfig | None = None,
) -> EnumerationExplainer | PermutationExplainer | KernelExplainer:
    """The explainer of a method by its name; of enumeration the config has the rows of a call.

    Cost: B model rows. Raises UnsupportedModelError when sampling is beyond its budget.
    """
    if method == "kernel":
        return KernelExplainer(evaluate, background, naming=naming, tolerance=tolerance)
    chosen = config or PermutationConfig()
    if method == "permutation":
        return PermutationExplainer(
            evaluate, background, naming=naming, tolerance=tolerance, config=chosen
        )
    return EnumerationExplainer(
        evaluate,
        background,
        naming=naming,
        tolerance=tolerance,
        rows_per_call=chosen.rows_per_call,
    )
