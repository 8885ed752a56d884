"""What may be advised of each column, and which values that leaves."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, Self

import numpy as np

from explainers.base import FloatArray

Direction = Literal["up", "down", "both"]

ON_GRID = 1e-9
"""Of the number of steps, and of one step at least: how far from a whole number counts as none."""

MOST_OFF_GRID = 0.05
"""Of a step: never more than that, or of large values neighbours on the grid were the same."""


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What may become of one raw column.

    Numbers: low and high bound what is advised, both inclusive, and only whole multiples of step
    are: 0, step, 2 * step, ..., wherever the present value lies. Categories and booleans: levels
    are the codes that may be advised, in the order that a direction other than `both` refers to.
    cost: of a unit by which a number moves, or of changing a category at all.
    Raises ValueError for a rule nothing could be found under.
    """

    name: str
    is_immutable: bool = False
    direction: Direction = "both"
    low: float = -math.inf
    high: float = math.inf
    step: float = 1.0
    levels: tuple[float, ...] | None = None
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not (self.cost > 0 and math.isfinite(self.cost)):
            raise ValueError(f"{self.name}: cost must be above 0")
        if self.levels is not None or self.is_immutable:
            return
        if not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"{self.name}: step must be above 0")
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"{self.name}: low and high must be numbers, low not above high")

    @property
    def freed(self) -> Self:
        """The same column if it could change, either way; itself where nobody knows how far."""
        if self.levels is None and not (math.isfinite(self.low) and math.isfinite(self.high)):
            return self
        return replace(self, is_immutable=False, direction="both")

    def allows(self, present: float, value: float) -> bool:
        """Going from the present value to that one keeps to the rule; staying always does."""
        if value == present or (math.isnan(value) and math.isnan(present)):
            return True
        if self.is_immutable:
            return False
        if self.levels is not None:
            return value in self.levels_from(present)
        steps = value / self.step
        return (
            self.low <= value <= self.high
            and abs(steps - round(steps)) <= _slack(steps)
            and not (self.direction == "up" and value < present)
            and not (self.direction == "down" and value > present)
        )

    def levels_from(self, present: float) -> tuple[float, ...]:
        """The levels that may be advised to somebody at the present one. With a direction, nobody
        whose own level has no place in the order can be told which way to go.
        """
        assert self.levels is not None
        if self.direction == "both":
            return tuple(level for level in self.levels if level != present)
        if present not in self.levels:
            return ()
        place = self.levels.index(present)
        return self.levels[place + 1 :] if self.direction == "up" else self.levels[:place]

    def values(self, present: float, most: int) -> FloatArray:
        """(V,) values that may be advised: all levels of a category; of numbers all if they are at
        most `most`, else the nearest ones and others ever wider apart, up to the farthest. A number
        that is missing stays so: nothing says how far away any other is.
        """
        if self.is_immutable:
            return np.empty(0)
        if self.levels is not None:
            return np.array(self.levels_from(present), dtype=np.float64)
        arms = [arm for arm in self._arms(present) if arm.count > 0]
        each = max(2, most // max(1, len(arms)))
        found = [arm.thinned(each) for arm in arms]
        steps = np.concatenate(found) if found else np.empty(0)
        return self._rounded(present, steps)

    def count(self, present: float) -> int:
        """How many values may be advised."""
        if self.is_immutable:
            return 0
        if self.levels is not None:
            return len(self.levels_from(present))
        return sum(max(0, arm.count) for arm in self._arms(present))

    def nearer(self, present: float, value: float, most: int) -> FloatArray:
        """(V,) values that may be advised and cost less than that one, on its side; as `values`.
        None of a category: all its levels cost the same.
        """
        if self.levels is not None or self.is_immutable:
            return np.empty(0)
        end = round(value / self.step)
        for arm in self._arms(present):
            if arm.count > 0 and (end - arm.first) * arm.sign > 0:
                inner = replace(arm, count=min(arm.count, abs(end - arm.first)))
                return self._rounded(present, inner.thinned(most))
        return np.empty(0)

    def _arms(self, present: float) -> Iterator["_Arm"]:
        """The whole numbers of steps below and above the present value, nearest first."""
        if math.isnan(present):
            return
        lowest = math.ceil(self.low / self.step - ON_GRID)
        highest = math.floor(self.high / self.step + ON_GRID)
        place = present / self.step
        slack = _slack(place)
        if self.direction != "up":
            first = min(highest, math.ceil(place - slack) - 1)
            yield _Arm(first, -1, first - lowest + 1)
        if self.direction != "down":
            first = max(lowest, math.floor(place + slack) + 1)
            yield _Arm(first, 1, highest - first + 1)

    def _rounded(self, present: float, steps: FloatArray) -> FloatArray:
        """Multiples of the step as people write them: 0.3, not 0.30000000000000004."""
        values = np.round(steps * self.step, _decimals(self.step))
        keeps = (values >= self.low) & (values <= self.high) & (values != present)
        kept: FloatArray = values[keeps]
        return kept


@dataclass(frozen=True, slots=True)
class _Arm:
    """`count` whole numbers from `first` on, in the direction of sign."""

    first: int
    sign: int
    count: int

    def thinned(self, most: int) -> FloatArray:
        """All of them, or the first half of `most` and as many again at growing distances."""
        if self.count <= most:
            offsets = np.arange(self.count, dtype=np.float64)
        else:
            near = np.arange(most // 2, dtype=np.float64)
            far = np.geomspace(max(1, most // 2), self.count - 1, most - len(near)).round()
            offsets = np.unique(np.concatenate([near, far]))
        return self.first + self.sign * offsets


def _slack(steps: float) -> float:
    return min(MOST_OFF_GRID, ON_GRID * max(1.0, abs(steps)))


def _decimals(step: float) -> int:
    exponent = Decimal(repr(step)).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
