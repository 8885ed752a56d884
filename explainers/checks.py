"""Invariants every answer is held to. None lets NaN pass."""

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from explainers.base import BoolArray, Explanation, FloatArray, IntArray, Link

LINK_TOLERANCE = 1e-6
MOST_ERRORS = 6.0
"""How many standard errors an estimate for a column the model never reads may lie from 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """What the invariants said of N rows.

    additivity (N,): largest gap over the outputs between base + sum of values and the served
    output, relative to the largest of |output|, |base| + sum |values| and the outputs' standard
    deviation over the background (an absolute floor would pass all-zero values of a model with
    small outputs); inf where a number is not finite.
    link (N,): largest gap between the inverse link of the outputs and the served scores; absolute
    for probabilities (K >= 2), relative for a single score.
    reasons: the first invariant a row broke (finite, additivity, link, dummy, names), None for a
    row that passed.
    """

    additivity: FloatArray
    link: FloatArray
    reasons: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Invariants:
    """What the explanations of one model version are held to.

    tolerance: largest additivity error that passes. output_scale (C,): standard deviation of the
    outputs over the background. unused_columns (U,): columns the model never reads, whose values
    must be 0: exactly, but for estimates within MOST_ERRORS standard errors. link: from outputs to
    scores. feature_names: what the values' columns must be called, in this order. Raises ValueError
    for an unused column beyond them.
    """

    tolerance: float
    output_scale: FloatArray
    unused_columns: IntArray
    link: Link
    feature_names: tuple[str, ...]
    _kernel: ModuleType = field(init=False)

    def __post_init__(self) -> None:
        columns = range(len(self.feature_names))
        if any(column not in columns for column in self.unused_columns.tolist()):
            raise ValueError(f"unused columns beyond the {len(columns)} that are explained")
        # numba takes a quarter of a second to import: only a process that explains pays.
        from explainers.tree import kernel

        object.__setattr__(self, "_kernel", kernel)

    def check(self, explanation: Explanation, outputs: FloatArray, scores: FloatArray) -> Checked:
        """Hold N rows against what the model served: outputs (N, C) and scores (N, K).

        Raises ValueError for shapes that do not belong together. Cost: 4 us, and 0.2 us for each
        row of 30 columns.
        """
        kernel = self._kernel
        self._check_shapes(explanation, outputs, scores)
        additivity, link, flags = kernel.check_rows(
            explanation.values,
            explanation.base_values,
            outputs,
            scores,
            self.output_scale,
            self.unused_columns,
            kernel.LINKS.index(self.link),
        )
        if explanation.standard_errors is not None:
            unknown = ~np.isfinite(explanation.standard_errors).all(axis=(1, 2))
            flags[unknown] |= kernel.NOT_FINITE
            flags[self._are_dummies_near_zero(explanation)] &= ~kernel.NOT_DUMMY
        is_named = explanation.feature_names == self.feature_names
        found = zip(additivity.tolist(), link.tolist(), flags.tolist(), strict=True)
        reasons = tuple(
            None
            if is_named and not flag and gap <= self.tolerance and miss <= LINK_TOLERANCE
            else self._reason(gap, miss, flag)
            for gap, miss, flag in found
        )
        return Checked(additivity, link, reasons)

    def _are_dummies_near_zero(self, explanation: Explanation) -> BoolArray:
        """(N,) of estimates: a regression gives columns the model never reads no exact 0."""
        assert explanation.standard_errors is not None
        values = np.abs(explanation.values[:, self.unused_columns])
        errors = explanation.standard_errors[:, self.unused_columns]
        near: BoolArray = np.all(values <= MOST_ERRORS * errors, axis=(1, 2))
        return near

    def _reason(self, gap: float, miss: float, flag: int) -> str:
        kernel = self._kernel
        broken = {
            "finite": bool(flag & kernel.NOT_FINITE),
            "additivity": not gap <= self.tolerance,
            "link": not miss <= LINK_TOLERANCE,
            "dummy": bool(flag & kernel.NOT_DUMMY),
        }
        return next((name for name, is_broken in broken.items() if is_broken), "names")

    def _check_shapes(
        self, explanation: Explanation, outputs: FloatArray, scores: FloatArray
    ) -> None:
        """The kernel checks no index."""
        rows, columns, count = explanation.values.shape
        expected = (rows, 2 if count == 1 and scores.shape[1] == 2 else count)
        if columns != len(self.feature_names):
            raise ValueError(f"{columns} columns explained, not {len(self.feature_names)}")
        if outputs.shape != (rows, count) or self.output_scale.shape != (count,):
            raise ValueError(f"{count} outputs explained, but served were {outputs.shape}")
        if scores.shape != expected:
            raise ValueError(f"outputs give scores {expected}, but served were {scores.shape}")
