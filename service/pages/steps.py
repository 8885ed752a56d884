"""One output of one instance as the steps that lead from its base value to the output."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from service.pages.drawing import elided, exact

MOST_SHOWN = 12
"""Columns with a bar of their own; the others are one bar together."""

MOST_NAMED = 40
"""Of those others in a sentence."""

LETTERS = 200
"""Of a value in a plot's texts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One column's contribution. rank: 1 for the strongest; value: the raw one as text, cut."""

    rank: int
    name: str
    value: str
    contribution: float
    standard_error: float | None = None

    @property
    def text(self) -> str:
        """Column and value."""
        return f"{self.name} = {self.value}"


@dataclass(frozen=True, slots=True)
class Path:
    """base + all contributions = output, in `unit`; the strongest step first."""

    output_name: str
    unit: str
    base: float
    output: float
    steps: tuple[Step, ...]

    @classmethod
    def of(  # noqa: PLR0913 (one argument an array of the document)
        cls,
        names: Sequence[str],
        cells: Sequence[object],
        values: Sequence[float],
        errors: Sequence[float] | None,
        *,
        ends: tuple[float, float],
        output_name: str,
        unit: str,
    ) -> Self:
        """Of columns in schema order; equal contributions keep that order."""
        order = sorted(range(len(values)), key=lambda column: -abs(values[column]))
        texts = [elided(exact(cell), LETTERS) for cell in cells]
        steps = (
            Step(rank, names[i], texts[i], values[i], None if errors is None else errors[i])
            for rank, i in enumerate(order, 1)
        )
        return cls(output_name, unit, *ends, tuple(steps))

    @property
    def shown(self) -> tuple[Step, ...]:
        """Those with a bar of their own: a single other one has its own, too."""
        most = MOST_SHOWN if len(self.steps) > MOST_SHOWN + 1 else MOST_SHOWN + 1
        return self.steps[:most]

    @property
    def rest(self) -> tuple[Step, ...]:
        """The others."""
        return self.steps[len(self.shown) :]

    @property
    def rest_sum(self) -> float:
        """What the others contribute together."""
        return math.fsum(step.contribution for step in self.rest)

    @property
    def rest_text(self) -> str:
        """The others, counted."""
        return f"{len(self.rest)} other columns"

    @property
    def rest_names(self) -> str:
        """The others by name, as far as a sentence holds them."""
        names = [step.name for step in self.rest[:MOST_NAMED]]
        more = len(self.rest) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")
