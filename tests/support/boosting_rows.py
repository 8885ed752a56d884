"""Rows and frames the tests of all boosting libraries train on."""

from typing import Any

import numpy as np
import pandas as pd

from explainers.base import FloatArray

CATEGORIES = {"colour": tuple("bcade"), "rooms": (10, 20, 30)}
"""Levels of the category columns of `category_frame`; those of colour are not in order."""


def rows_with_gaps(n_rows: int) -> FloatArray:
    """(N, 4) normal numbers, a tenth of them missing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 4))
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def signal_of(X: FloatArray) -> FloatArray:
    """(N,) what is to be learned of rows with gaps."""
    filled = np.nan_to_num(X, nan=0.4)
    return filled[:, 0] * filled[:, 1] + filled[:, 2]


def category_frame(X: FloatArray) -> pd.DataFrame:
    """A number with gaps and two pandas categories, one of them with gaps too."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "size": X[:, 0],
            "colour": pd.Categorical(rng.choice(list("bcade"), len(X)), list("bcade")),
            "rooms": pd.Categorical(rng.choice([10, 20, 30], len(X))),
        }
    )
    frame.loc[::7, "colour"] = np.nan
    return frame


def labels_of(frame: pd.DataFrame) -> Any:
    """(N,) what is to be learned of a category frame."""
    signal = frame["size"].fillna(1) + frame["colour"].isin(["b", "d"]) + (frame["rooms"] == 20)
    return signal > 0.8


def coded(frame: pd.DataFrame, columns: dict[str, tuple[Any, ...]]) -> FloatArray:
    """(N, F): level codes in the columns whose levels are given."""
    arrays = [
        frame[name].map({level: code for code, level in enumerate(columns[name])})
        if name in columns
        else frame[name]
        for name in frame.columns
    ]
    return np.column_stack([array.astype(float).to_numpy() for array in arrays])
