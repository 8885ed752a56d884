"""From a loaded model to its explainers."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from explainers.base import (
    Background,
    Engine,
    Explainer,
    IntArray,
    MalformedModelError,
    Naming,
)
from explainers.choose import build_explainer
from explainers.sampled.choose import (
    affordable,
    build_by_method,
    choose_method,
)
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer
from explainers.tree.explainer import TreeEngine
from service.models.base import LinearForm, NativeModel, TreeForm
from service.registry.manifest import CallsEntry, ExplainerEntry

TOLERANCE = {True: 1e-5, False: 1e-9}
"""Largest additivity error that passes: wider where model or served output is float32."""

INLINE_ENGINES: frozenset[Engine] = frozenset({"table", "walk", "closed_form"})
"""Those that need no call of the model, so that an answer may wait for them. The others run in
workers only.
"""


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


@dataclass(frozen=True, slots=True, eq=False)
class CalledFactory:
    """Builds the explainers of a model without an exact form, from calls of it alone."""

    native: NativeModel
    naming: Naming
    method: Literal["permutation", "exact"]
    config: PermutationConfig
    """Of the sampler; of enumeration only the rows per call."""

    @classmethod
    def affordable(
        cls, native: NativeModel, naming: Naming, background: Background, *, seconds_per_row: float
    ) -> "CalledFactory":
        """By enumeration where a row's coalitions are few and soon evaluated, else by sampling."""
        n_rows, n_columns = background.rows.shape
        config = PermutationConfig()
        method = choose_method(n_columns, n_rows, seconds_per_row=seconds_per_row, config=config)
        config = affordable(config, n_columns, n_rows, seconds_per_row=seconds_per_row)
        return cls(native, naming, method, config)

    @classmethod
    def recorded(
        cls, native: NativeModel, naming: Naming, entry: ExplainerEntry
    ) -> "CalledFactory":
        """As a version was registered with; MalformedModelError where it does not say how."""
        calls, method = entry.calls, entry.method
        if calls is None or method not in ("permutation", "exact"):
            raise MalformedModelError(f"the manifest does not say how {method!r} calls the model")
        return cls(native, naming, method, PermutationConfig(**calls.model_dump()))

    @property
    def is_exact(self) -> bool:
        """Its explainers enumerate instead of sampling."""
        return self.method == "exact"

    @property
    def tolerance(self) -> float:
        """Largest additivity error that passes."""
        return TOLERANCE[self.native.is_float32]

    @property
    def calls(self) -> CallsEntry:
        """What a manifest records of it."""
        return CallsEntry(**asdict(self.config))

    def build(
        self,
        background: Background,
        *,
        config: PermutationConfig | None = None,
    ) -> EnumerationExplainer | PermutationExplainer:
        """An explainer over this background; config: another than the version's, to prove it.

        Cost: the background's rows. Raises UnsupportedModelError when a row takes more model rows
        than are allowed.
        """
        explainer = build_by_method(
            self.method,
            self.native.evaluate,
            background,
            naming=self.naming,
            tolerance=self.tolerance,
            config=config or self.config,
        )
        assert isinstance(explainer, EnumerationExplainer | PermutationExplainer)
        return explainer
