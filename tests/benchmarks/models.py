"""The models and rows the benchmarks share: 30 numeric columns, seeded."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMNS = tuple(f"c{i:02}" for i in range(30))
TRAINING_ROWS = 5000


def table(rows: int = TRAINING_ROWS) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    from sklearn.datasets import make_classification

    X, y = make_classification(
        n_samples=rows,
        n_features=len(COLUMNS),
        n_informative=15,
        n_redundant=5,
        flip_y=0.05,
        random_state=0,
    )
    return pd.DataFrame(X.round(4), columns=list(COLUMNS)), y


def xgboost_model(X: pd.DataFrame, y: NDArray[np.int64]) -> Any:
    """100 trees, every one of them of depth 6."""
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=100, max_depth=6, learning_rate=0.1, n_jobs=1).fit(X, y)
    for tree in model.get_booster().get_dump():
        depth = max(line.count("\t") for line in tree.splitlines())
        assert depth == 6, f"a tree has depth {depth}, the benchmark promises 6"
    return model
