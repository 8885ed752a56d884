"""Small seeded tables on which every rule of a tree library shows: gaps, zeros, ties, levels."""

import numpy as np
import pandas as pd

from explainers.base import FloatArray

N = 400
_rng = np.random.default_rng(0)

FILLED: FloatArray = _rng.normal(size=(N, 4))
FILLED[:, 1] = np.round(FILLED[:, 1], 1)
FILLED[:, 2] *= 1e-3
GAPPY: FloatArray = np.where(_rng.random((N, 4)) < 0.12, np.nan, FILLED)
ZEROS: FloatArray = np.where(_rng.random((N, 4)) < 0.2, 0.0, GAPPY)
"""Gaps, zeros, and numbers so small that LightGBM takes them for zero."""
ZEROS[_rng.random((N, 4)) < 0.05] = 1e-36
WHOLE: FloatArray = _rng.integers(0, 60, size=(N, 4)).astype(np.float64)
"""Whole numbers: thresholds lie halfway, exactly on float32 numbers."""

_seen = np.nan_to_num(GAPPY, nan=0.4)
TARGET: FloatArray = _seen[:, 0] * _seen[:, 1] + 300 * _seen[:, 2] + (_seen[:, 3] > 0)
NOISE: FloatArray = _rng.normal(size=N)
POSITIVE: FloatArray = np.abs(TARGET) + 0.1
SHARE: FloatArray = POSITIVE / POSITIVE.max()
IS_HIGH = (TARGET > 0.5).astype(np.int64)
THREE = np.digitize(TARGET, [-0.3, 0.6])

NAMES = ("size", "colour", "weight", "place")
LEVELS = {"colour": tuple("bcade"), "place": tuple(f"p{k}" for k in range(45))}
"""Neither sorted nor small: a set of places takes two words."""
CODED: FloatArray = GAPPY.copy()
"""(N, 4) rows of NAMES, levels as codes."""
CODED[:, 1] = np.where(np.arange(N) % 7, _rng.integers(0, 5, N), np.nan)
CODED[:, 3] = np.minimum(_rng.geometric(0.08, N) - 1, 44)
CODED_TARGET: FloatArray = _seen[:, 0] + 2 * np.isin(CODED[:, 1], [1, 3]) + CODED[:, 3] % 3
CODED_THREE = np.digitize(CODED_TARGET, [1.0, 2.5])


def framed(rows: FloatArray) -> pd.DataFrame:
    """Coded rows as the frame a boosting library is trained on; negative codes are missing."""
    columns = {}
    for index, name in enumerate(NAMES):
        cells = rows[:, index]
        if name in LEVELS:
            codes = np.where(np.isnan(cells), -1, cells).astype(np.int64)
            columns[name] = pd.Categorical.from_codes(np.maximum(codes, -1), LEVELS[name])
        else:
            columns[name] = cells
    return pd.DataFrame(columns)
