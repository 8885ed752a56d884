"""What a comparison of two versions found: one line per check, and the verdict over all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "block", "note", "skip"]
"""note: told, never judged. skip: could not be measured; detail says why."""

Better = Literal["low", "high"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. value and bound are None where it is no number; at: the column, pair of columns,
    slice or class it was worst at.
    """

    check: str
    verdict: Verdict
    value: float | None = None
    bound: float | None = None
    at: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "check": self.check,
            "value": self.value,
            "bound": self.bound,
            "verdict": self.verdict,
            "at": self.at or None,
            "detail": self.detail or None,
        }


def judged(
    check: str,
    value: float,
    bound: float,
    *,
    better: Better = "low",
    at: str = "",
    detail: str = "",
) -> Finding:
    """Blocks beyond the bound; what is no number blocks as well."""
    passes = value <= bound if better == "low" else value >= bound
    return Finding(check, "pass" if passes else "block", value, bound, at, detail)


def equal(check: str, old: object, new: object, *, required: bool = True) -> Finding:
    """Blocks where the two differ, or only tells it."""
    if old == new:
        return Finding(check, "pass", detail=str(old))
    return Finding(check, "block" if required else "note", detail=f"{old} -> {new}")


def skipped(check: str, reason: str) -> Finding:
    """Not measured."""
    return Finding(check, "skip", detail=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """A finished comparison. old, new: name:version; rows: how many were compared, and from where;
    explained: how many of them had their attributions compared.
    """

    old: str
    new: str
    origin: str
    rows: int
    explained: int
    findings: Sequence[Finding]

    @property
    def blocks(self) -> Sequence[Finding]:
        """The checks that said no."""
        return [finding for finding in self.findings if finding.verdict == "block"]

    def to_json(self) -> Mapping[str, object]:
        """As `--json` prints it."""
        return {
            "old": self.old,
            "new": self.new,
            "origin": self.origin,
            "rows": self.rows,
            "explained": self.explained,
            "verdict": "block" if self.blocks else "pass",
            "checks": [finding.to_json() for finding in self.findings],
        }
