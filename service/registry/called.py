"""Models without an exact form: how they are explained, and what is proven of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from explainers.base import Background, Explanation, FloatArray, IntArray, UnsupportedModelError
from explainers.checks import Invariants
from explainers.exact import restricted_background, restricted_oracle
from explainers.sampled.calls import ROWS_PER_CALL
from service.models.base import NativeModel
from service.registry import proof
from service.registry.building import TOLERANCE, CalledFactory
from service.registry.manifest import CostEntry
from service.registry.work import Work

PROOF_ROWS = 3
SLOW_SECONDS = 1.0
"""Where a row takes longer, one is enough."""

LARGEST_Z = 6.0
"""Standard errors that an estimate may be off brute force. They are estimated themselves."""

CALIBRATION_SECONDS = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """The rows that were explained at registration, and what that took."""

    rows: FloatArray
    explanation: Explanation
    seconds_per_row: float
    rows_per_second: float
    model_rows_at_most: int

    def of(self, rows: FloatArray) -> Explanation:
        """The part about the first of the rows, which these must be."""
        count = len(rows)
        assert np.array_equal(rows, self.rows[:count], equal_nan=True)
        values, base = self.explanation.values[:count], self.explanation.base_values[:count]
        return replace(
            self.explanation, values=values, base_values=base, standard_errors=None, seeds=None
        )

    def cost(self, *, predict_row: float, predict_row_in_batch: float) -> CostEntry:
        """As the manifest records it."""
        return CostEntry(
            predict_row=predict_row,
            predict_row_in_batch=predict_row_in_batch,
            explain_row=self.seconds_per_row,
            explain_row_in_batch=self.seconds_per_row,
            evaluate_rows_per_second=self.rows_per_second,
            explain_model_rows=self.explanation.model_evaluations // len(self.explanation.values),
            explain_model_rows_at_most=self.model_rows_at_most,
        )


def choose_called(work: Work) -> None:
    """Enumeration where it is affordable, else sampling; proven, or UnsupportedModelError."""
    native = work.source.native
    work.say("measuring how fast the model is called")
    speed = _rows_per_second(native, work.background)
    factory = CalledFactory.affordable(
        native, work.naming, work.background, seconds_per_row=1 / speed
    )
    kind = "enumeration" if factory.is_exact else "sampling"
    work.say(f"explaining by {kind}: the model evaluates {speed:,.0f} rows a second")
    batch_gap = _batch_gap(work)
    work.called, work.explained = factory, _explained(work, factory, speed)
    _prove_oracle(work, factory, batch_gap)


def _rows_per_second(native: NativeModel, background: Background) -> float:
    rows = np.resize(background.rows, (ROWS_PER_CALL, background.rows.shape[1]))
    native.evaluate(rows)
    calls, start = 0, time.perf_counter()
    while not calls or time.perf_counter() - start < CALIBRATION_SECONDS:
        native.evaluate(rows)
        calls += 1
    return calls * len(rows) / (time.perf_counter() - start)


def _batch_gap(work: Work) -> float:
    """What is called many rows at a time against what is served row by row."""
    native = work.source.native
    rows, served = work.rows[:ROWS_PER_CALL], work.outputs[:ROWS_PER_CALL]
    gap = proof.relative_gap(native.evaluate(rows), served)
    if gap > TOLERANCE[native.is_float32]:
        raise UnsupportedModelError(
            f"rows in a batch get outputs {gap:.2g} off what they get alone"
        )
    return gap


def _explained(work: Work, factory: CalledFactory, speed: float) -> Explained:
    """A few rows, explained together and alone: the same bytes, and every invariant holds."""
    native = work.source.native
    explainer = factory.build(work.background)
    cost = explainer.cost()
    soonest, most = cost if isinstance(cost, tuple) else (cost, cost)
    n_rows = PROOF_ROWS if soonest <= SLOW_SECONDS * speed else 1
    rows = proof.spread_rows(work.rows, work.outputs, n_rows)
    seeds = np.arange(len(rows), dtype=np.int64)
    work.say(f"explaining {len(rows)} rows")
    start = time.perf_counter()
    together = explainer.explain(rows, seeds=seeds)
    seconds = time.perf_counter() - start
    for i in range(len(rows)):
        alone = explainer.explain(rows[i : i + 1], seeds=seeds[i : i + 1])
        if _bytes(alone, slice(0, 1)) != _bytes(together, slice(i, i + 1)):
            raise UnsupportedModelError("a row alone gets other values than in a batch")
    served = native.predict(rows)
    invariants = Invariants(
        explainer.tolerance,
        explainer.output_scale,
        np.empty(0, dtype=np.int64),
        native.link,
        work.naming.features,
    )
    broken = invariants.check(together, served.outputs, served.scores).reasons
    if any(broken):
        raise UnsupportedModelError(f"explained rows break an invariant: {broken}")
    gap = proof.gap_to_mean(together.base_values[0], native, work.background)
    if gap > TOLERANCE[native.is_float32]:
        raise UnsupportedModelError(f"base values are {gap:.2g} off the library's mean")
    return Explained(rows, together, seconds / len(rows), speed, most)


def _bytes(explanation: Explanation, rows: slice) -> bytes:
    errors = explanation.standard_errors
    return explanation.values[rows].tobytes() + (b"" if errors is None else errors[rows].tobytes())


def _prove_oracle(work: Work, factory: CalledFactory, batch_gap: float) -> None:
    explained = work.explained
    assert explained is not None
    rows = proof.spread_rows(work.rows, work.outputs, len(explained.explanation.values))
    result = run_oracle(
        factory,
        work.background,
        rows,
        lambda done, total: work.say(f"comparing with brute force: row {done} of {total}"),
    )
    if not result.z <= LARGEST_Z:
        raise UnsupportedModelError(
            f"values are {result.z:.1f} standard errors off brute force"
            if not factory.is_exact
            else f"values are {result.gap:.2g} off brute force"
        )
    is_sampled = not factory.is_exact
    work.proven = {
        "parse_gap": batch_gap,
        "oracle_gap": None if is_sampled else result.gap,
        "oracle_z": result.z if is_sampled else None,
        "oracle_rows": len(rows),
    }


@dataclass(frozen=True, slots=True)
class CalledOracle:
    """The worst distance from brute force: relative, and in standard errors beyond rounding."""

    gap: float
    z: float


def run_oracle(
    factory: CalledFactory,
    background: Background,
    explained: FloatArray,
    on_progress: Callable[[int, int], None],
) -> CalledOracle:
    """Enumerate restricted games through the model, six columns at a time over all columns, and
    compare with the estimates of the first planned size against the same restricted background.

    Values that carry no standard error may be off by rounding alone.
    """
    reference = background.rows[: proof.ORACLE_BACKGROUND_ROWS]
    evaluate, rounding = factory.native.evaluate, factory.tolerance
    soon = replace(factory.config, target=np.inf)
    gap = z = 0.0
    for done, x in enumerate(explained):
        seeds: IntArray = np.full(1, done, dtype=np.int64)
        for columns in proof.column_groups(explained.shape[1]):
            expected = restricted_oracle(evaluate, x[None, :], reference, columns)[0]
            played = Background.of(restricted_background(reference, x, columns))
            found = factory.build(played, config=soon).explain(x[None, :], seeds=seeds)
            scale = max(float(np.abs(expected).max()), float(np.abs(evaluate(played.rows)).max()))
            off = np.abs(found.values[0, columns] - expected)
            errors = found.standard_errors
            gap = max(gap, float(off.max() / (scale or 1.0)))
            z = max(
                z, _worst_z(off - rounding * scale, None if errors is None else errors[0, columns])
            )
        on_progress(done + 1, len(explained))
    return CalledOracle(gap, z)


def _worst_z(beyond_rounding: FloatArray, errors: FloatArray | None) -> float:
    """Inf for a value off that claims to be exact, or is no number."""
    if not np.all(np.isfinite(beyond_rounding)):
        return np.inf
    errors = np.zeros_like(beyond_rounding) if errors is None else errors
    off = beyond_rounding > 0
    with np.errstate(divide="ignore"):
        return float(np.max(beyond_rounding[off] / errors[off], initial=0.0))
