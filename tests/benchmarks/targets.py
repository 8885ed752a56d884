"""What a benchmark is to reach, printed beside what it reached."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What was to be reached, and what was."""

    what: str
    bound: float
    reached: float
    is_least: bool = True

    @property
    def is_met(self) -> bool:
        return self.reached >= self.bound if self.is_least else self.reached <= self.bound

    def __str__(self) -> str:
        relation = "at least" if self.is_least else "at most "
        verdict = "" if self.is_met else "   MISSED"
        return (
            f"{self.what:<72} {relation} {_short(self.bound):>7} {_short(self.reached):>9}{verdict}"
        )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def verdict(targets: Iterable[Target]) -> int:
    """Print all; the exit code says whether any was missed."""
    found = list(targets)
    print(f"\n{'target':<72} {'':<8} {'bound':>7} {'reached':>9}")
    for target in found:
        print(target)
    return 0 if all(target.is_met for target in found) else 1
