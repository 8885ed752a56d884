"""Estimators of which nothing is known: their own predictions, and no explanation."""

from dataclasses import dataclass

import numpy as np

from explainers.base import Derivation, FloatArray, OutputSpace, UnsupportedModelError
from service.models.base import LinearForm, Served, TreeForm
from service.models.sklearn_step import Estimator, Matrix, Traits, classified, named


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Any other estimator: served through its public methods, never explained exactly."""

    traits: Traits
    estimator: Estimator
    is_classifier: bool
    why: str

    def serve(self, matrix: Matrix) -> Served:
        """One call per row, since nothing is known about how the rows of a batch interact."""
        # A copy, because a row that is a view of its batch reaches other code in BLAS.
        rows = (matrix[index : index + 1].copy() for index in range(matrix.shape[0]))
        return self._served(np.concatenate([self._answers(row) for row in rows]))

    def evaluate(self, matrix: Matrix) -> FloatArray:
        """One call for the batch."""
        return self._served(self._answers(matrix)).outputs

    def _answers(self, matrix: Matrix) -> FloatArray:
        predict = self.estimator.predict_proba if self.is_classifier else self.estimator.predict
        answers: FloatArray = np.asarray(predict(named(self.estimator, matrix)), dtype=np.float64)
        return answers.reshape(matrix.shape[0], -1)

    def _served(self, answers: FloatArray) -> Served:
        return classified(answers) if self.is_classifier else Served(answers, answers)

    def for_derived(self, matrix: Matrix) -> None:
        """None: registration proves the derived rows of what it can explain, and no others."""
        del matrix

    def form(self, derivation: Derivation) -> TreeForm | LinearForm:
        """Raises UnsupportedModelError."""
        del derivation
        raise UnsupportedModelError(self.why)


def opaque_step(estimator: Estimator, why: str) -> Opaque:
    """The final step of such an estimator; why: what its form raises."""
    is_classifier = hasattr(estimator, "classes_")
    space: OutputSpace = "probability" if is_classifier else "raw"
    return Opaque(Traits(space, "identity"), estimator, is_classifier, why)
