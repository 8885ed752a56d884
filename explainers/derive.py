"""The derivation that serves: compiled where it equals the library's steps to the bit."""

import warnings

import numpy as np

from explainers.base import Derivation, FloatArray, IntArray, MalformedModelError, RawColumns
from explainers.compiled import Plan, compile_plan, level_rows, usual_numbers
from explainers.preprocess import PipelineDerivation, Reach
from explainers.steps import StepTrace

N_USUAL_ROWS = 240
N_EXTREME_ROWS = 840
MISSING_SHARE = 0.15
FEWEST_PROVEN_ROWS = 100
N_SINGLE_ROWS = 3

EXTREMES = np.array(
    [0.0, 5e-324, 2.3e-308, 1e-300, 1e-30, 1e-9, 1e-3, 7.0, 100.0, 1e5, 1e9, 1e30, 1e200, 1.7e308]
)


class CompiledDerivation:
    """A plan that was proven, and the fitted steps for the rows it does not answer for."""

    players: IntArray

    def __init__(self, plan: Plan, pipeline: PipelineDerivation) -> None:
        self.plan = plan
        self.pipeline = pipeline
        self.players = pipeline.players

    def __call__(self, X: FloatArray) -> FloatArray:
        """(N, F) raw rows, finite or NaN, to (N, P) derived rows."""
        derived = self.plan(X)
        return self.pipeline(X) if derived is None else derived

    def agrees(self, X: FloatArray) -> bool:
        """Whether the fitted steps make the same, to the bit, of all rows the plan answers for."""
        accepted = X[self.plan.accepts(X)]
        return not len(accepted) or _is_alike(self.plan, self.pipeline, accepted)


def compiled(
    pipeline: PipelineDerivation, columns: RawColumns, reach: Reach
) -> CompiledDerivation | None:
    """The pipeline's compiled form; None where it has none, or not the same to the bit.

    Cost: the steps run on about 1,000 rows once, and on a few rows alone.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            plan = compile_plan(pipeline, columns, reach)
            if plan is None or not is_proven(
                plan, pipeline, proof_rows(pipeline.trace, columns, reach)
            ):
                return None
        except (ValueError, TypeError, MalformedModelError):
            # The steps refuse a row that the plan would have answered for.
            return None
    return CompiledDerivation(plan, pipeline)


def is_proven(plan: Plan, pipeline: Derivation, rows: FloatArray) -> bool:
    """Whether the plan makes the same of (N, F) rows as the pipeline, to the bit, in a batch and
    alone. Rows that the plan leaves to the pipeline say nothing; too few others prove nothing.
    """
    accepted = rows[plan.accepts(rows)]
    if len(accepted) < FEWEST_PROVEN_ROWS:
        return False
    picks = np.linspace(0, len(accepted) - 1, N_SINGLE_ROWS).astype(np.int64)
    alone = [accepted[pick : pick + 1] for pick in picks]
    return all(_is_alike(plan, pipeline, part) for part in (accepted, *alone))


def _is_alike(plan: Plan, pipeline: Derivation, accepted: FloatArray) -> bool:
    derived = plan(accepted)
    return derived is not None and is_same(derived, pipeline(accepted))


def is_same(left: FloatArray, right: FloatArray) -> bool:
    """Equal to the bit, any NaN being as good as any other."""
    if left.shape != right.shape:
        return False
    same = (left.view(np.int64) == right.view(np.int64)) | (np.isnan(left) & np.isnan(right))
    return bool(same.all())


def proof_rows(trace: StepTrace, columns: RawColumns, reach: Reach) -> FloatArray:
    """Rows with every level and special code, usual numbers around what the steps were fitted on,
    and, a column or a few at a time, extreme ones. The same rows whenever called.
    """
    rng = np.random.default_rng(0)
    levels = level_rows(trace, columns, reach)
    n_usual = max(N_USUAL_ROWS, len(levels))
    n_extreme = min(N_EXTREME_ROWS, 2 * len(EXTREMES) * len(columns))
    rows = rng.permuted(np.resize(levels, (n_usual + n_extreme, len(columns))), axis=0)
    turn = 0
    for column in [index for index, each in enumerate(columns.levels) if each is None]:
        usual = usual_numbers(trace, column)
        near = np.concatenate([usual, np.nextafter(usual, np.inf), np.nextafter(usual, -np.inf)])
        noise = rng.choice(usual, len(rows)) * rng.uniform(0.5, 1.5, len(rows))
        rows[:, column] = np.where(rng.random(len(rows)) < 0.5, rng.choice(near, len(rows)), noise)
        extremes = np.concatenate([EXTREMES, -EXTREMES])
        rows[n_usual + (turn + np.arange(len(extremes))) % n_extreme, column] = extremes
        turn += len(extremes)
        if reach.missing[column]:
            rows[rng.random(len(rows)) < MISSING_SHARE, column] = np.nan
    return rows
