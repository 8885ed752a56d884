"""What inputs, scores and attributions were like at registration: what drift is measured from."""

import time
from typing import Any

import numpy as np

from explainers.base import FloatArray, Values
from schemas import Column, ModelSchema
from service.registry.building import INLINE_ENGINES
from service.registry.inference import draw_rows
from service.registry.work import Work

BINS = 10
MOST_EXPLAINED = 2000
ROWS_AT_ONCE = 100
EXPLAINING_SECONDS = 2.0
MOST_PAIRS = 5000
"""Of columns and outputs, each with bins of its own in every window."""

TOO_WIDE = f"more than {MOST_PAIRS} pairs of columns and outputs"
NO_INLINE = "no explainer that needs no call of the model"


def baseline_of(work: Work) -> dict[str, object]:
    """Per column the share missing and either decile edges with their shares or level shares; the
    same of scores, and of the values of every column and output.

    attributions null: without_attributions says why. Cost: 2,000 explained rows, or two seconds.
    """
    reason = _why_unexplained(work)
    return statistics_of(work.schema, work.rows, work.scores) | {
        "attributions": None if reason else attributions_of(_explained(work)),
        "without_attributions": reason,
    }


def statistics_of(schema: ModelSchema, rows: FloatArray, scores: FloatArray) -> dict[str, object]:
    """The part about inputs, (N, F), and scores, (N, K)."""
    return {
        "rows": len(rows),
        "columns": {
            column.name: _statistics(column, rows[:, i]) for i, column in enumerate(schema.columns)
        },
        "scores": [_histogram(scores[:, k]) for k in range(scores.shape[1])],
    }


def attributions_of(values: Values) -> dict[str, object]:
    """Of the values of M rows, per output and column: mean and standard deviation of |value|'s
    share of the row's sum over columns, and deciles.
    """
    shares = shares_of(values)
    outputs = [
        [
            {
                "mean_share": float(shares[:, f, c].mean()),
                "share_deviation": float(shares[:, f, c].std()),
                **_histogram(values[:, f, c]),
            }
            for f in range(values.shape[1])
        ]
        for c in range(values.shape[2])
    ]
    return {"rows": len(values), "outputs": outputs}


def shares_of(values: Values) -> FloatArray:
    """(N, F, C) |value| as a share of its row's and output's sum; 0 where all values are 0."""
    size = np.abs(values)
    total = size.sum(axis=1, keepdims=True)
    shares: FloatArray = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    return shares


def _why_unexplained(work: Work) -> str | None:
    if work.explainer is None or work.explainer.engine not in INLINE_ENGINES:
        return NO_INLINE
    pairs = len(work.naming.features) * len(work.naming.outputs)
    return TOO_WIDE if pairs > MOST_PAIRS else None


def _explained(work: Work) -> Values:
    """The values of as many drawn rows as the time allows."""
    assert work.explainer is not None
    chosen = draw_rows(len(work.rows), MOST_EXPLAINED, work.options.seed)
    # Anew, as a table may be sorted and the time may end first.
    chosen = np.random.default_rng(work.options.seed).permutation(chosen)
    parts: list[Values] = []
    start = time.perf_counter()
    for first in range(0, len(chosen), ROWS_AT_ONCE):
        rows = work.rows[chosen[first : first + ROWS_AT_ONCE]]
        parts.append(work.explainer.explain(rows).values)
        if time.perf_counter() - start > EXPLAINING_SECONDS:
            break
    return np.concatenate(parts)


def _statistics(column: Column, values: FloatArray) -> dict[str, object]:
    known = values[~np.isnan(values)]
    entry: dict[str, Any] = {"missing_share": 1.0 - len(known) / len(values)}
    levels = 2 if column.kind == "boolean" else len(column.levels or ())
    if levels:
        counts = np.bincount(known[known >= 0].astype(np.int64), minlength=levels)
        entry["level_shares"] = (counts / max(len(values), 1)).tolist()
    elif len(known):
        entry |= {"minimum": float(known.min()), "maximum": float(known.max())}
        entry |= _histogram(known)
    return entry


def _histogram(values: FloatArray) -> dict[str, object]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    shares = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "shares": (shares / len(values)).tolist()}
