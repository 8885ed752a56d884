"""Do two versions predict alike: on all rows, on every slice, and with no two columns swapped."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from math import comb

import numpy as np

from explainers.base import BoolArray, FloatArray, IntArray
from schemas import Column
from service.gate.bounds import Bounds
from service.gate.findings import Finding, judged, skipped
from service.gate.sides import Pair
from service.gate.statistics import psi, shares_of, z_of

LEVEL = 0.01
"""Chance that any of the slices, or any of the pairs, is found by chance alone."""

SLICES = 4
"""Of a numeric column, at its quartiles."""

SWAPPED_ROWS = 1000
LEAST_SWAPPED = 0.9
"""Share of the rows with both columns present on which they can hold each other's values."""

LEAST_PRESENT = 30
"""Rows with both columns present, fewer of which say nothing about a swap."""

MOST_PAIRS = 500
"""Those of the columns that matter most to the old version."""


def prediction_findings(pair: Pair, bounds: Bounds) -> list[Finding]:
    """Labels, scores, slices and swapped columns."""
    if not pair.is_comparable:
        reason = "the versions predict different things"
        names = ("label_flips", "score_gap", "score_psi", "slice_gap", "swapped_columns")
        return [skipped(name, reason) for name in names]
    return [
        _label_flips(pair, bounds),
        _score_gap(pair, bounds),
        _score_psi(pair, bounds),
        _slice_gap(pair, bounds),
        _swapped_columns(pair, bounds),
    ]


def _label_flips(pair: Pair, bounds: Bounds) -> Finding:
    old, new = pair.old.scores, pair.new.scores
    if old.shape[1] == 1:
        return skipped("label_flips", "the model has no labels")
    flipped = old.argmax(axis=1) != new.argmax(axis=1)
    detail = f"{int(flipped.sum())} of {len(flipped)}"
    return judged("label_flips", float(flipped.mean()), bounds.label_flips, detail=detail)


def _score_gap(pair: Pair, bounds: Bounds) -> Finding:
    gaps = np.abs(differences(pair)).max(axis=1)
    detail = f"largest {gaps.max():.3f}"
    return judged("score_gap", float(gaps.mean()), bounds.score_gap, detail=detail)


def differences(pair: Pair) -> FloatArray:
    """(N, K) new minus old score, of a binary model the second class's alone; for regression in
    standard deviations of the old predictions.
    """
    old, new = pair.old.scores, pair.new.scores
    if old.shape[1] == 1:
        scale = float(old.std()) or max(float(np.abs(old).max()), 1.0)
        return np.asarray((new - old) / scale)
    first = 1 if old.shape[1] == 2 else 0
    return np.asarray((new - old)[:, first:])


def _score_psi(pair: Pair, bounds: Bounds) -> Finding:
    old, new = pair.old.scores, pair.new.scores
    first = 1 if old.shape[1] == 2 else 0
    found = [psi(old[:, k], new[:, k]) for k in range(first, old.shape[1])]
    worst = int(np.argmax(found))
    return judged("score_psi", found[worst], bounds.score_psi, at=_class(pair, worst + first))


