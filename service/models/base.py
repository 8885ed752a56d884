"""What the service needs of a model, whatever library it comes from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from explainers.base import Derivation, FloatArray, Level, Link, OutputSpace, RawColumns
from explainers.tree.ensemble import TreeEnsemble

Task = Literal["binary", "multiclass", "regression"]
Unknown = Literal["refuse", "missing", "ignore"]
"""What happens to a category level the model has not seen: refuse the row, hand it on as missing,
or hand it on as "none of the known levels" (code -1) where the fitted encoder ignores it."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What the library itself returned for N rows, in its own numbers (widened to float64).

    outputs: (N, C) in output_space, what explanations add up to.
    scores: (N, K) class probabilities of a classifier in class order, (N, 1) value otherwise.
    """

    outputs: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        # Slices of these are encoded as they lie in memory.
        object.__setattr__(self, "outputs", np.ascontiguousarray(self.outputs))
        object.__setattr__(self, "scores", np.ascontiguousarray(self.scores))


@dataclass(frozen=True, slots=True)
class AssumedLevels:
    """A column that got a level list which the artifact stores without saying whose it is.

    Only the training data can tell. codes are those seen in training, any for a constant column.
    """

    column: str
    codes: Collection[int]


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The raw columns the artifact itself knows about.

    names_are_given: the artifact stores none, so they are the caller's, in the caller's order.
    whole: columns that take whole numbers only, with the least and the greatest; None: any.
    """

    raw: RawColumns
    accepts_missing: tuple[bool, ...]
    unknown: tuple[Unknown, ...]
    names_are_given: bool = False
    assumed: tuple[AssumedLevels, ...] = ()
    whole: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TreeForm:
    """A tree model: ensemble over derived columns, reached from raw rows by derivation."""

    ensemble: TreeEnsemble
    derivation: Derivation


@dataclass(frozen=True, slots=True, eq=False)
class LinearForm:
    """outputs = derived @ coefficients + intercept; coefficients (P, C), intercept (C,)."""

    coefficients: FloatArray
    intercept: FloatArray
    derivation: Derivation


class NativeModel(Protocol):
    """A loaded model. Safe to call from several threads; a row's result never depends on which
    rows stand beside it in X.
    """

    @property
    def library(self) -> str:
        """Distribution whose code predicts: xgboost, lightgbm, catboost, scikit-learn,
        onnxruntime, torch.
        """
        ...

    @property
    def format(self) -> str:
        """How the artifact is stored: ubj, json, txt, cbm, skops, onnx, pt2."""
        ...

    @property
    def task(self) -> Task:
        """Binary, multiclass or regression."""
        ...

    @property
    def columns(self) -> InputColumns:
        """The raw columns in the artifact's own order."""
        ...

    @property
    def n_classes(self) -> int:
        """K for a classifier, 1 for regression."""
        ...

    @property
    def classes(self) -> tuple[Level, ...] | None:
        """In output order when the artifact stores them, else None."""
        ...

    @property
    def output_space(self) -> OutputSpace:
        """Unit of the outputs."""
        ...

    @property
    def link(self) -> Link:
        """From outputs to scores."""
        ...

    @property
    def is_float32(self) -> bool:
        """Model or served numbers are float32 (sets the additivity tolerance)."""
        ...

    @property
    def trees_used(self) -> int | None:
        """How many trees predict, None for a model without trees."""
        ...

    def predict(self, X: FloatArray) -> Served:
        """Served numbers of (N, F) raw rows in `columns.raw` order and coding."""
        ...

    def evaluate(self, X: FloatArray) -> FloatArray:
        """(N, C) outputs of many raw rows at once, in output_space: for estimates, not for answers.

        One call of the library for the batch, so a row's last bits may depend on N and on the rows
        beside it, where `predict`'s do not; the same X gives the same bits. ValueError as there.
        """
        ...

    def form(self) -> TreeForm | LinearForm:
        """What an exact explainer works on; UnsupportedModelError names why there is none."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A model that knows its derivatives, as integrated gradients need them."""

    def gradient(self, X: FloatArray) -> FloatArray:
        """(N, F, C) derivatives of the outputs by the columns; UnsupportedModelError where there
        are none, ValueError where the model cannot run.
        """
        ...


@runtime_checkable
class StoppedEarly(Protocol):
    """A model whose artifact may hold more trees than it serves."""

    @property
    def trees_stored(self) -> int:
        """How many trees the artifact holds."""
        ...


def binary_scores(positive: FloatArray) -> FloatArray:
    """(N,) probability of the second class to (N, 2), in its own precision."""
    both = np.empty((len(positive), 2), positive.dtype)
    both[:, 1] = positive
    np.subtract(1.0, positive, out=both[:, 0])
    return both
