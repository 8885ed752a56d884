"""Linear models, served with one product a row whatever the batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from explainers.base import Derivation, FloatArray, Link, OutputSpace
from explainers.preprocess import is_sparse
from service.models.base import LinearForm, Served, binary_scores
from service.models.sklearn_step import Estimator, Matrix, Traits, classifier_units

MOST_PRODUCTS = 1 << 18
"""Of a row's columns and outputs, in memory at a time unless one row has more: 2 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """coef_ and intercept_ behind a link."""

    traits: Traits
    estimator: Estimator
    scores_of: Callable[[Matrix], Matrix]
    """From (N, C) outputs to (N, K) scores, each row's as if alone."""

    in_column_order: bool = False
    """Add column by column, as a sparse product does, where a dense one would use BLAS."""

    def serve(self, matrix: Matrix) -> Served:
        """One product per row: a batch's product has other last bits than its rows' products."""
        rows = _compact(matrix)
        products = self._products(rows) + self.estimator.intercept_
        outputs = products.reshape(rows.shape[0], -1)
        return Served(outputs.astype(np.float64), self.scores_of(outputs).astype(np.float64))

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """What `serve` gives: it is one call."""
        return self.serve(matrix).outputs

    def for_derived(self, matrix: Matrix) -> "Linear":
        """Itself, adding in the order in which sparse rows are multiplied if these are sparse."""
        return replace(self, in_column_order=is_sparse(matrix))

    def _products(self, rows: Matrix) -> FloatArray:
        weights = self.estimator.coef_.T
        if is_sparse(rows):
            n_rows = rows.shape[0]
            return np.concatenate([rows[index : index + 1] @ weights for index in range(n_rows)])
        if not self.in_column_order:
            # A stack of one-row matrices: BLAS is called for each.
            stacked: FloatArray = rows[:, None, :] @ weights
            return stacked.reshape(len(rows), -1)
        by_column = weights.reshape(len(weights), -1)
        at_once = max(MOST_PRODUCTS // by_column.size, 1)
        sums = np.empty((len(rows), by_column.shape[1]), np.result_type(rows, weights))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            sums[part] = np.add.accumulate(rows[part, :, None] * by_column, 1)[:, -1]
        return sums

    def form(self, derivation: Derivation) -> LinearForm:
        """Coefficients (P, C) and intercept (C,) in float64."""
        coefficients = np.atleast_2d(self.estimator.coef_).T.astype(np.float64)
        intercept = np.broadcast_to(self.estimator.intercept_, coefficients.shape[1:])
        return LinearForm(coefficients, intercept.astype(np.float64), derivation)


def linear_step(estimator: Estimator) -> Linear | None:
    """The final step of a linear model, None for any other estimator or a loss without a link."""
    from sklearn import linear_model
    from sklearn.linear_model._base import LinearModel

    if isinstance(estimator, linear_model.LogisticRegression | linear_model.LogisticRegressionCV):
        return _logistic(estimator)
    if isinstance(estimator, linear_model.SGDClassifier):
        # Of several classes it normalises one-vs-rest probabilities, which no link undoes.
        is_logistic = estimator.loss == "log_loss" and len(estimator.classes_) == 2
        return _logistic(estimator) if is_logistic else None
    generalised = (
        linear_model.PoissonRegressor,
        linear_model.GammaRegressor,
        linear_model.TweedieRegressor,
    )
    if isinstance(estimator, generalised):
        return _generalised(estimator)
    if isinstance(estimator, LinearModel):
        return Linear(_linear_traits(estimator, "raw", "identity"), estimator, np.asarray)
    return None


def _logistic(estimator: Estimator) -> Linear:
    space, link = classifier_units(estimator)
    scores_of = _expit if link == "logit" else _softmax
    return Linear(_linear_traits(estimator, space, link), estimator, scores_of)


def _generalised(estimator: Estimator) -> Linear:
    if type(estimator._base_loss.link).__name__ == "LogLink":  # noqa: SLF001
        return Linear(_linear_traits(estimator, "log", "log"), estimator, np.exp)
    return Linear(_linear_traits(estimator, "raw", "identity"), estimator, np.asarray)


def _linear_traits(estimator: Estimator, space: OutputSpace, link: Link) -> Traits:
    return Traits(space, link, is_float32=estimator.coef_.dtype == np.float32)


def _expit(log_odds: Matrix) -> Matrix:
    from scipy.special import expit

    return binary_scores(expit(log_odds[:, 0]))


def _softmax(margins: Matrix) -> Matrix:
    # In the order of scikit-learn's own softmax, for the same last bits.
    shares = np.exp(margins - margins.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _compact(matrix: Matrix) -> Matrix:
    if hasattr(matrix, "tocsr"):
        return matrix
    rows = np.ascontiguousarray(matrix)
    return rows.astype(np.float64) if rows.dtype == object else rows
