"""Two versions on the same rows: what each predicts, and how each explains it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from explainers.base import Explainer, FloatArray, IntArray, Values
from service.errors import CheckFailedError
from service.quality.measuring import NOISE_FLOOR
from service.quality.stability import NEIGHBOURS, Surroundings, mean_cosine, neighbours_of
from service.registry import RegisteredModel

NEIGHBOUR_ROWS = 50
EXPLAINED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much is explained: rows at most, and seconds of each version that has to be called."""

    explained_rows: int = 500
    seconds: float = 120.0
    seed: int = 0

    def rows_of(self, model: RegisteredModel, n_rows: int) -> int:
        """How many of its rows are explained, by its calibrated cost."""
        most = min(n_rows, self.explained_rows)
        if model.runs_inline:
            return most
        return min(most, int(self.seconds / max(model.manifest.cost.explain_row, 1e-6)))


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One version on N rows X (N, F), in its own columns and coding: scores (N, K), outputs (N, C),
    and values (M, F, C) of the first M rows, None where it is not explained.
    """

    model: RegisteredModel
    X: FloatArray
    scores: FloatArray
    outputs: FloatArray
    values: Values | None
    stability: float | None

    @classmethod
    def of(cls, model: RegisteredModel, X: FloatArray, *, explained: int, seed: int) -> Self:
        """Predict and explain. Cost: M + 50 * 11 explanations.

        Raises CheckFailedError where the model fails on rows its schema takes.
        """
        try:
            served = model.native.predict(X)
            values = stability = None
            if model.explainer is not None and explained:
                values = explain(model.explainer, X[:explained])
                n_centres = max(1, min(NEIGHBOUR_ROWS, explained // (NEIGHBOURS + 1)))
                stability = _stability(model, model.explainer, X[:n_centres], seed)
        except (ValueError, FloatingPointError) as error:
            raise CheckFailedError(f"{model.name}:{model.version} failed: {error}") from error
        return cls(model, X, served.scores, served.outputs, values, stability)


def explain(explainer: Explainer, X: FloatArray) -> Values:
    """(N, F, C). Each row's seed is its place: both versions' estimates share their draws."""
    seeds = np.arange(len(X), dtype=np.int64)
    parts = [
        explainer.explain(X[i : i + EXPLAINED_AT_ONCE], seeds=seeds[i : i + EXPLAINED_AT_ONCE])
        for i in range(0, len(X), EXPLAINED_AT_ONCE)
    ]
    return np.concatenate([part.values for part in parts])


def _stability(model: RegisteredModel, explainer: Explainer, X: FloatArray, seed: int) -> float:
    """Mean cosine of a row's values with those of its neighbours, as it is measured of what is
    served; 1 where no row has both values and a neighbour.
    """
    around, draws = Surroundings.of(model), np.random.default_rng(seed)
    near = [neighbours_of(x, around, draws) for x in X]
    values = explain(explainer, np.concatenate([X, *near]))
    others = np.split(values[len(X) :], np.cumsum([len(rows) for rows in near])[:-1])
    floor = NOISE_FLOOR * float(np.max(explainer.output_scale))
    found = [
        mean_cosine(own, beside, floor)
        for own, beside in zip(values, others, strict=False)
        if len(beside) and np.linalg.norm(own) > floor
    ]
    return float(np.mean(found)) if found else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The old version and the new one on the same rows, in the same order; labels (N,) or None."""

    old: Side
    new: Side
    labels: Sequence[object] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those both read, in the old one's order."""
        return tuple(name for name in self.old.model.schema.names if name in self._new_names)

    @property
    def _new_names(self) -> tuple[str, ...]:
        return self.new.model.schema.names

    def places(self, side: Side) -> IntArray:
        """Of `columns` in that version's rows."""
        names = side.model.schema.names
        return np.array([names.index(name) for name in self.columns], dtype=np.int64)

    @property
    def is_comparable(self) -> bool:
        """The outputs mean the same."""
        old, new = self.old.model.manifest, self.new.model.manifest
        spaces = old.explainer.output_space == new.explainer.output_space
        same = old.task == new.task and old.classes == new.classes
        return spaces and same and old.explainer.output_names == new.explainer.output_names

    def common_values(self) -> tuple[Values, Values] | None:
        """Values of the columns both read, of the rows both explained; None without any."""
        old, new = self.old.values, self.new.values
        if old is None or new is None or not self.is_comparable or not self.columns:
            return None
        n_rows = min(len(old), len(new))
        return (
            old[:n_rows][:, self.places(self.old)],
            new[:n_rows][:, self.places(self.new)],
        )
