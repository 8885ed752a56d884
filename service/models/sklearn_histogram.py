"""Histogram gradient boosting, served through its own predictors without the checks around."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from explainers.base import Derivation, FloatArray, Link, OutputSpace
from explainers.preprocess import dense
from explainers.tree.histogram import parse_histogram_boosting
from service.models.base import Served, TreeForm
from service.models.errors import ModelLoadError
from service.models.sklearn_joined import MOST_ROWS, JoinedTrees, Walk, join_predictors
from service.models.sklearn_step import Estimator, Matrix, Traits, classifier_units, with_columns

LINKS: dict[str, tuple[OutputSpace, Link]] = {
    "IdentityLink": ("raw", "identity"),
    "LogLink": ("log", "log"),
}


@dataclass(frozen=True, slots=True, eq=False)
class HistogramTrees:
    """Histogram gradient boosting behind its own preprocessor, which is a step of its own here."""

    traits: Traits
    estimator: Estimator
    walk_of: Callable[[Any], Walk]
    """How one of its trees is walked, with one thread."""

    joined: JoinedTrees | None
    is_classifier: bool

    @property
    def preprocessor(self) -> Estimator | None:
        """The fitted transformer that makes the rows `serve` takes; None without categories."""
        return self.estimator._preprocessor  # noqa: SLF001

    def serve(self, matrix: Matrix) -> Served:
        """The predictors' sum for rows the preprocessor made, and the loss's own inverse link."""
        raw = self._raw(with_columns(dense(matrix), self.estimator))
        if self.is_classifier:
            return Served(raw, self.estimator._loss.predict_proba(raw))  # noqa: SLF001
        value: FloatArray = self.estimator._loss.link.inverse(raw)  # noqa: SLF001
        return Served(raw, value)

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """What `serve` gives: it is one call."""
        return self.serve(matrix).outputs

    def for_derived(self, matrix: Matrix) -> "HistogramTrees":
        """Itself: trees are served dense rows alone."""
        del matrix
        return self

    def form(self, derivation: Derivation) -> TreeForm:
        """The trees over the columns its preprocessor makes."""
        return TreeForm(parse_histogram_boosting(self.estimator), derivation)

    def _raw(self, rows: FloatArray) -> FloatArray:
        if self.joined is None or len(rows) > MOST_ROWS:
            return self._raw_tree_by_tree(rows)
        start = self.estimator._baseline_prediction  # noqa: SLF001
        leaves = self.joined(rows).reshape(-1, start.shape[1], len(rows))
        terms = np.concatenate([np.repeat(start.T[None], len(rows), axis=2), leaves])
        # Not sum, which would add in pairs.
        raw: FloatArray = np.add.accumulate(terms)[-1].T
        return np.ascontiguousarray(raw)

    def _raw_tree_by_tree(self, rows: FloatArray) -> FloatArray:
        # Row-major, unlike the library's: summing many classes in column order would depend on
        # how many rows there are.
        raw: FloatArray = np.tile(self.estimator._baseline_prediction, (len(rows), 1))  # noqa: SLF001
        for stage in self.estimator._predictors:  # noqa: SLF001
            for output, predictor in enumerate(stage):
                raw[:, output] += self.walk_of(predictor)(rows)
        return raw


def histogram_step(estimator: Estimator) -> HistogramTrees | None:
    """The estimator's final step, None when it is something else."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if not isinstance(estimator, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        return None
    is_classifier = isinstance(estimator, HistGradientBoostingClassifier)
    space, link = classifier_units(estimator) if is_classifier else _regressor_units(estimator)
    predictors = list(chain.from_iterable(estimator._predictors))  # noqa: SLF001
    walk_of = _walk_of(estimator)
    return HistogramTrees(
        Traits(space, link, trees_used=len(predictors)),
        estimator,
        walk_of,
        join_predictors(predictors, walk_of, estimator.n_features_in_),
        is_classifier,
    )


def _walk_of(estimator: Estimator) -> Callable[[Any], Walk]:
    known_categories, set_of_column = estimator._bin_mapper.make_known_categories_bitsets()  # noqa: SLF001
    # One more, for the column that joined trees have.
    sets = np.append(set_of_column, set_of_column[:1])
    return lambda predictor: lambda rows: predictor.predict(rows, known_categories, sets, 1)


def _regressor_units(estimator: Estimator) -> tuple[OutputSpace, Link]:
    link = type(estimator._loss.link).__name__  # noqa: SLF001
    if link not in LINKS:
        raise ModelLoadError(f"{type(estimator).__qualname__}: {link} is not known here")
    return LINKS[link]
