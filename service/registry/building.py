"""From a loaded model to its explainers."""

from dataclasses import dataclass

import numpy as np

from explainers.base import Background, Explainer, IntArray, Naming
from explainers.choose import build_explainer
from explainers.tree.explainer import TreeEngine
from service.models.base import LinearForm, NativeModel, TreeForm

TOLERANCE = {True: 1e-5, False: 1e-9}
"""Largest additivity error that passes: wider where model or served output is float32."""


@dataclass(frozen=True, slots=True, eq=False)
class ExplainerFactory:
    """Builds the explainers of one model: the one that serves, and the walk that checks it."""

    form: TreeForm | LinearForm
    naming: Naming
    tolerance: float

    @classmethod
    def for_model(cls, native: NativeModel, naming: Naming) -> "ExplainerFactory":
        """Raises UnsupportedModelError when the model has no exact explainer."""
        return cls(native.form(), naming, TOLERANCE[native.is_float32])

    def unused_columns(self, n_columns: int) -> IntArray:
        """Raw columns in no split and without a coefficient."""
        form = self.form
        if isinstance(form, TreeForm):
            tested = form.ensemble.column
            derived = np.unique(tested[tested >= 0]).astype(np.int64)
        else:
            derived = np.flatnonzero(form.coefficients.any(axis=1))
        return np.setdiff1d(np.arange(n_columns), form.derivation.players[derived])

    def build(
        self,
        background: Background,
        *,
        engine: TreeEngine = "auto",
        stored_tables: bytes | None = None,
    ) -> Explainer:
        """An explainer over this background; `build_explainer` says which, and what it raises."""
        form = self.form
        parts = form.ensemble if isinstance(form, TreeForm) else (form.coefficients, form.intercept)
        return build_explainer(
            parts,
            background,
            form.derivation,
            naming=self.naming,
            tolerance=self.tolerance,
            engine=engine,
            stored_tables=stored_tables,
        )
