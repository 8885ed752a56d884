"""What fitted scikit-learn steps do with one number, as elementwise operations.

An infinite value stands for "the library may refuse this": no operation turns it finite again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from explainers.base import FloatArray

Function = Callable[..., FloatArray]
"""From values (N, G) and operands (G,) to values (N, G), with the library's own float64
operations in its own order."""


@dataclass(frozen=True, slots=True)
class Operation:
    """function(values, *operands) for one column."""

    function: Function
    operands: tuple[float, ...] = ()


Chain = tuple[Operation, ...] | None
"""What happens to a column from its raw value on; None where that is not known."""

Operations = Sequence[Operation] | None
"""What one step adds to a chain, None where that is not known."""

Step = Any
"""A fitted scikit-learn transformer."""

Rule = Callable[[Step, int], Sequence[Operation]]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A function that could make an infinite value finite, kept from doing so."""

    function: Function

    def __call__(self, values: FloatArray, *operands: FloatArray) -> FloatArray:
        """function(values, *operands) where values are not infinite."""
        kept: FloatArray = np.where(np.isinf(values), values, self.function(values, *operands))
        return kept


def fill(values: FloatArray, statistic: FloatArray) -> FloatArray:
    """The statistic where a value is missing."""
    filled: FloatArray = np.where(np.isnan(values), statistic, values)
    return filled


def flag(values: FloatArray) -> FloatArray:
    """1 where a value is missing, else 0."""
    return np.isnan(values).astype(np.float64)


def is_within(values: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """1 where low <= value < high, else 0."""
    return ((low <= values) & (values < high)).astype(np.float64)


def count_reached(values: FloatArray, *edges: FloatArray) -> FloatArray:
    """How many edges are at or below the value."""
    count = np.zeros_like(values)
    for edge in edges:
        count += edge <= values
    return count


def is_above(values: FloatArray, threshold: FloatArray) -> FloatArray:
    """1 where the value is above the threshold, else 0 (missing too)."""
    return (values > threshold).astype(np.float64)


def yeo_johnson(values: FloatArray, powers: FloatArray) -> FloatArray:
    """The power transform of each column, as a PowerTransformer calls it."""
    from scipy.stats import yeojohnson

    columns = zip(values.T, powers.tolist(), strict=True)
    return np.column_stack([yeojohnson(column, power) for column, power in columns])


def extended(chain: Chain, operations: Operations) -> Chain:
    """The chain with more operations behind it, unknown if either is."""
    return None if chain is None or operations is None else (*chain, *operations)


def flagging(chain: Chain) -> Chain:
    """The chain of a column's missing flag."""
    # Raw values are never infinite, so that the usual flag needs no guard.
    return extended(chain, [Operation(Guarded(flag) if chain else flag)])


def filling(step: Step, column: int) -> Operations:
    """What a SimpleImputer does with its column."""
    return _read(_fill, step, column) if reads_nan(step) else None


def reads_nan(step: Step) -> bool:
    """NaN, and nothing else, is what an imputer or indicator takes for missing."""
    return isinstance(step.missing_values, float) and bool(np.isnan(step.missing_values))


def scaling(step: Step, column: int) -> Operations:
    """What a scaler does with its column; None for scalers that are not a few operations."""
    rule = SCALING.get(type(step).__name__)
    return None if rule is None else _read(rule, step, column)


def applying(ufunc: np.ufunc) -> Operations:
    """One call of a function of one number, where it returns float64."""
    with np.errstate(all="ignore"):
        is_float = ufunc(np.ones(1)).dtype == np.float64
    return [Operation(Guarded(ufunc))] if is_float else None


def binning(step: Step, column: int) -> Sequence[Operations]:
    """What a KBinsDiscretizer makes of its column: the bin's number, or a flag per bin."""
    if step.encode == "ordinal":
        return [_read(_bin_number, step, column)]
    flags = _read(_bin_flags, step, column)
    n_bins = int(step.n_bins_[column])
    if flags is None or len(flags) != n_bins:
        return [None] * n_bins
    return [[each] for each in flags]


def _read(rule: Rule, step: Step, column: int) -> Operations:
    """What the rule reads from a fitted step; None where its state is not a number per column."""
    try:
        operations = rule(step, column)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    operands = [operand for operation in operations for operand in operation.operands]
    return None if np.isnan(operands).any() else operations


def _fill(step: Step, column: int) -> Sequence[Operation]:
    return [Operation(fill, (float(step.statistics_[column]),))]


def _bin_number(step: Step, column: int) -> Sequence[Operation]:
    return [Operation(Guarded(count_reached), _inner_edges(step, column))]


def _bin_flags(step: Step, column: int) -> Sequence[Operation]:
    edges = (-np.inf, *_inner_edges(step, column), np.inf)
    return [Operation(Guarded(is_within), bounds) for bounds in pairwise(edges)]


def _inner_edges(step: Step, column: int) -> tuple[float, ...]:
    return tuple(float(edge) for edge in step.bin_edges_[column][1:-1])


def _standard(step: Step, column: int) -> Sequence[Operation]:
    centre = [_affine(np.subtract, step.mean_[column])] if step.with_mean else []
    scale = [_affine(np.divide, step.scale_[column])] if step.with_std else []
    return centre + scale


def _robust(step: Step, column: int) -> Sequence[Operation]:
    centre = [_affine(np.subtract, step.center_[column])] if step.with_centering else []
    scale = [_affine(np.divide, step.scale_[column])] if step.with_scaling else []
    return centre + scale


def _min_max(step: Step, column: int) -> Sequence[Operation]:
    stretch = _affine(np.multiply, step.scale_[column])
    return [stretch, _affine(np.add, step.min_[column]), *_clipping(step, *step.feature_range)]


def _max_abs(step: Step, column: int) -> Sequence[Operation]:
    return [_affine(np.divide, step.scale_[column]), *_clipping(step, -1.0, 1.0)]


def _binary(step: Step, column: int) -> Sequence[Operation]:
    del column
    return [Operation(Guarded(is_above), (float(step.threshold),))]


def _power(step: Step, column: int) -> Sequence[Operation]:
    if step.method != "yeo-johnson":
        raise ValueError("Box and Cox's transform refuses numbers that are not positive")
    power = Operation(Guarded(yeo_johnson), (float(step.lambdas_[column]),))
    return [power, *(_standard(step._scaler, column) if step.standardize else [])]  # noqa: SLF001


def _affine(ufunc: np.ufunc, operand: float) -> Operation:
    # inf - inf would hide that a value was infinite, and so would inf / inf and inf * 0.
    if not np.isfinite(operand) or (operand == 0 and ufunc is np.multiply):
        raise ValueError("a scaler's operands are finite")
    return Operation(ufunc, (float(operand),))


def _clipping(step: Step, low: float, high: float) -> Sequence[Operation]:
    return [Operation(Guarded(np.clip), (float(low), float(high)))] if step.clip else []


SCALING: dict[str, Rule] = {
    "Binarizer": _binary,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "PowerTransformer": _power,
    "RobustScaler": _robust,
    "StandardScaler": _standard,
}
