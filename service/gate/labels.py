"""Where the rows say what came out: is the new version worse, or too good to be true."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray, IntArray
from service.errors import InvalidInputError
from service.gate.bounds import Bounds
from service.gate.findings import Finding, judged, skipped
from service.gate.sides import Pair
from service.gate.statistics import resampled
from service.registry.fit import is_both, mean_auc
from service.registry.naming import class_text

RESAMPLES = 200
ONE_SIDED = 0.05
Labels = Sequence[object]


def label_findings(pair: Pair, labels: Labels, bounds: Bounds, *, seed: int) -> list[Finding]:
    """AUC (mean of each class against the others, of classes that some rows are of and some are
    not) or RMSE. Raises InvalidInputError for labels that are none of the model's.
    """
    if not pair.is_comparable:
        return [skipped("labels", "the versions predict different things")]
    draws = resampled(len(labels), RESAMPLES, seed)
    if pair.old.model.manifest.task == "regression":
        return _rmse(pair, _numbers(labels), draws, bounds)
    return _auc(pair, _codes(pair, labels), draws, bounds)


def _numbers(labels: Labels) -> FloatArray:
    try:
        numbers = np.array([float(str(label)) for label in labels], dtype=np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise InvalidInputError("the labels of a regression must be numbers")
    return numbers


def _codes(pair: Pair, labels: Labels) -> IntArray:
    classes = pair.old.model.manifest.classes or ()
    code_of = {class_text(level): code for code, level in enumerate(classes)}
    texts = [_text(label) for label in labels]
    strange = sorted({text for text in texts if text not in code_of})
    if strange:
        raise InvalidInputError(
            f"{len(strange)} labels are no classes of the model, such as {strange[0]!r}; "
            f"its classes are {', '.join(code_of)}"
        )
    return np.array([code_of[text] for text in texts], dtype=np.int64)


def _text(label: object) -> str:
    value = label.item() if isinstance(label, np.generic) else label
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return class_text(value) if isinstance(value, str | int | float | bool) else str(value)


def _auc(pair: Pair, codes: IntArray, draws: IntArray, bounds: Bounds) -> list[Finding]:
    old, new = pair.old.scores, pair.new.scores
    first = 1 if old.shape[1] == 2 else 0
    missing = [k for k in range(first, old.shape[1]) if not is_both(codes, k)]
    if len(missing) == old.shape[1] - first:
        return [skipped("auc_drop", "the labels are all of one class")]
    before, after = mean_auc(codes, old), mean_auc(codes, new)
    drops = np.array([mean_auc(codes[d], old[d]) - mean_auc(codes[d], new[d]) for d in draws])
    detail = f"AUC {before:.4f} -> {after:.4f}"
    if missing:
        classes = pair.old.model.manifest.classes or ()
        names = ", ".join(class_text(classes[k]) for k in missing)
        detail = f"{detail}; no row is labelled {names}"
    return [
        judged("auc_drop", _at_least(drops), bounds.auc_drop, detail=f"at least; {detail}"),
        judged(
            "auc_gain", after - before, bounds.auc_gain, detail=f"more would be a leak; {detail}"
        ),
    ]


def _at_least(drops: NDArray[np.float64]) -> float:
    """Lower end of a one-sided interval, by the rows drawn again; never under 0."""
    known = drops[np.isfinite(drops)]
    return max(0.0, float(np.quantile(known, ONE_SIDED))) if len(known) else 0.0


def _rmse(pair: Pair, labels: FloatArray, draws: IntArray, bounds: Bounds) -> list[Finding]:
    old, new = (np.square(side.scores[:, 0] - labels) for side in (pair.old, pair.new))
    before, after = float(np.sqrt(old.mean())), float(np.sqrt(new.mean()))
    if before == 0:
        return [skipped("rmse_rise", "the old version makes no error")]
    rises = np.sqrt(new[draws].mean(axis=1) / np.maximum(old[draws].mean(axis=1), 1e-300)) - 1
    detail = f"RMSE {before:.4g} -> {after:.4g}"
    fall = 1 - after / before
    return [
        judged("rmse_rise", _at_least(rises), bounds.rmse_rise, detail=f"at least; {detail}"),
        judged("rmse_fall", fall, bounds.rmse_fall, detail=f"more would be a leak; {detail}"),
    ]
