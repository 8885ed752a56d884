"""Derived columns without pandas: fitted steps as table look-ups and a few array operations.

Levels of a category column are few, so the steps themselves fill a table of what they make of
each; numbers go through the steps' own float64 operations, grouped by kind.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray, RawColumns
from explainers.chains import Function, Operation
from explainers.preprocess import PipelineDerivation, Reach, is_sparse
from explainers.steps import StepTrace

MOST_CELLS = 2_000_000
"""Of all tables together, and of the rows that fill them: 16 MB, a quarter of a second to load."""

REFUSED = np.inf
"""In derived rows: the library may refuse this value, let it decide."""

USUAL = np.array([0.5, -3.0, -1.0, -0.1, 0.0, 0.25, 1.0, 3.0])

INVERSE: dict[Function, Callable[[FloatArray, float], FloatArray]] = {
    np.add: np.subtract,
    np.divide: np.multiply,
    np.multiply: np.divide,
    np.subtract: np.add,
}


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Derived columns that share their kinds of operations, applied to raw columns `sources`."""

    sources: IntArray
    functions: tuple[Function, ...]
    operands: tuple[tuple[FloatArray, ...], ...]

    def __call__(self, X: FloatArray) -> FloatArray:
        """(N, G) derived values."""
        values: FloatArray = X.take(self.sources, axis=1)
        for function, operands in zip(self.functions, self.operands, strict=True):
            values = function(values, *operands)
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Derived columns that depend on a level alone.

    cells holds one table after the other, each [unseen, level 0 to K-1, no level, missing]; starts
    tells where each derived column's level 0 lies, owners whose of `sources` it is.
    """

    sources: IntArray
    counts: FloatArray
    owners: IntArray
    starts: IntArray
    cells: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        """(N, G) derived values."""
        codes = X.take(self.sources, axis=1)
        known = np.maximum(np.minimum(codes, self.counts), -1.0)
        slots = np.where(np.isnan(codes), self.counts + 1.0, known).astype(np.intp)
        return self.cells.take(slots.take(self.owners, axis=1) + self.starts)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything between raw and derived rows; safe to share between threads."""

    numbers: tuple[Numbers, ...]
    levels: Levels | None
    order: IntArray
    """Where each derived column lies in the parts side by side."""

    never_missing: IntArray
    """Numeric raw columns whose missing values the model does not take."""

    absent: float | None
    """What a number becomes that a sparse matrix would not store, None for dense output."""

    def __call__(self, X: FloatArray) -> FloatArray | None:
        """(N, P) derived rows; None when the steps may refuse one of them."""
        derived = self._derived(X)
        if np.isinf(derived).any():
            return None
        strict = self.never_missing
        return None if len(strict) and np.isnan(X.take(strict, axis=1)).any() else derived

    def accepts(self, X: FloatArray) -> NDArray[np.bool_]:
        """(N,) rows the plan answers for."""
        infinite = np.isinf(self._derived(X))
        missing = np.isnan(X[:, self.never_missing])
        accepted: NDArray[np.bool_] = ~np.any(np.hstack([infinite, missing]), axis=1)
        return accepted

    def _derived(self, X: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            parts = [part(X) for part in self.numbers]
        if self.absent is not None:
            parts = [np.where(part == 0, self.absent, part) for part in parts]
        if self.levels is not None:
            parts.append(self.levels(X))
        joined: FloatArray = np.concatenate(parts, axis=1).take(self.order, axis=1)
        return joined


def compile_plan(pipeline: PipelineDerivation, columns: RawColumns, reach: Reach) -> Plan | None:
    """The plan of fitted steps, None where they hold what is not known here.

    Runs the steps themselves once, for the tables; ValueError and TypeError if they refuse a level
    that reach allows, or the numbers beside it.
    """
    trace = pipeline.trace
    is_level = np.array([levels is not None for levels in columns.levels])
    by_level = is_level[trace.players]
    groups, tabled = _groups(trace, np.flatnonzero(~by_level)), np.flatnonzero(by_level)
    if groups is None or not len(trace.players):
        return None
    rows = level_rows(trace, columns, reach)
    tables = sum(len(columns.levels[column] or ()) + 3 for column in trace.players[tabled])
    if max(tables, len(rows) * (len(columns) + len(trace.players))) > MOST_CELLS:
        return None
    matrix = pipeline.matrix(rows)
    return Plan(
        numbers=tuple(_numbers(trace, members) for members in groups),
        levels=_levels(rows, pipeline.dense(matrix), columns, tabled, trace.players[tabled]),
        order=np.argsort(np.concatenate([*groups, tabled])),
        never_missing=np.flatnonzero(~is_level & ~np.array(reach.missing)),
        absent=pipeline.absent if is_sparse(matrix) else None,
    )


def level_rows(trace: StepTrace, columns: RawColumns, reach: Reach) -> FloatArray:
    """(N, F) rows in which every code that reach allows comes up, beside one plain number."""
    choices = []
    for column, levels in enumerate(columns.levels):
        if levels is None:
            choices.append(usual_numbers(trace, column)[:1])
        else:
            special = [np.nan] * reach.missing[column] + [-1.0] * reach.unseen[column]
            choices.append(np.array([*range(len(levels)), *special]))
    length = max(len(each) for each in choices)
    return np.column_stack([np.resize(each, length) for each in choices])


def usual_numbers(trace: StepTrace, column: int) -> FloatArray:
    """Numbers a raw column may well hold, by what its chains do; the first is a plain one."""
    chains = [trace.chains[index] or () for index in np.flatnonzero(trace.players == column)]
    return np.concatenate([*[_before(chain, USUAL) for chain in chains], USUAL])


def _before(chain: tuple[Operation, ...], values: FloatArray) -> FloatArray:
    """What the chain's shifts and scalings turn into these values."""
    for operation in reversed(chain):
        inverse = INVERSE.get(operation.function)
        if inverse is not None:
            values = inverse(values, operation.operands[0])
    return values


def _groups(trace: StepTrace, numeric: IntArray) -> list[IntArray] | None:
    """Derived columns whose chains differ in operands only; None when a chain is unknown."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index in numeric.tolist():
        chain = trace.chains[index]
        if chain is None:
            return None
        kinds = tuple((operation.function, len(operation.operands)) for operation in chain)
        groups.setdefault(kinds, []).append(index)
    return [np.array(members, dtype=np.int64) for members in groups.values()]


def _numbers(trace: StepTrace, members: IntArray) -> Numbers:
    chains = [trace.chains[index] or () for index in members]
    return Numbers(
        sources=trace.players[members],
        functions=tuple(operation.function for operation in chains[0]),
        operands=tuple(
            tuple(
                np.array(operand) for operand in zip(*(each.operands for each in step), strict=True)
            )
            for step in zip(*chains, strict=True)
        ),
    )


def _levels(
    rows: FloatArray, derived: FloatArray, columns: RawColumns, tabled: IntArray, players: IntArray
) -> Levels | None:
    """Tables of the derived columns `tabled`, from level_rows and what the steps made of them."""
    if not len(tabled):
        return None
    counts = [len(columns.levels[column] or ()) for column in players]
    tables = [
        _table(rows[:, column], derived[:, index], count)
        for index, column, count in zip(tabled, players, counts, strict=True)
    ]
    sources, first, owners = np.unique(players, return_index=True, return_inverse=True)
    return Levels(
        sources=sources,
        counts=np.array(counts, dtype=np.float64)[first],
        owners=owners,
        starts=np.cumsum([0, *[len(table) for table in tables[:-1]]]) + 1,
        cells=np.concatenate(tables),
    )


def _table(codes: FloatArray, derived: FloatArray, n_levels: int) -> FloatArray:
    table = np.full(n_levels + 3, REFUSED)
    slots = np.where(np.isnan(codes), n_levels + 2, codes + 1)
    table[slots.astype(np.intp)] = derived
    return table
