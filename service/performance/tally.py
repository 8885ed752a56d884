"""Labelled instances counted so that counts of any times add up: scores in bins, sums of errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from explainers.base import FloatArray
from service.evidence.labelled import Outcome
from service.registry.manifest import Manifest
from service.registry.naming import class_text

Tally = NDArray[np.float64]
"""Sums and counts, (`Shape.size`,): exact integers where they are counts."""

SCORE_BINS = 512
MOST_LOG_ODDS = 16.0
"""Scores are binned by log-odds, a sixteenth wide, so that those of rare classes are told apart
too. Within a bin the odds differ by 6 %; what an AUC loses by calling them equal is far below its
standard error.
"""

CALIBRATION_BINS = 10
ROWS, LOSS, LOSS_SQUARED, ABSOLUTE, ERROR = range(5)
"""Of every tally: instances; sums of the squared error (of a classifier Brier's), of its square, of
the absolute error and of the error.
"""

MOST_SPREADS = 10
DECILE_RANGE = 2.563
"""From the first decile to the ninth in standard deviations, of a normal distribution."""

SUMS = 5
COUNT, FORECAST, HITS, SPREAD = range(4)
"""Of a calibration bin: instances, the sum of what was forecast, how many came true, and the sum
of the squared difference.
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a version predicts. classes: as their names in JSON; empty for a regression.

    most_error: of a regression, the largest error that counts as it is; larger ones, of mistyped
    labels mostly, count as this much, else one of them hides every change in noise.
    """

    classes: tuple[str, ...]
    most_error: float = math.inf

    @classmethod
    def of(cls, manifest: Manifest, score_deciles: Sequence[float] = ()) -> Self:
        """Of a registered version, whose scores had those deciles at registration."""
        spread = (max(score_deciles) - min(score_deciles)) / DECILE_RANGE if score_deciles else 0.0
        most_error = MOST_SPREADS * spread or math.inf
        return cls(tuple(map(class_text, manifest.classes or ())), most_error)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Classes whose scores are ranked: of two the second, the positive one; else all."""
        return self.classes[1:] if len(self.classes) == 2 else self.classes

    @property
    def size(self) -> int:
        """Numbers in a tally."""
        if not self.classes:
            return SUMS
        return SUMS + 4 * CALIBRATION_BINS + len(self.ranked) * 2 * SCORE_BINS

    def empty(self) -> Tally:
        """Nothing counted."""
        return np.zeros(self.size)

    def calibration(self, tally: Tally) -> FloatArray:
        """(10, 4): count, forecast, hits and spread of each bin of the forecast probability."""
        return tally[SUMS : SUMS + 4 * CALIBRATION_BINS].reshape(CALIBRATION_BINS, 4)

    def scores(self, tally: Tally) -> FloatArray:
        """(C, 2, 512): of each ranked class how many other and own instances are in each bin."""
        return tally[SUMS + 4 * CALIBRATION_BINS :].reshape(len(self.ranked), 2, SCORE_BINS)

    def count(self, found: Sequence[Outcome], tally: Tally) -> None:
        """Add the instances that have both a prediction and a label."""
        pairs = [
            (prediction, label)
            for outcome in found
            for prediction, label in zip(outcome.predictions, outcome.labels, strict=True)
            if prediction is not None and label is not None
        ]
        if not pairs:
            return
        if self.classes:
            self._count_classes(pairs, tally)
        else:
            errors = np.array([float(p["value"]) - float(y) for p, y in pairs])  # type: ignore[arg-type]
            errors = np.clip(errors, -self.most_error, self.most_error)
            _add_errors(tally, errors, errors**2)

    def _count_classes(
        self, pairs: Sequence[tuple[dict[str, object], object]], tally: Tally
    ) -> None:
        place = {name: k for k, name in enumerate(self.classes)}
        said = [p["probabilities"] for p, _ in pairs]
        P = np.array([[row[name] for name in self.classes] for row in said])  # type: ignore[index]
        truth = np.array([place[class_text(y)] for _, y in pairs])  # type: ignore[arg-type]
        Y = np.eye(len(self.classes))[truth]
        if len(self.classes) == 2:
            forecast, came_true = P[:, 1], Y[:, 1]
            _add_errors(tally, forecast - came_true, (forecast - came_true) ** 2)
        else:
            best = P.argmax(axis=1)
            forecast, came_true = P.max(axis=1), (best == truth).astype(np.float64)
            _add_errors(tally, forecast - came_true, ((P - Y) ** 2).sum(axis=1))
        _add_calibration(self.calibration(tally), forecast, came_true)
        ranked = [place[name] for name in self.ranked]
        histograms = self.scores(tally)
        for c, k in enumerate(ranked):
            np.add.at(histograms[c], (Y[:, k].astype(int), _score_bins(P[:, k])), 1)


def _add_errors(tally: Tally, errors: FloatArray, losses: FloatArray) -> None:
    absolute = np.abs(errors)
    parts = len(errors), losses.sum(), (losses**2).sum(), absolute.sum(), errors.sum()
    tally[:SUMS] += np.array(parts, dtype=np.float64)


def _add_calibration(bins: FloatArray, forecast: FloatArray, came_true: FloatArray) -> None:
    which = np.minimum((forecast * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = forecast - came_true
    columns = np.column_stack([np.ones(len(gap)), forecast, came_true, gap**2])
    np.add.at(bins, which, columns)


def _score_bins(p: FloatArray) -> NDArray[np.int64]:
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    log_odds = np.log(clipped / (1 - clipped))
    scaled = (log_odds + MOST_LOG_ODDS) / (2 * MOST_LOG_ODDS) * SCORE_BINS
    return np.clip(scaled, 0, SCORE_BINS - 1).astype(np.int64)