def _class(pair: Pair, place: int) -> str:
    classes = pair.old.model.manifest.classes
    return "" if classes is None else str(classes[place])


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Rows with something in common."""

    name: str
    rows: IntArray


def slices(pair: Pair, least_rows: int) -> list[Slice]:
    """By level or quartile of each column of the old version, gaps apart, large enough ones."""
    found: list[Slice] = []
    for column, values in zip(pair.old.model.schema.columns, pair.old.X.T, strict=True):
        found += [
            Slice(f"{column.name} {name}", np.flatnonzero(chosen))
            for name, chosen in _parts(column, values)
            if least_rows <= chosen.sum() < len(values)
        ]
    return found


def _parts(column: Column, values: FloatArray) -> Iterator[tuple[str, BoolArray]]:
    missing = np.isnan(values)
    yield "missing", missing
    if column.kind in {"category", "boolean"}:
        levels = column.levels or (False, True)
        for code in np.unique(values[~missing]):
            name = "unseen level" if code < 0 else f"= {levels[int(code)]}"
            yield name, values == code
        return
    known = values[~missing]
    if not len(known):
        return
    edges = np.unique(np.quantile(known, np.linspace(0, 1, SLICES + 1)))
    for low, high in pairwise(edges):
        is_last = high == edges[-1]
        within = (values >= low) & ((values <= high) if is_last else (values < high))
        yield f"{low:g} to {high:g}", within


def _slice_gap(pair: Pair, bounds: Bounds) -> Finding:
    """The worst slice, by what its mean difference is at least (Bonferroni over all slices)."""
    parts, gaps = slices(pair, bounds.slice_rows_min), differences(pair)
    if not parts:
        return skipped("slice_gap", f"no slice has {bounds.slice_rows_min} rows")
    z = z_of(LEVEL, len(parts) * gaps.shape[1])
    surest = [_at_least(gaps[part.rows], z) for part in parts]
    worst = int(np.argmax(surest))
    mean = float(np.abs(gaps[parts[worst].rows].mean(axis=0)).max())
    detail = f"mean {mean:.3f} of {len(parts[worst].rows)} rows, worst of {len(parts)} slices"
    at = parts[worst].name
    return judged("slice_gap", surest[worst], bounds.slice_gap, at=at, detail=detail)


def _at_least(gaps: FloatArray, z: float) -> float:
    errors = gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))
    return max(0.0, float((np.abs(gaps.mean(axis=0)) - z * errors).max()))


def _swapped_columns(pair: Pair, bounds: Bounds) -> Finding:
    """Is the new version the old one with two columns swapped? Retraining moves outputs at random;
    a swap moves them to where the old version is when its own columns are swapped.
    """
    X = pair.old.X[:SWAPPED_ROWS]
    old, new = pair.old.outputs[: len(X)], pair.new.outputs[: len(X)]
    before = np.square(new - old).sum(axis=1)
    tried = list(islice(_swappable_pairs(pair, X), MOST_PAIRS)) if before.any() else []
    if not tried:
        return judged("swapped_columns", 0.0, bounds.swapped_columns)
    z, found = z_of(LEVEL, len(tried)), (0.0, "")
    for a, b, rows in tried:
        swapped = X[rows]
        swapped[:, [a, b]] = swapped[:, [b, a]]
        after = np.square(new[rows] - pair.old.model.evaluate(swapped)).sum(axis=1)
        gone = _share_gone(before[rows], after, z)
        if gone > found[0]:
            names = pair.old.model.schema.names
            found = gone, f"{names[a]}, {names[b]}"
    detail = f"{len(tried)} of {comb(X.shape[1], 2)} pairs tried"
    if found[1]:
        detail = f"of the difference goes when the old version's are swapped; {detail}"
    return judged("swapped_columns", found[0], bounds.swapped_columns, at=found[1], detail=detail)


def _swappable_pairs(pair: Pair, X: FloatArray) -> Iterator[tuple[int, int, IntArray]]:
    """Pairs of columns and the rows on which they can be swapped; those first whose lesser column
    has more of the old version's attribution or, without any, stands earlier.
    """
    values = pair.old.values
    weights = np.zeros(X.shape[1]) if values is None else shares_of(values)
    order = np.argsort(-weights, kind="stable").tolist()
    for place, lesser in enumerate(order):
        for greater in order[:place]:
            a, b = sorted((greater, lesser))
            is_present = np.isfinite(X[:, a]) & np.isfinite(X[:, b])
            rows = _swappable(pair, X, a, b)
            if len(rows) >= max(LEAST_PRESENT, LEAST_SWAPPED * is_present.sum()):
                yield a, b, rows


def _share_gone(before: FloatArray, after: FloatArray, z: float) -> float:
    """Of the squared difference; 0 where that may be chance."""
    gains = before - after
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    gain = float(gains.mean())
    return gain / float(before.mean()) if gain > z * error else 0.0


def _swappable(pair: Pair, X: FloatArray, a: int, b: int) -> IntArray:
    """Rows whose two columns differ and can each hold the other's value; gaps stay out."""
    columns = pair.old.model.schema.columns
    fits = np.isfinite(X[:, a]) & np.isfinite(X[:, b])
    for source, target in ((a, b), (b, a)):
        fits &= _holds(columns[target], X[:, source])
    return np.flatnonzero(fits)


def _holds(column: Column, values: FloatArray) -> BoolArray:
    if column.kind in {"category", "boolean"}:
        most = 2 if column.levels is None else len(column.levels)
        return np.asarray((values >= 0) & (values < most) & (values == np.floor(values)))
    if column.kind == "integer":
        return np.asarray(values == np.floor(values))
    return np.ones(len(values), dtype=np.bool_)
