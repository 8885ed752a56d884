"""How well a model fits the data it is registered with."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from explainers.base import BoolArray, FloatArray, IntArray, Level
from service.errors import InvalidInputError
from service.registry.classes import check_mapping, class_indices, entropy, resolve_classes
from service.registry.work import Options, Source

if TYPE_CHECKING:
    import pandas as pd

WORSE = (
    "the model predicts these data worse than a constant does; are they the data, and the columns "
    "in the order, it was trained on?"
)


class Judged(NamedTuple):
    """classes: None for a regression. quality: a sentence; measures: its numbers and others, by
    name. A measure that these data have none of (the AUC of a single class) is left out.
    """

    classes: tuple[Level, ...] | None
    quality: str
    measures: dict[str, float]
    warnings: list[str]


def judge(source: Source, options: Options, scores: FloatArray, labels: "pd.Series") -> Judged:
    """Classes and fit, by the (N, K) scores of the labelled rows. Raises InvalidInputError."""
    native = source.native
    if native.task == "regression":
        if options.classes is not None:
            raise InvalidInputError("--classes is for classifiers; this model is a regression")
        return _judge_regression(labels, scores[:, 0])
    stored = native.classes if native.classes is not None else source.artifact.classes
    classes = resolve_classes(stored, options.classes, labels, native.n_classes)
    indices = class_indices(classes, labels)
    loss = check_mapping(scores, indices, classes)
    hits = float(np.mean(scores.argmax(axis=1) == indices))
    misses = (scores - np.eye(len(classes))[indices]) ** 2
    measures = {
        "log_loss": loss,
        "accuracy": hits,
        # Of two classes that of the second, as the gauges of late labels have it.
        "brier": float(misses[:, 1 if len(classes) == 2 else 0 :].sum(axis=1).mean()),
        "auc": mean_auc(indices, scores),
    }
    quality = f"log-loss on the data {loss:.4f}, accuracy {hits:.4f}"
    return Judged(
        classes, quality, _known(measures), [WORSE] if loss > entropy(indices) + 1e-9 else []
    )


def _judge_regression(labels: "pd.Series", predicted: FloatArray) -> Judged:
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(labels) or not np.all(np.isfinite(labels.to_numpy())):
        raise InvalidInputError("the target of a regression must be finite numbers")
    truth = labels.to_numpy(dtype=np.float64)
    error = float(np.mean((truth - predicted) ** 2))
    measures = {"rmse": error**0.5, "mae": float(np.mean(np.abs(truth - predicted)))}
    if truth.min() == truth.max():
        quality = f"the target is constant, mean squared error {error:.4g}"
        return Judged(None, quality, _known(measures), [])
    share = 1.0 - error / float(truth.var())
    measures["r2"] = share
    quality = f"R2 on the data {share:.4f}"
    return Judged(None, quality, _known(measures), [WORSE] if share < 0 else [])


def _known(measures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if np.isfinite(value)}


def mean_auc(codes: IntArray, scores: FloatArray) -> float:
    """Of each class against the others, over those that some of the (N,) codes are of and some are
    not; of two classes that of the second. NaN where there is none.
    """
    first = 1 if scores.shape[1] == 2 else 0
    known = [k for k in range(first, scores.shape[1]) if is_both(codes, k)]
    return float(np.mean([auc(_is(codes, k), scores[:, k]) for k in known])) if known else np.nan


def is_both(codes: IntArray, k: int) -> bool:
    """Some rows are of the class, and some are not."""
    return bool(0 < _is(codes, k).sum() < len(codes))


def auc(is_positive: BoolArray, scores: FloatArray) -> float:
    """Area under the ROC curve of (N,) scores; NaN where only one class is there."""
    from scipy.stats import rankdata

    n_positive = int(is_positive.sum())
    n_pairs = n_positive * (len(scores) - n_positive)
    if not n_pairs:
        return float("nan")
    ranks = float(rankdata(scores)[is_positive].sum())
    return (ranks - n_positive * (n_positive + 1) / 2) / n_pairs


def _is(codes: IntArray, k: int) -> BoolArray:
    return np.asarray(codes == k)
