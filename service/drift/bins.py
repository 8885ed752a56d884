"""The bins a version's baseline froze, and rows counted in them: one vector of integers.

Integers, so that windows of any number of replicas add up to the same whatever their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, Values
from schemas import Column, ModelSchema
from service.drift.statistics import Counts
from service.registry.baseline import shares_of

LAYOUT = 2
"""Of tallies: where what stands. Those of another cannot be added."""

FIXED = 2**20
"""Steps of a share in what is summed up: 2**43 rows of them fit."""

Tally = NDArray[np.int64]
"""(L,) counts and sums of one window; `Bins` says what stands where."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Where the counts of one column, score or value stand, and how numbers get there.

    First missing, then the bins or levels; last what is outside: a level the model does not know,
    or rows below and above what was seen, which are counted in their bins as well.
    """

    start: int
    edges: FloatArray | None
    levels: int = 0
    seen: tuple[float, float] | None = None

    @property
    def bins(self) -> int:
        """Bins, or levels."""
        return self.levels if self.edges is None else len(self.edges) + 1

    @property
    def stop(self) -> int:
        """Where the next ones start."""
        return self.start + 1 + self.bins + (1 if self.edges is None else 2)

    def count(self, values: FloatArray, tally: Tally) -> None:
        """Add N numbers of the column."""
        is_known = ~np.isnan(values)
        known = values if is_known.all() else values[is_known]
        tally[self.start] += len(values) - len(known)
        first, after = self.start + 1, self.start + 1 + self.bins
        if self.edges is not None:
            places = np.searchsorted(self.edges, known, side="left")
            tally[first:after] += np.bincount(places, minlength=self.bins)
            if self.seen is not None:
                tally[after] += np.count_nonzero(known < self.seen[0])
                tally[after + 1] += np.count_nonzero(known > self.seen[1])
            return
        is_listed = (known >= 0) & (known < self.levels)
        listed = known[is_listed].astype(np.int64)
        tally[first:after] += np.bincount(listed, minlength=self.bins)
        tally[after] += len(known) - len(listed)

    def ordered(self, tally: Tally) -> Counts:
        """Rows of the bins or levels alone, in order."""
        return tally[self.start + 1 : self.start + 1 + self.bins]

    def all(self, tally: Tally) -> Counts:
        """Rows of every cell that excludes the others: missing, bins or levels, unknown level."""
        return tally[self.start : self.stop - (0 if self.edges is None else 2)]

    def unseen(self, tally: Tally) -> int:
        """Rows with a level the model does not know."""
        return int(tally[self.stop - 1]) if self.edges is None else 0

    def outside(self, tally: Tally) -> int:
        """Rows below or above everything seen at registration."""
        return 0 if self.edges is None else int(tally[self.stop - 2 : self.stop].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Attributed:
    """The same of the values of one column and output, and where their sums stand: |value|'s
    share of the row, and the share's square.
    """

    output: int
    column: int
    cells: Cells

    @property
    def sums(self) -> slice:
        """Of the two sums."""
        return slice(self.cells.stop, self.cells.stop + 2)


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """All bins of a version."""

    names: tuple[str, ...]
    columns: tuple[Cells, ...]
    scores: tuple[Cells, ...]
    attributed: tuple[Attributed, ...]
    size: int

    ROWS = 0
    EXPLAINED = 1

    @classmethod
    def of(cls, schema: ModelSchema, baseline: Mapping[str, Any]) -> Self:
        """As a baseline froze them. Raises KeyError, TypeError or ValueError for another's."""
        place = 2
        columns: list[Cells] = []
        for column in schema.columns:
            columns.append(_column_cells(column, baseline["columns"][column.name], place))
            place = columns[-1].stop
        scores: list[Cells] = []
        for entry in baseline["scores"]:
            scores.append(Cells(place, _edges(entry)))
            place = scores[-1].stop
        attributed: list[Attributed] = []
        outputs = (baseline.get("attributions") or {"outputs": []})["outputs"]
        for c, entries in enumerate(outputs):
            for f, entry in enumerate(entries):
                attributed.append(Attributed(c, f, Cells(place, _edges(entry))))
                place = attributed[-1].sums.stop
        return cls(schema.names, tuple(columns), tuple(scores), tuple(attributed), place)

    def empty(self) -> Tally:
        """A tally of no rows."""
        return np.zeros(self.size, dtype=np.int64)

    def count(self, X: FloatArray, scores: FloatArray, tally: Tally) -> None:
        """Add N rows: as fed, (N, F), and their scores, (N, K)."""
        tally[self.ROWS] += len(X)
        for i, cells in enumerate(self.columns):
            cells.count(X[:, i], tally)
        for k, cells in enumerate(self.scores):
            cells.count(scores[:, k], tally)

    def count_values(self, values: Values, tally: Tally) -> None:
        """Add N explained rows, (N, F, C); nothing where the baseline has no attributions."""
        if not self.attributed:
            return
        tally[self.EXPLAINED] += len(values)
        shares = shares_of(values)
        sums = [_steps(part).sum(axis=0) for part in (shares, shares * shares)]
        totals = np.stack(sums, axis=-1)
        for one in self.attributed:
            one.cells.count(values[:, one.column, one.output], tally)
            tally[one.sums] += totals[one.column, one.output]

    def reference(self, baseline: Mapping[str, Any]) -> Tally:
        """The baseline as the tally its own rows would have given."""
        tally, rows = self.empty(), baseline["rows"]
        tally[self.ROWS] = rows
        for name, cells in zip(self.names, self.columns, strict=True):
            entry = baseline["columns"][name]
            missing = _times(rows, entry["missing_share"])
            tally[cells.start] = missing
            # The shares of levels are of all rows, those of bins of the known ones.
            of = rows if cells.edges is None else rows - missing
            shares = entry["level_shares"] if cells.edges is None else entry.get("shares", [0.0])
            _fill(cells, tally, of, shares)
        for cells, entry in zip(self.scores, baseline["scores"], strict=True):
            _fill(cells, tally, rows, entry["shares"])
        if self.attributed:
            self._add_attributions(baseline["attributions"], tally)
        return tally

    def _add_attributions(self, attributions: Mapping[str, Any], tally: Tally) -> None:
        rows = attributions["rows"]
        tally[self.EXPLAINED] = rows
        for one in self.attributed:
            entry = attributions["outputs"][one.output][one.column]
            _fill(one.cells, tally, rows, entry["shares"])
            mean, deviation = entry["mean_share"], entry["share_deviation"]
            tally[one.sums] = (
                _times(rows * FIXED, mean),
                _times(rows * FIXED, mean * mean + deviation * deviation),
            )


def _column_cells(column: Column, entry: Mapping[str, Any], start: int) -> Cells:
    levels = 2 if column.kind == "boolean" else len(column.levels or ())
    if levels:
        return Cells(start, None, levels)
    seen = (entry["minimum"], entry["maximum"]) if "minimum" in entry else None
    return Cells(start, _edges(entry), seen=seen)


def _edges(entry: Mapping[str, Any]) -> FloatArray:
    """One bin for a column of which nothing was known."""
    return np.array(entry.get("edges", []), dtype=np.float64)


def _steps(values: FloatArray) -> Tally:
    return np.rint(values * FIXED).astype(np.int64)


def _times(rows: int, share: float) -> int:
    return round(rows * share)


def _fill(cells: Cells, tally: Tally, rows: int, shares: Sequence[float]) -> None:
    cells.ordered(tally)[:] = [_times(rows, share) for share in shares]
