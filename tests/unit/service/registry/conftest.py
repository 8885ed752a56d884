"""A small registered model, and a table that has every kind of column."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import breast_cancer, mixed

from service.registry import Registry


@pytest.fixture(scope="session")
def small() -> tuple[object, pd.DataFrame, pd.Series]:
    """XGBoost over four numeric columns with its table."""
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    X = X.iloc[:200, :4].rename(columns=lambda name: name.replace(" ", "_"))
    model = XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(X, y[:200])
    return model, X, y[:200]


@pytest.fixture(scope="session")
def made_once(
    small: tuple[object, pd.DataFrame, pd.Series], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    registry = Registry(tmp_path_factory.mktemp("made") / "registry")
    for _ in range(3):
        registry.register("small", *small)
    return Path(registry.path)


@pytest.fixture
def registry(made_once: Path, tmp_path: Path) -> Registry:
    """`small` in versions 1 (serving), 2 and 3."""
    shutil.copytree(made_once, tmp_path / "registry")
    return Registry(tmp_path / "registry")


@pytest.fixture(scope="session")
def forms() -> tuple[object, pd.DataFrame, pd.Series]:
    """LightGBM over boolean, integer, number and category columns, some with gaps."""
    from lightgbm import LGBMClassifier

    X, y = mixed()
    X = X.assign(smoker=np.arange(len(X)) % 3 == 0).drop(columns=["perimeter", "compactness"])
    model = LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1)
    prepared = X.astype({"site": "category", "grade": "category"})
    return model.fit(prepared, y), X, y
