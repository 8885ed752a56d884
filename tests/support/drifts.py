"""Baselines and tallies made without a registry."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from explainers.base import FloatArray, Values
from schemas import Column, ModelSchema
from service.drift.baseline import Baseline
from service.drift.bins import Bins, Tally
from service.drift.comparing import Names
from service.drift.tallying import Tallies
from service.registry.baseline import attributions_of, statistics_of

SCHEMA = ModelSchema(
    (
        Column("age", "number", nullable=True, source="crm.people"),
        Column("visits", "integer"),
        Column("site", "category", ("left", "right"), unknown="ignore", nullable=True),
        Column("smoker", "boolean"),
    )
)


def rows_of_people(count: int, seed: int = 0) -> FloatArray:
    """Rows as fed: ages partly missing, levels as codes."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        [
            rng.normal(50, 10, count),
            rng.integers(0, 9, count),
            rng.integers(0, 2, count),
            rng.random(count) < 0.3,
        ]
    ).astype(np.float64)
    rows[rng.random(count) < 0.1, 0] = np.nan
    return rows


def scores_of(rows: FloatArray) -> FloatArray:
    return np.nan_to_num(rows).sum(axis=1, keepdims=True)


def values_of(rows: FloatArray) -> Values:
    """(N, F, 1), as of a linear model."""
    centred = np.nan_to_num(rows - np.nanmean(rows_of_people(5000, 9), axis=0))
    return (centred * np.array([1.0, 2.0, 3.0, 0.5]))[:, :, None]


def document_of(rows: FloatArray, values: Values | None = None) -> dict[str, Any]:
    """As registration writes it."""
    document = statistics_of(SCHEMA, rows, scores_of(rows)) | {
        "attributions": None if values is None else attributions_of(values),
        "without_attributions": "none in this test" if values is None else None,
    }
    return orjson.loads(orjson.dumps(document))  # type: ignore[no-any-return]


def baseline_of_people(digest: str = "0" * 16, version: int = 1) -> Baseline:
    rows = rows_of_people(5000, 9)
    document = document_of(rows, values_of(rows))
    bins = Bins.of(SCHEMA, document)
    sources = tuple(column.source for column in SCHEMA.columns)
    names = Names(SCHEMA.names, sources, ("value",), ("value",))
    return Baseline("people", version, digest, bins, names, bins.reference(document), None)


def tally_of(baseline: Baseline, rows: FloatArray) -> Tally:
    tally = baseline.bins.empty()
    baseline.bins.count(rows, scores_of(rows), tally)
    baseline.bins.count_values(values_of(rows), tally)
    return tally


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1_800_000_000.0
    dropped: list[int] = field(default_factory=list)

    def tallies(self, **options: int) -> Tallies:
        return Tallies(self.dropped.append, clock=lambda: self.now, **options)


def see(tallies: Tallies, baseline: Baseline, rows: FloatArray) -> None:
    tallies.see(baseline, rows, scores_of(rows), values_of(rows))
