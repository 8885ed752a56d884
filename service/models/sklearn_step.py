"""What every kind of last step of a scikit-learn model shares."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from explainers.base import Derivation, FloatArray, Link, OutputSpace
from service.models.base import LinearForm, Served, TreeForm

Estimator = Any
"""A fitted estimator of scikit-learn, or one that follows its conventions."""

Matrix = Any
"""Prepared rows as a pipeline hands them to its last step: array, DataFrame or sparse."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What `NativeModel` declares of a model, as far as its last step decides."""

    output_space: OutputSpace
    link: Link
    library: str = "scikit-learn"
    is_float32: bool = False
    trees_used: int | None = None
    absent: float = 0.0
    """What the estimator reads where a sparse matrix stores nothing."""


class FinalStep(Protocol):
    """The estimator behind the preprocessing."""

    @property
    def traits(self) -> Traits:
        """Units and origin of what it serves."""
        ...

    def serve(self, matrix: Matrix) -> Served:
        """What the library returns for prepared rows; each row gets what it gets alone."""
        ...

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """(N, C) outputs from one call; a row's last bits may depend on the rows beside it."""
        ...

    def for_derived(self, matrix: Matrix) -> "FinalStep | None":
        """What serves dense float64 rows as this one serves matrices of the given kind, if any."""
        ...

    def form(self, derivation: Derivation) -> TreeForm | LinearForm:
        """The explainable form; UnsupportedModelError when there is none."""
        ...


def classifier_units(estimator: Estimator) -> tuple[OutputSpace, Link]:
    """Log-odds of two classes, margins of more."""
    return ("log_odds", "logit") if len(estimator.classes_) == 2 else ("margin", "softmax")


def classified(probabilities: FloatArray) -> Served:
    """Probabilities (N, K) as scores and, of the positive class or of each class, as outputs."""
    is_binary = probabilities.shape[1] == 2
    return Served(probabilities[:, 1:] if is_binary else probabilities, probabilities)


def named(estimator: Estimator, matrix: Matrix) -> Matrix:
    """The matrix under the column names the estimator was fitted on, if any."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not isinstance(matrix, np.ndarray):
        return matrix
    import pandas as pd

    return pd.DataFrame(matrix, columns=names)


def with_columns(rows: FloatArray, estimator: Estimator) -> FloatArray:
    """The rows; ValueError unless they have the estimator's columns: its trees do not look."""
    if rows.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"{rows.shape[1]} derived columns for trees that read {estimator.n_features_in_}"
        )
    return rows
