"""The last step of a scikit-learn model: how it serves prepared rows, and what explains it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from explainers.base import Derivation, FloatArray, Link, OutputSpace, UnsupportedModelError
from explainers.preprocess import dense, is_sparse
from service.models.base import LinearForm, NativeModel, Served, TreeForm, binary_scores
from service.models.errors import ModelLoadError
from service.models.sklearn_histogram import histogram_trees
from service.models.sklearn_step import (
    Estimator,
    FinalStep,
    Matrix,
    Traits,
    classified,
    classifier_units,
)
from service.models.sklearn_trees import averaged_trees, boosted_trees

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


@dataclass(frozen=True, slots=True, eq=False)
class Booster:
    """An XGBoost or LightGBM model that reads derived columns, behind its own adapter."""

    traits: Traits
    model: NativeModel

    def serve(self, matrix: Matrix) -> Served:
        """What the booster returns for the derived rows."""
        return self.model.predict(dense(matrix, absent=self.traits.absent))

    def for_derived(self, matrix: Matrix) -> "Booster":
        """Itself: boosters are served dense rows alone."""
        del matrix
        return self

    def form(self, derivation: Derivation) -> TreeForm:
        """The booster's trees over the derived columns."""
        form = self.model.form()
        assert isinstance(form, TreeForm)
        return TreeForm(form.ensemble, derivation)


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Any other estimator: served through its public methods, never explained exactly."""

    traits: Traits
    estimator: Estimator
    is_classifier: bool
    why: str

    def serve(self, matrix: Matrix) -> Served:
        """One call per row, since nothing is known about how the rows of a batch interact."""
        predict = self.estimator.predict_proba if self.is_classifier else self.estimator.predict
        n_rows = matrix.shape[0]
        # A copy, because a row that is a view of its batch reaches other code in BLAS.
        rows = (matrix[index : index + 1].copy() for index in range(n_rows))
        served = [predict(named(self.estimator, row)) for row in rows]
        answers = np.concatenate(served).astype(np.float64).reshape(n_rows, -1)
        return classified(answers) if self.is_classifier else Served(answers, answers)

    def for_derived(self, matrix: Matrix) -> None:
        """None: registration proves the derived rows of what it can explain, and no others."""
        del matrix

    def form(self, derivation: Derivation) -> TreeForm | LinearForm:
        """Raises UnsupportedModelError."""
        del derivation
        raise UnsupportedModelError(self.why)


def final_step(estimator: Estimator) -> FinalStep:
    """Choose how the estimator is served and explained.

    ModelLoadError when it serves neither class probabilities nor one number per row.
    """
    from sklearn.base import is_classifier, is_regressor

    name = type(estimator).__qualname__
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise ModelLoadError(f"{name} is neither a classifier nor a regressor")
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise ModelLoadError(f"{name} has no predict_proba; wrap it in CalibratedClassifierCV")
    if is_classifier(estimator) and len(estimator.classes_) < 2:
        raise ModelLoadError(f"{name} knows a single class")
    if _target_count(estimator) > 1:
        raise ModelLoadError(f"{name}: several targets; register one model per target")
    makers = (_wrapped_booster, averaged_trees, _boosted_trees, histogram_trees, _linear)
    found = (make(estimator) for make in makers)
    return next((step for step in found if step is not None), None) or _opaque(
        estimator, f"{name} has no exact explainer"
    )


def named(estimator: Estimator, matrix: Matrix) -> Matrix:
    """The matrix under the column names the estimator was fitted on, if any."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not isinstance(matrix, np.ndarray):
        return matrix
    import pandas as pd

    return pd.DataFrame(matrix, columns=names)


def _compact(matrix: Matrix) -> Matrix:
    if hasattr(matrix, "tocsr"):
        return matrix
    rows = np.ascontiguousarray(matrix)
    return rows.astype(np.float64) if rows.dtype == object else rows


def _target_count(estimator: Estimator) -> int:
    if isinstance(getattr(estimator, "classes_", None), list):
        return len(estimator.classes_)
    coefficients = np.shape(getattr(estimator, "coef_", ()))
    if not hasattr(estimator, "classes_") and len(coefficients) == 2:
        return int(coefficients[0])
    return int(getattr(estimator, "n_outputs_", 1))


def _opaque(estimator: Estimator, why: str) -> Opaque:
    is_classifier = hasattr(estimator, "classes_")
    space: OutputSpace = "probability" if is_classifier else "raw"
    return Opaque(Traits(space, "identity"), estimator, is_classifier, why)


def _wrapped_booster(estimator: Estimator) -> FinalStep | None:
    family = type(estimator).__module__.partition(".")[0]
    if family == "xgboost":
        from service.models.xgboost import dump_xgboost, load_xgboost

        # XGBoost reads what a sparse matrix does not store as missing, LightGBM as zero.
        data, _ = dump_xgboost(estimator)
        return _booster(load_xgboost(data, format="ubj", behind_steps=True), absent=np.nan)
    if family == "lightgbm":
        from service.models.lightgbm import dump_lightgbm, load_lightgbm

        data, _ = dump_lightgbm(estimator)
        return _booster(load_lightgbm(data, behind_steps=True), absent=0.0)
    return None


def _booster(model: NativeModel, *, absent: float) -> Booster:
    traits = Traits(
        model.output_space, model.link, model.library, model.is_float32, model.trees_used, absent
    )
    return Booster(traits, model)


def _boosted_trees(estimator: Estimator) -> FinalStep | None:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    if isinstance(estimator, GradientBoostingRegressor):
        traits = Traits("raw", "identity", trees_used=estimator.estimators_.size)
        return boosted_trees(estimator, traits)
    if not isinstance(estimator, GradientBoostingClassifier):
        return None
    if estimator.loss != "log_loss":
        why = f"GradientBoostingClassifier with loss={estimator.loss!r} has no exact explainer"
        return _opaque(estimator, why)
    space, link = classifier_units(estimator)
    traits = Traits(space, link, trees_used=estimator.estimators_.size)
    return boosted_trees(estimator, traits)


def _linear(estimator: Estimator) -> FinalStep | None:
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
