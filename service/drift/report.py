"""A comparison for people and for programs: what moved, by column, and where it comes from."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from service.drift.baseline import Baseline
from service.drift.comparing import Comparison, Finding, Kind

NO_SOURCE = "no x-source in its schema"


@dataclass(frozen=True, slots=True)
class Period:
    """Hours that began in [since, until)."""

    since: datetime
    until: datetime

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Moved:
    """One column: its inputs, and its attributions where there are any."""

    column: str
    source: str
    inputs: Finding | None
    attributions: Finding | None

    @property
    def is_alarm(self) -> bool:
        """Its inputs or its attributions moved."""
        return any(part is not None and part.is_alarm for part in (self.inputs, self.attributions))

    @property
    def evidence(self) -> tuple[bool, bool, float]:
        """What sorts columns: alarm, notice, and the larger index."""
        parts = [part for part in (self.inputs, self.attributions) if part is not None]
        return (
            self.is_alarm,
            any(part.is_notice for part in parts),
            max((part.psi for part in parts), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """One comparison and what was compared. against None: with the baseline."""

    baseline: Baseline
    comparison: Comparison
    period: Period
    against: Period | None

    @property
    def columns(self) -> list[Moved]:
        """All columns, what moved most first."""
        found = self.comparison
        by_column: dict[str, dict[Kind, Finding]] = {}
        for finding in (*found.of("feature"), *found.of("attribution")):
            by_column.setdefault(finding.feature, {})[finding.kind] = finding
        moved = [
            Moved(
                name,
                next(iter(parts.values())).source,
                parts.get("feature"),
                parts.get("attribution"),
            )
            for name, parts in by_column.items()
        ]
        return sorted(moved, key=lambda one: one.evidence, reverse=True)

    @property
    def notes(self) -> list[str]:
        """What could not be said, and why."""
        found, limits = self.comparison, self.comparison.limits
        needed = f"{limits.least_rows} against {limits.least_before} are needed"
        notes = []
        if not found.has_enough("feature"):
            notes.append(
                f"too few rows to say anything: {found.rows[1]} against {found.rows[0]}, "
                f"at least {needed}"
            )
        reason = self.baseline.without_attributions
        if reason is not None:
            notes.append(f"attributions are not compared: {reason}")
        elif found.is_selection:
            notes.append(
                f"attributions are not compared: explained rows are a selection "
                f"({found.explained[1]} of {found.rows[1]}); compare two windows"
            )
        elif not found.has_enough("attribution"):
            notes.append(
                f"too few explained rows to compare attributions: {found.explained[1]} against "
                f"{found.explained[0]}, at least {needed}"
            )
        return notes

    def document(self) -> dict[str, object]:
        """As JSON."""
        found = self.comparison
        return {
            "model": self.baseline.model,
            "version": self.baseline.version,
            "drift": found.is_alarm,
            "window": _document(self.period, found.rows[1], found.explained[1]),
            "against": {
                **_document(self.against, found.rows[0], found.explained[0]),
                "baseline": self.against is None,
            },
            "columns": [
                {
                    "column": one.column,
                    "source": one.source or None,
                    "drift": one.is_alarm,
                    "inputs": _numbers(one.inputs, _OF_INPUTS),
                    "attributions": _numbers(one.attributions, _OF_ATTRIBUTIONS),
                }
                for one in self.columns
            ],
            "predictions": [
                {"output": one.feature, **(_numbers(one, _OF_ALL) or {})}
                for one in found.of("prediction")
            ],
            "ndcg": found.ndcg,
            "limits": asdict(found.limits),
            "notes": self.notes,
        }

    def lines(self) -> Iterator[str]:
        """As text."""
        found = self.comparison
        named = f"{self.baseline.model}/{self.baseline.version}"
        against = "its baseline" if self.against is None else str(self.against)
        yield f"{named}: {self.period} ({found.rows[1]} rows) against {against} ({found.rows[0]})"
        yield from self.notes
        if not found.has_enough("feature") and not found.has_enough("attribution"):
            return
        yield "DRIFT" if found.is_alarm else "no drift"
        for one in self.columns:
            yield from _column_lines(one)
        for score in found.of("prediction"):
            if score.is_notice:
                yield f"predictions of {score.feature}: {_shift(score)}"
        for output, value in found.ndcg.items():
            if value < found.limits.ndcg_alarm:
                yield f"order of the attributions of {output}: nDCG {value:.3f}"


_OF_ALL = ("psi", "psi_expected", "p_value", "ks", "is_notice", "is_alarm")
_OF_INPUTS = (*_OF_ALL, "out_of_range", "unseen", "missing")
_OF_ATTRIBUTIONS = (*_OF_ALL, "output", "share_before", "share_after", "share_p_value")


def _numbers(finding: Finding | None, names: tuple[str, ...]) -> dict[str, object] | None:
    if finding is None:
        return None
    return {name.removeprefix("is_"): getattr(finding, name) for name in names}


def _document(period: Period | None, rows: int, explained: int) -> Mapping[str, object]:
    since, until = (None, None) if period is None else (period.since, period.until)
    return {"from": since, "to": until, "rows": rows, "explained": explained}


def _column_lines(one: Moved) -> Iterator[str]:
    parts = []
    if one.inputs is not None and one.inputs.is_notice:
        parts.append(f"inputs {_shift(one.inputs)}{_strange(one.inputs)}")
    own = one.attributions
    if own is not None and own.is_notice:
        share = f"share {own.share_before:.1%} -> {own.share_after:.1%}"
        parts.append(f"attributions {_shift(own)}, {share}")
    if parts:
        yield f"{'! ' if one.is_alarm else '  '}{one.column} ({one.source or NO_SOURCE})"
        yield from (f"    {part}" for part in parts)


def _shift(finding: Finding) -> str:
    by_chance = f"{finding.psi_expected:.3f} by chance"
    return f"PSI {finding.psi:.3f} ({by_chance}), KS {finding.ks:.3f}"


def _strange(finding: Finding) -> str:
    shares = {
        "outside what was seen": finding.out_of_range,
        "unknown levels": finding.unseen,
        "missing": finding.missing,
    }
    return "".join(f", {share:.1%} {what}" for what, share in shares.items() if share > 0)
