"""What is proven before a version exists: the parse, the explainer, the numbers to come back to."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainers.base import (
    Background,
    Derivation,
    Explainer,
    FloatArray,
    IdentityDerivation,
    IntArray,
)
from explainers.derive import CompiledDerivation
from explainers.exact import restricted_background, restricted_oracle
from explainers.tree.edges import edge_rows
from schemas import ModelSchema
from service.errors import InvalidInputError
from service.models.base import NativeModel, TreeForm
from service.registry.building import ExplainerFactory

EDGE_ROWS = 2000
ORACLE_COLUMNS = 6
ORACLE_BACKGROUND_ROWS = 20
ORACLE_ROWS = 5
ORACLE_TOLERANCE = 1e-5
GOLDEN_ROWS = 8
FLOAT32_UNITS = 8
ENGINES_TOLERANCE = 1e-6
PARSE_TOLERANCE = {True: 1e-6, False: 1e-11}
"""Largest relative gap between our reading of a model and the library, by float32 or not."""


@dataclass(frozen=True, slots=True)
class OracleResult:
    """The worst gap to brute force through the real model, over the row's largest |value|."""

    gap: float
    rows: int


def hard_rows(
    factory: ExplainerFactory | None, schema: ModelSchema, rows: FloatArray
) -> FloatArray:
    """2,000 rows where parsing mistakes show: thresholds and neighbours, missing, rare levels."""
    rng = np.random.default_rng(0)
    nullable = np.array([column.nullable for column in schema.columns])
    form = None if factory is None else factory.form
    if isinstance(form, TreeForm) and isinstance(form.derivation, IdentityDerivation):
        unseen = np.zeros(len(nullable), dtype=np.bool_)
        hard = edge_rows(
            form.ensemble,
            rows,
            n=EDGE_ROWS,
            rng=rng,
            missing_allowed=nullable,
            unseen_allowed=unseen,
        )
    else:
        hard = _mixed_rows(rows, nullable, rng)
    return _within_schema(schema, hard, rows)


def _mixed_rows(rows: FloatArray, nullable: np.ndarray, rng: np.random.Generator) -> FloatArray:
    """Every cell from another row, some between two neighbours or a hair beside, some missing."""
    picks = rng.integers(len(rows), size=(EDGE_ROWS, rows.shape[1]))
    mixed = np.take_along_axis(rows, picks, axis=0)
    nudged = rng.random(mixed.shape) < 0.1
    mixed[nudged] = np.nextafter(mixed[nudged], np.inf)
    mixed[(rng.random(mixed.shape) < 0.1) & nullable] = np.nan
    return mixed


def _within_schema(schema: ModelSchema, hard: FloatArray, rows: FloatArray) -> FloatArray:
    """Category cells that are no code become a real row's cell: the service never sends others."""
    for i, column in enumerate(schema.columns):
        if column.levels is None:
            continue
        cells = hard[:, i]
        lowest = -1 if column.unknown == "ignore" else 0
        stray = ~np.isnan(cells) & (
            (cells != np.floor(cells)) | (cells < lowest) | (cells >= len(column.levels))
        )
        hard[stray, i] = rows[np.flatnonzero(stray) % len(rows), i]
    return hard


def check_derivation(derivation: Derivation, rows: FloatArray) -> None:
    """InvalidInputError if rows are derived otherwise than by the artifact's own steps.

    A model fault would only cost the explainer; here predictions themselves would be wrong.
    """
    if isinstance(derivation, CompiledDerivation) and not derivation.agrees(rows):
        raise InvalidInputError(
            "the compiled preprocessing differs from the pipeline's own on these data, "
            "which is a fault of explaind: please report the pipeline's steps"
        )


def check_repeats(native: NativeModel, rows: FloatArray, outputs: FloatArray) -> None:
    """InvalidInputError if the golden rows get other bytes when they are asked for again."""
    golden = spread_rows(rows, outputs, GOLDEN_ROWS)
    first, again = native.predict(golden), native.predict(golden)
    pairs = [
        (first.outputs, again.outputs),
        (first.scores, again.scores),
        (native.evaluate(golden), native.evaluate(golden)),
    ]
    if any(one.tobytes() != other.tobytes() for one, other in pairs):
        raise InvalidInputError(
            "the model draws at random: the same rows got other predictions when they were asked "
            "for again; export it for inference, without dropout or sampling"
        )


