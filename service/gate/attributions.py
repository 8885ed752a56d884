"""Do two versions explain alike: which columns matter, which way, how much, how stably."""

import numpy as np

from explainers.base import Background, FloatArray, Values
from service.drift.statistics import ndcg
from service.gate.bounds import Bounds
from service.gate.findings import Finding, judged, skipped
from service.gate.sides import Pair, explain
from service.gate.statistics import (
    correlation,
    shares_of,
    sign_agreement,
    spearman,
)

AGREEMENT = ("spearman", "ndcg", "sign_agreement", "share_shift", "column_correlation")
BACKGROUND_ROWS = 100


def attribution_findings(pair: Pair, bounds: Bounds) -> list[Finding]:
    """Of the columns both versions read, and of those only the new one has."""
    found = pair.common_values()
    if found is None:
        reason = "there are no attributions of both versions in the same units"
        return [skipped(name, reason) for name in AGREEMENT]
    old, new = found
    before, after = shares_of(old), shares_of(new)
    return [
        judged("spearman", spearman(before, after), bounds.spearman, better="high"),
        judged("ndcg", ndcg(before, after), bounds.ndcg, better="high"),
        judged("sign_agreement", sign_agreement(old, new), bounds.sign_agreement, better="high"),
        *_share_shift(pair, (before, after), bounds),
        *_column_correlation(pair, (old, new), before, bounds),
        *_new_columns(pair, bounds),
    ]


def _share_shift(
    pair: Pair, shares: tuple[FloatArray, FloatArray], bounds: Bounds
) -> list[Finding]:
    before, after = shares
    worst = int(np.argmax(np.abs(after - before)))
    detail = f"share {before[worst]:.3f} -> {after[worst]:.3f}"
    value = float(abs(after[worst] - before[worst]))
    return [judged("share_shift", value, bounds.share_shift, at=pair.columns[worst], detail=detail)]


def _column_correlation(
    pair: Pair, values: tuple[Values, Values], shares: FloatArray, bounds: Bounds
) -> list[Finding]:
    judged_columns = np.flatnonzero(shares >= bounds.column_share_min)
    if not len(judged_columns):
        return [skipped("column_correlation", "no column has a share worth comparing")]
    found = [_correlation_of(values, int(column)) for column in judged_columns]
    worst = int(np.argmin(found))
    column = int(judged_columns[worst])
    return [
        judged(
            "column_correlation",
            found[worst],
            bounds.column_correlation,
            better="high",
            at=pair.columns[column],
            detail=f"share {shares[column]:.3f}",
        )
    ]


def _correlation_of(values: tuple[Values, Values], column: int) -> float:
    """Over rows and outputs, each output about its own mean."""
    old, new = (side[:, column] - side[:, column].mean(axis=0) for side in values)
    return correlation(old.ravel(), new.ravel())


def _new_columns(pair: Pair, bounds: Bounds) -> list[Finding]:
    """A column the old version did not have, and that now explains most, is rather a leak."""
    values = pair.new.values
    names = pair.new.model.schema.names
    strange = [i for i, name in enumerate(names) if name not in pair.columns]
    if values is None or not strange:
        return []
    shares = shares_of(values)
    worst = max(strange, key=lambda i: float(shares[i]))
    value = float(shares[worst])
    return [judged("new_column_share", value, bounds.new_column_share, at=names[worst])]


def stability_findings(pair: Pair, bounds: Bounds) -> list[Finding]:
    """Neighbours must be explained as alike as before."""
    old, new = pair.old.stability, pair.new.stability
    if old is None or new is None:
        return [skipped("stability_drop", "a version has no explanations")]
    detail = f"mean cosine {old:.3f} -> {new:.3f}"
    return [judged("stability_drop", old - new, bounds.stability_drop, detail=detail)]


def background_effect(pair: Pair, bounds: Bounds) -> list[Finding]:
    """What the other background alone does: the old model explained against both."""
    old, new = pair.old, pair.new
    explainer, values = old.model.explainer, old.values
    if old.model.background.digest == new.model.background.digest:
        return []
    if explainer is None or values is None or old.model.schema.names != new.model.schema.names:
        return [skipped("background_effect", "the old version cannot be explained against it")]
    n_rows = min(len(values), BACKGROUND_ROWS if old.model.runs_inline else BACKGROUND_ROWS // 5)
    rows = _recoded(pair)
    if rows is None:
        return [skipped("background_effect", "the backgrounds have other levels")]
    moved = explain(explainer.against(Background.of(rows)), old.X[:n_rows])
    sizes = float(np.abs(values[:n_rows]).sum()) or 1.0
    value = float(np.abs(moved - values[:n_rows]).sum()) / sizes
    detail = "of the old model's attributions, by the new background alone"
    return [judged("background_effect", value, bounds.background_effect, detail=detail)]


def _recoded(pair: Pair) -> FloatArray | None:
    """The new background as the old version codes it; None with levels that one lacks."""
    from service.registry.inference import instances_of, rows_of

    new = pair.new.model
    try:
        return rows_of(pair.old.model.schema, instances_of(new.schema, new.background.rows))
    except (KeyError, ValueError):
        return None
