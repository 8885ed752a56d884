"""Two tallies of one version compared: which columns, scores and attributions moved."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from explainers.base import FloatArray
from service.drift import statistics
from service.drift.bins import FIXED, Attributed, Bins, Cells, Tally

Kind = Literal["feature", "prediction", "attribution"]
KINDS: tuple[Kind, ...] = ("feature", "prediction", "attribution")
ALL_EXPLAINED = 0.9
"""Share of a window's rows from which on the explained ones are like all of them, as the
baseline's are. Fewer are a selection (of refused applications, say), different without any drift.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a shift is worth a word (notice) and when an alarm: large, and beyond chance as well.

    false_alarm_rate: of one comparison and kind, all its columns together.
    """

    false_alarm_rate: float = 0.001
    least_rows: int = 1000
    least_before: int = 100
    """Of the baseline, a small table perhaps: how few they are is part of what chance gives."""

    psi_notice: float = 0.1
    psi_alarm: float = 0.25
    ndcg_alarm: float = 0.9
    share_alarm: float = 0.05
    """Of all |value|, by which a column's part has grown or shrunk."""

    def are_enough(self, before: int, after: int) -> bool:
        """So many rows on either side say something."""
        return before >= self.least_before and after >= self.least_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of one column's inputs or attributions, or of one score.

    psi_expected: the mean index without any drift; p_value: how often chance alone gives such an
    index. output: of the attributions that moved most. Shares are of attributions only.
    """

    kind: Kind
    feature: str
    psi: float
    psi_expected: float
    p_value: float
    ks: float
    source: str = ""
    out_of_range: float = 0.0
    unseen: float = 0.0
    missing: float = 0.0
    output: str | None = None
    share_before: float | None = None
    share_after: float | None = None
    share_p_value: float | None = None
    is_notice: bool
    is_alarm: bool

    @property
    def share_shift(self) -> float:
        """How much more of all |value| is the column's."""
        if self.share_before is None or self.share_after is None:
            return 0.0
        return self.share_after - self.share_before


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything found, what moved most first. rows and explained: of both sides.

    A kind without enough rows on either side has no findings; ndcg: by output, likewise.
    is_selection: too few of the rows were explained to compare them with a baseline's.
    """

    rows: tuple[int, int]
    explained: tuple[int, int]
    findings: tuple[Finding, ...]
    ndcg: dict[str, float]
    limits: Limits
    is_selection: bool = False

    def of(self, kind: Kind) -> list[Finding]:
        """Those of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def is_order_lost(self) -> bool:
        """The attributions no longer rank the columns as they did."""
        return min(self.ndcg.values(), default=1.0) < self.limits.ndcg_alarm

    @property
    def is_alarm(self) -> bool:
        """Something moved."""
        return self.is_order_lost or any(finding.is_alarm for finding in self.findings)

    def has_enough(self, kind: Kind) -> bool:
        """There were enough rows to say anything of this kind."""
        if kind == "attribution":
            return not self.is_selection and self.limits.are_enough(*self.explained)
        return self.limits.are_enough(*self.rows)


@dataclass(frozen=True, slots=True)
class Names:
    """What is said of columns, scores and outputs; sources: of the columns, "" for unknown ones."""

    features: tuple[str, ...]
    sources: tuple[str, ...]
    scores: tuple[str, ...]
    outputs: tuple[str, ...]


def compare(
    bins: Bins,
    names: Names,
    before: Tally,
    after: Tally,
    limits: Limits | None = None,
    *,
    is_baseline: bool = False,
) -> Comparison:
    """What changed from one tally to the other. is_baseline: `before` is of all rows of a table,
    so attributions are compared only where about all rows of `after` were explained.
    """
    limits = limits or Limits()
    rows = int(before[Bins.ROWS]), int(after[Bins.ROWS])
    explained = int(before[Bins.EXPLAINED]), int(after[Bins.EXPLAINED])
    is_selection = is_baseline and explained[1] < ALL_EXPLAINED * rows[1]
    both = _Both(before, after, limits)
    findings: list[Finding] = []
    ndcg: dict[str, float] = {}
    if limits.are_enough(*rows):
        findings += _features(bins, names, both)
        findings += _predictions(bins, names, both)
    if limits.are_enough(*explained) and bins.attributed and not is_selection:
        findings += _attributions(bins, names, both, explained)
        ndcg = _ndcg(bins, names, both)
    ranked = sorted(findings, key=_strength, reverse=True)
    return Comparison(rows, explained, tuple(ranked), ndcg, limits, is_selection)


def _strength(finding: Finding) -> tuple[bool, bool, float]:
    size = max(finding.psi, abs(finding.share_shift))
    return finding.is_alarm, finding.is_notice, size


