"""The way around pandas: compiled preprocessing straight into the last step, where it is proven."""

import warnings
from dataclasses import dataclass

import numpy as np

from explainers.base import FloatArray, RawColumns
from explainers.derive import CompiledDerivation, compiled, is_same, proof_rows
from explainers.preprocess import PipelineDerivation, Reach
from service.models.base import Served
from service.models.sklearn_step import FinalStep

N_SERVED_ROWS = 32
LARGEST_SERVED = 1e30
"""Beyond it trees refuse the whole batch: float32 would overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Shortcut:
    """Compiled preprocessing and the last step behind it."""

    derivation: CompiledDerivation
    final: FinalStep

    def predict(self, X: FloatArray) -> Served | None:
        """What the pipeline would serve for (N, F) raw rows; None where only it can tell."""
        derived = self.derivation.plan(X)
        return None if derived is None else self.final.serve(derived)


def find_shortcut(
    pipeline: PipelineDerivation, final: FinalStep, columns: RawColumns, reach: Reach
) -> Shortcut | None:
    """The shortcut of a pipeline, None where it does not derive or serve the same bits."""
    derivation = compiled(pipeline, columns, reach)
    if derivation is None:
        return None
    rows = proof_rows(pipeline.trace, columns, reach)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _proven(derivation, final, rows)
        except ValueError:
            # The last step refuses what usual rows become: nothing to compare.
            return None


def _proven(derivation: CompiledDerivation, final: FinalStep, rows: FloatArray) -> Shortcut | None:
    rows = rows[derivation.plan.accepts(rows)]
    is_large = np.abs(derivation(rows)) > LARGEST_SERVED
    rows = rows[~is_large.any(axis=1)][:N_SERVED_ROWS]
    matrix = derivation.pipeline.matrix(rows)
    direct = final.for_derived(matrix)
    if direct is None or not len(rows):
        return None
    served, expected = direct.serve(derivation(rows)), final.serve(matrix)
    is_proven = is_same(served.outputs, expected.outputs) and is_same(
        served.scores, expected.scores
    )
    return Shortcut(derivation, direct) if is_proven else None