def relative_gap(ours: FloatArray, theirs: FloatArray) -> float:
    """Largest |ours - theirs|, relative to |theirs| or its spread, whichever is larger."""
    scale = np.maximum(np.abs(theirs), theirs.std(axis=0, keepdims=True))
    gap = np.abs(ours - theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(gap == 0, 0.0, gap / scale)
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))


def base_value_gap(explainer: Explainer, native: NativeModel, background: Background) -> float:
    """base_values against the mean of the library's own outputs over the background."""
    return gap_to_mean(explainer.explain(background.rows[:1]).base_values[0], native, background)


def gap_to_mean(ours: FloatArray, native: NativeModel, background: Background) -> float:
    """Base values (C,) against that mean, relative to the largest |output| over the background:
    the mean itself may be near 0, as of a standardised target.
    """
    theirs = native.predict(background.rows).outputs
    scale = np.maximum(np.abs(theirs).max(axis=0), np.finfo(np.float64).tiny)
    return float(np.max(np.abs(ours - theirs.mean(axis=0)) / scale))


def run_oracle(
    factory: ExplainerFactory,
    native: NativeModel,
    background: Background,
    explained: FloatArray,
    on_progress: Callable[[int, int], None],
) -> OracleResult:
    """Enumerate restricted games through the real model, six columns at a time over all columns,
    and compare with the engine against the same restricted background.
    """
    reference = background.rows[:ORACLE_BACKGROUND_ROWS]
    groups = column_groups(explained.shape[1])
    walk = factory.build(background, engine="walk")
    scales = np.abs(walk.explain(explained).values).max(axis=(1, 2))
    noise = _rounding_scale(native, explained)
    worst = 0.0
    for done, x in enumerate(explained):
        for columns in groups:
            expected = restricted_oracle(
                lambda X: native.predict(X).outputs, x[None, :], reference, columns
            )[0]
            played = Background.of(restricted_background(reference, x, columns))
            values = walk.against(played).explain(x[None, :]).values[0, columns]
            gap = float(np.max(np.abs(values - expected)))
            if gap:
                scale = max(scales[done], float(np.abs(expected).max()), noise[done])
                worst = max(worst, gap / scale)
        on_progress(done + 1, len(explained))
    return OracleResult(worst if np.isfinite(worst) else float("inf"), len(explained))


def _rounding_scale(native: NativeModel, rows: FloatArray) -> FloatArray:
    """(N,) the scale against which a float32 library's own rounding stays within the tolerance:
    a few units in the last place of an output far from 0 are more than 1e-5 of small values.
    """
    if not native.is_float32:
        return np.zeros(len(rows))
    units = FLOAT32_UNITS * float(np.finfo(np.float32).eps) / ORACLE_TOLERANCE
    scale: FloatArray = units * np.abs(native.predict(rows).outputs).max(axis=1)
    return scale


def engines_gap(
    factory: ExplainerFactory, explainer: Explainer, background: Background, rows: FloatArray
) -> float | None:
    """The serving engine against the walk, over the largest |value|; None without trees.

    An engine called "walk" may look some of its trees up, so it is compared too.
    """
    if not isinstance(factory.form, TreeForm):
        return None
    walked = factory.build(background, engine="walk").explain(rows).values
    gap = float(np.max(np.abs(explainer.explain(rows).values - walked), initial=0.0))
    return float(np.divide(gap, np.max(np.abs(walked)))) if gap else 0.0


def column_groups(n_columns: int) -> list[IntArray]:
    """Groups of six columns that cover all; the last wraps around to stay full."""
    size = min(ORACLE_COLUMNS, n_columns)
    return [np.arange(start, start + size) % n_columns for start in range(0, n_columns, size)]


def spread_rows(rows: FloatArray, outputs: FloatArray, count: int) -> FloatArray:
    """Rows at evenly spaced ranks of the first output: low, high and in between."""
    order = np.argsort(outputs[:, 0], kind="stable")
    ranks = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return rows[order[ranks]]
