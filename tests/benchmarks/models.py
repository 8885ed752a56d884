"""The models and rows the benchmarks share: numeric columns, seeded."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

N_COLUMNS = 30
TRAINING_ROWS = 5000


def table(
    rows: int = TRAINING_ROWS, *, columns: int = N_COLUMNS
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    from sklearn.datasets import make_classification

    X, y = make_classification(
        n_samples=rows,
        n_features=columns,
        n_informative=columns // 2,
        n_redundant=columns // 6,
        flip_y=0.05,
        random_state=0,
    )
    return pd.DataFrame(X.round(4), columns=[f"c{i:02}" for i in range(columns)]), y


def varied_rows(X: pd.DataFrame, count: int) -> NDArray[np.float64]:
    """As many rows as wanted, each another one: rows of the table, moved a little."""
    rng = np.random.default_rng(1)
    rows = X.to_numpy()[rng.integers(len(X), size=count)]
    return (rows + rng.normal(scale=0.1, size=rows.shape) * rows.std(axis=0)).round(4)


def explainer_factory(model: Any, X: pd.DataFrame) -> Any:
    """What builds explainers of a fitted model of one output."""
    from explainers.base import Naming
    from service.models.formats import artifact_of_model, load_model
    from service.registry.building import ExplainerFactory

    names = tuple(X.columns)
    native = load_model(artifact_of_model(model), names=names)
    return ExplainerFactory.for_model(native, Naming(names, ("1",), native.output_space))


def xgboost_model(
    X: pd.DataFrame, y: NDArray[np.int64], *, trees: int = 100, depth: int = 6, **options: Any
) -> Any:
    """100 trees, every one of them of depth 6, unless told otherwise."""
    from xgboost import XGBClassifier

    options = {"learning_rate": 0.1, "n_jobs": 1, **options}
    model = XGBClassifier(n_estimators=trees, max_depth=depth, **options).fit(X, y)
    if (trees, depth) == (100, 6):
        for tree in model.get_booster().get_dump():
            found = max(line.count("\t") for line in tree.splitlines())
            assert found == depth, f"a tree has depth {found}, the benchmark promises {depth}"
    return model


def lightgbm_model(X: pd.DataFrame, y: NDArray[np.int64]) -> Any:
    """100 trees of 31 leaves."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1).fit(X, y)


def histogram_model(X: pd.DataFrame, y: NDArray[np.int64]) -> Any:
    """100 trees of 31 leaves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=31, early_stopping=False, random_state=0
    )
    return model.fit(X.to_numpy(), y)


def catboost_model(X: pd.DataFrame, y: NDArray[np.int64]) -> Any:
    """100 symmetric trees of depth 6."""
    from catboost import CatBoostClassifier

    options = {"thread_count": 1, "allow_writing_files": False, "verbose": False}
    return CatBoostClassifier(iterations=100, depth=6, random_seed=0, **options).fit(X, y)


def forest_model(X: pd.DataFrame, y: NDArray[np.int64]) -> Any:
    """100 trees of depth 12."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, max_depth=12, random_state=0).fit(X, y)
