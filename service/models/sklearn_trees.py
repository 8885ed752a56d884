"""Trees, forests and gradient boosting, served without the checks and threads around them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainers.base import Derivation, FloatArray, OutputSpace, UnsupportedModelError
from explainers.derive import is_same
from explainers.preprocess import dense
from explainers.tree.sklearn import averaged_trees, constant_start, parse_sklearn
from service.models.base import Served, TreeForm
from service.models.sklearn_joined import MOST_ROWS, JoinedTrees, join_trees
from service.models.sklearn_opaque import Opaque, opaque_step
from service.models.sklearn_step import (
    Estimator,
    Matrix,
    Traits,
    classified,
    classifier_units,
    with_columns,
)

PROOF_ROWS = 32


@dataclass(frozen=True, slots=True, eq=False)
class AveragedTrees:
    """A tree or a forest: the mean of its trees' class shares or values."""

    traits: Traits
    estimator: Estimator
    trees: tuple[Any, ...]
    joined: JoinedTrees | None
    is_classifier: bool

    def serve(self, matrix: Matrix) -> Served:
        """Adds the trees in order, as the library does with n_jobs=1 (else its order varies)."""
        mean = self._total(as_float32(matrix, self.estimator)) / len(self.trees)
        return classified(mean) if self.is_classifier else Served(mean, mean)

    def _total(self, rows: NDArray[np.float32]) -> FloatArray:
        if self.joined is not None and len(rows) <= MOST_ROWS:
            total: FloatArray = np.add.accumulate(self.joined(rows))[-1]
            return total
        total = self.trees[0].predict(rows)
        for tree in self.trees[1:]:
            total += tree.predict(rows)
        return total

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """What `serve` gives: it is one call."""
        return self.serve(matrix).outputs

    def for_derived(self, matrix: Matrix) -> "AveragedTrees":
        """Itself: trees are served dense rows alone."""
        del matrix
        return self

    def form(self, derivation: Derivation) -> TreeForm:
        """The trees."""
        return TreeForm(parse_sklearn(self.estimator), derivation)


@dataclass(frozen=True, slots=True, eq=False)
class BoostedTrees:
    """Gradient boosting: the raw sum, and the loss's own link to class probabilities."""

    traits: Traits
    estimator: Estimator
    start: FloatArray | None
    """(C,) what every row's sum starts from, where `raw_from` is proven."""

    is_classifier: bool

    def serve(self, matrix: Matrix) -> Served:
        """Both from one pass over the trees, where predict_proba would make a second."""
        rows = as_float32(matrix, self.estimator)
        if self.start is None:
            raw: FloatArray = self.estimator._raw_predict(rows)  # noqa: SLF001
        else:
            raw = raw_from(self.start, self.estimator, rows)
        if not self.is_classifier:
            return Served(raw, raw)
        flat = raw.ravel() if raw.shape[1] == 1 else raw
        return Served(raw, self.estimator._loss.predict_proba(flat))  # noqa: SLF001

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """What `serve` gives: it is one call."""
        return self.serve(matrix).outputs

    def for_derived(self, matrix: Matrix) -> "BoostedTrees":
        """Itself: trees are served dense rows alone."""
        del matrix
        return self

    def form(self, derivation: Derivation) -> TreeForm:
        """The trees."""
        return TreeForm(parse_sklearn(self.estimator), derivation)


def averaged_step(estimator: Estimator) -> AveragedTrees | None:
    """The final step of a tree or forest, None for any other estimator."""
    trees = averaged_trees(estimator)
    if trees is None:
        return None
    is_classifier = hasattr(estimator, "classes_")
    space: OutputSpace = "probability" if is_classifier else "raw"
    traits = Traits(space, "identity", trees_used=len(trees))
    return AveragedTrees(traits, estimator, tuple(trees), join_trees(trees), is_classifier)


def boosted_step(estimator: Estimator) -> BoostedTrees | Opaque | None:
    """The final step of gradient boosting, None for any other estimator."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    is_classifier = isinstance(estimator, GradientBoostingClassifier)
    if not is_classifier and not isinstance(estimator, GradientBoostingRegressor):
        return None
    if is_classifier and estimator.loss != "log_loss":
        why = f"GradientBoostingClassifier with loss={estimator.loss!r} has no exact explainer"
        return opaque_step(estimator, why)
    units = classifier_units(estimator) if is_classifier else ("raw", "identity")
    traits = Traits(*units, trees_used=estimator.estimators_.size)
    return BoostedTrees(traits, estimator, _proven_start(estimator), is_classifier)


def raw_from(start: FloatArray, estimator: Estimator, rows: NDArray[np.float32]) -> FloatArray:
    """(N, C) sums of the trees from a known start on, which the library derives for every row."""
    from sklearn.ensemble._gradient_boosting import predict_stages

    raw: FloatArray = np.tile(start, (len(rows), 1))
    predict_stages(estimator.estimators_, rows, estimator.learning_rate, raw)
    return raw


def as_float32(matrix: Matrix, estimator: Estimator) -> NDArray[np.float32]:
    """Prepared rows as scikit-learn's trees read them, without looking how wide they are.

    ValueError where float32 overflows, or the estimator knows another number of columns.
    """
    with np.errstate(over="ignore"):
        rows = with_columns(dense(matrix), estimator).astype(np.float32)
    if np.isinf(rows).any():
        raise ValueError("a derived value is infinite, or too large for float32")
    return rows


def _proven_start(estimator: Estimator) -> FloatArray | None:
    """The constant start where it leads to the bits of the library's own sum, else None."""
    shape = (PROOF_ROWS, estimator.n_features_in_)
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    try:
        start = constant_start(estimator)
        raw = raw_from(start, estimator, rows)
    except (AttributeError, ImportError, TypeError, ValueError, UnsupportedModelError):
        return None
    return start if is_same(raw, estimator._raw_predict(rows)) else None  # noqa: SLF001
