"""Kernel SHAP by the shap library: for comparison, never what a version is served by."""

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from explainers.base import (
    Background,
    Engine,
    Explanation,
    FloatArray,
    IntArray,
    Interactions,
    Method,
    Naming,
    UnsupportedModelError,
)
from explainers.sampled.called import CalledExplainer, CalledModel, checked_seeds
from explainers.sampled.calls import ROWS_PER_CALL, Evaluate, ModelCalls, rows_called
from explainers.sampled.strata import NORMAL_QUANTILE, student_quantile

_GLOBAL_GENERATOR = Lock()
"""shap draws from numpy's one generator of the whole process, so that only one row at a time can
be drawn from its own seed. What else draws from it meanwhile changes both."""

MOST_BYTES = 1 << 29
"""Of one replicate's model rows."""


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """replicates: independent estimates, whose mean is the value and whose spread its standard
    error. coalitions: of each replicate at least, each evaluated on all background rows; all there
    are where a row has fewer, and 4 a column where it has many. Fewer than the 2 that hold or leave
    out one column alone gave a linear model's 300 values 2 times too large. Raises ValueError.
    """

    replicates: int = 8
    coalitions: int = 512
    rows_per_call: int = ROWS_PER_CALL

    def __post_init__(self) -> None:
        if self.replicates < 2 or self.coalitions < 1 or self.rows_per_call < 1:
            raise ValueError(f"two replicates at least, coalitions and rows from 1: {self}")

    def drawn(self, n_columns: int) -> int:
        """Coalitions of each replicate of a row, of so many columns."""
        return min(max(self.coalitions, 4 * n_columns), 1 << min(n_columns, 62))

    def model_rows(self, n_columns: int, n_background_rows: int) -> int:
        """Of a row that differs from the background in all columns: what it takes at most.

        Raises UnsupportedModelError where a replicate's rows, which shap makes all at once, take
        more than MOST_BYTES.
        """
        rows = self.drawn(n_columns) * n_background_rows
        taken = 8 * rows * n_columns
        if taken > MOST_BYTES:
            raise UnsupportedModelError(
                f"kernel SHAP of {n_columns} columns and {n_background_rows} background rows takes "
                f"{taken >> 20} MiB at once, more than the {MOST_BYTES >> 20} allowed"
            )
        parts = rows, n_background_rows, 1
        return self.replicates * sum(rows_called(part, self.rows_per_call) for part in parts)


class KernelExplainer(CalledExplainer):
    """The weighted regression whose solution is the Shapley values, by `shap.KernelExplainer`.

    A new one for every estimate: one shared by threads returns wrong numbers. The estimate is
    consistent, not unbiased, so its standard errors are less well founded than those of
    permutation sampling, and columns within 1e-5 of all background rows count as equal. Values of
    a row add up to its output less the base value. Cost: `KernelConfig.model_rows`, which says
    what it raises. Source: Lundberg and Lee 2017, theorem 2.
    """

    method: Method = "kernel"
    engine: Engine = "sampler"
    exact: bool = False

    def __init__(
        self,
        evaluate: Evaluate,
        background: Background,
        *,
        naming: Naming,
        tolerance: float,
        config: KernelConfig | None = None,
    ) -> None:
        self.config = config or KernelConfig()
        self.config.model_rows(background.rows.shape[1], len(background.rows))
        model = CalledModel(evaluate, background, naming, self.config.rows_per_call)
        super().__init__(model, tolerance=tolerance)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        """Attribute each output of each row of X, (N, F) raw columns in schema order.

        seeds: (N,) from 0 to below 2^53, each row's own; all 0 when not given. One row at a time
        in the whole process.
        """
        drawn = checked_seeds(seeds, len(X))
        naming = self._model.naming
        values = np.empty((len(X), len(naming.features), len(naming.outputs)))
        errors = np.empty_like(values)
        evaluations = 0
        for i, (x, seed) in enumerate(zip(X, drawn.tolist(), strict=True)):
            calls = self._model.calls()
            values[i], errors[i] = self._estimated(x, seed, calls)
            evaluations += calls.evaluations
        return self._model.explanation(
            values,
            method=self.method,
            engine=self.engine,
            model_evaluations=evaluations,
            standard_errors=errors,
            seeds=drawn,
        )

    def interactions(self, X: FloatArray, *, seeds: IntArray | None = None) -> Interactions:  # noqa: ARG002 (always refused)
        """Refused: UnsupportedModelError."""
        raise UnsupportedModelError("kernel SHAP estimates no interactions")

    def against(self, background: Background) -> "KernelExplainer":
        """The same model's explainer over another background, (B, F). Cost: B model rows.

        Raises ValueError when the background has another number of columns.
        """
        return KernelExplainer(
            self._model.evaluate,
            background,
            naming=self._model.naming,
            tolerance=self.tolerance,
            config=self.config,
        )

    def warm_up(self) -> None:
        """Import shap, and call the model once."""
        import shap  # noqa: F401 (takes seconds)

        super().warm_up()

    def _estimated(
        self, x: FloatArray, seed: int, calls: ModelCalls
    ) -> tuple[FloatArray, FloatArray]:
        """(F, C) values and standard errors: replicates' mean, and its own spread."""
        n_replicates = self.config.replicates
        with _GLOBAL_GENERATOR:
            kept = np.random.get_state()  # noqa: NPY002 (what shap draws from)
            try:
                np.random.seed(_words(seed))  # noqa: NPY002
                found = np.stack([self._replicate(x, calls) for _ in range(n_replicates)])
            finally:
                np.random.set_state(kept)  # noqa: NPY002
        widened = student_quantile(np.array(n_replicates - 1.0)) / NORMAL_QUANTILE
        return found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n_replicates) * widened

    def _replicate(self, x: FloatArray, calls: ModelCalls) -> FloatArray:
        from shap import KernelExplainer as ShapKernelExplainer

        explainer: Any = ShapKernelExplainer(calls, self._model.background.rows)
        values: FloatArray = explainer.shap_values(
            x, nsamples=self.config.drawn(len(x)), l1_reg=False, silent=True
        )
        return np.asarray(values).reshape(-1, len(self._model.naming.outputs))


def _words(seed: int) -> list[int]:
    """A seed below 2^53 as the 32-bit words that numpy's old generator takes."""
    return [seed & 0xFFFF_FFFF, seed >> 32]