@dataclass(frozen=True, slots=True, eq=False)
class _Both:
    """The two tallies, and how sure to be of a difference between them."""

    before: Tally
    after: Tally
    limits: Limits

    def index(self, cells: Cells) -> tuple[float, float, float]:
        """PSI over all cells, its mean under no drift, and its p-value."""
        before, after = statistics.joined(cells.all(self.before), cells.all(self.after))
        m, n = int(before.sum()), int(after.sum())
        if not m or not n:
            return 0.0, 0.0, 1.0
        value = statistics.psi(before, after)
        expected = statistics.psi_expected(len(before), m, n)
        return value, expected, statistics.psi_p_value(value, len(before), m, n)

    def ks(self, cells: Cells) -> float:
        return statistics.ks_statistic(cells.ordered(self.before), cells.ordered(self.after))

    def verdict(self, psi: float, p_value: float, tests: int) -> tuple[bool, bool]:
        """Notice and alarm, where so many tests share the rate of false alarms (Bonferroni)."""
        is_real = p_value < self.limits.false_alarm_rate / tests
        return is_real and psi >= self.limits.psi_notice, is_real and psi >= self.limits.psi_alarm


def _features(bins: Bins, names: Names, both: _Both) -> list[Finding]:
    n = int(both.after[Bins.ROWS])
    found = []
    for i, cells in enumerate(bins.columns):
        psi, expected, p_value = both.index(cells)
        is_notice, is_alarm = both.verdict(psi, p_value, len(bins.columns))
        found.append(
            Finding(
                kind="feature",
                feature=names.features[i],
                source=names.sources[i],
                psi=psi,
                psi_expected=expected,
                p_value=p_value,
                ks=both.ks(cells),
                out_of_range=cells.outside(both.after) / n,
                unseen=cells.unseen(both.after) / n,
                missing=int(both.after[cells.start]) / n,
                is_notice=is_notice,
                is_alarm=is_alarm,
            )
        )
    return found


def _predictions(bins: Bins, names: Names, both: _Both) -> list[Finding]:
    found = []
    for name, cells in zip(names.scores, bins.scores, strict=True):
        psi, expected, p_value = both.index(cells)
        is_notice, is_alarm = both.verdict(psi, p_value, len(bins.scores))
        found.append(
            Finding(
                kind="prediction",
                feature=name,
                psi=psi,
                psi_expected=expected,
                p_value=p_value,
                ks=both.ks(cells),
                is_notice=is_notice,
                is_alarm=is_alarm,
            )
        )
    return found


def _attributions(
    bins: Bins, names: Names, both: _Both, explained: tuple[int, int]
) -> list[Finding]:
    """One finding a column: of the output in which it moved most."""
    found: dict[int, Finding] = {}
    for one in bins.attributed:
        finding = _attribution(one, bins, names, both, explained)
        known = found.get(one.column)
        if known is None or _strength(finding) > _strength(known):
            found[one.column] = finding
    return [*found.values()]


def _attribution(
    one: Attributed, bins: Bins, names: Names, both: _Both, explained: tuple[int, int]
) -> Finding:
    # Two tests each: of the bins, and of the share.
    tests = 2 * len(bins.attributed)
    psi, expected, p_value = both.index(one.cells)
    is_notice, is_alarm = both.verdict(psi, p_value, tests)
    (mean, error), (mean_after, error_after) = (
        _share(tally[one.sums], rows)
        for tally, rows in zip((both.before, both.after), explained, strict=True)
    )
    share_p = statistics.mean_shift_p_value(mean_after - mean, math.hypot(error, error_after))
    is_shifted = (
        share_p < both.limits.false_alarm_rate / tests
        and abs(mean_after - mean) >= both.limits.share_alarm
    )
    return Finding(
        kind="attribution",
        feature=names.features[one.column],
        source=names.sources[one.column],
        output=names.outputs[one.output],
        psi=psi,
        psi_expected=expected,
        p_value=p_value,
        ks=both.ks(one.cells),
        share_before=mean,
        share_after=mean_after,
        share_p_value=share_p,
        is_notice=is_notice or is_shifted,
        is_alarm=is_alarm or is_shifted,
    )


def _share(sums: Tally, rows: int) -> tuple[float, float]:
    """Mean share and its standard error."""
    mean, square = float(sums[0]) / FIXED / rows, float(sums[1]) / FIXED / rows
    return mean, math.sqrt(max(0.0, square - mean * mean) / rows)


def _ndcg(bins: Bins, names: Names, both: _Both) -> dict[str, float]:
    parts = [_shares(bins, tally, len(names.outputs)) for tally in (both.before, both.after)]
    return {name: statistics.ndcg(parts[0][c], parts[1][c]) for c, name in enumerate(names.outputs)}


def _shares(bins: Bins, tally: Tally, outputs: int) -> FloatArray:
    """(C, F) sums of shares: a row weighs at most 1, so no single one turns the order over, as it
    can among sums of |value|.
    """
    shares = np.zeros((outputs, len(bins.columns)))
    for one in bins.attributed:
        shares[one.output, one.column] = tally[one.sums][0]
    return shares
