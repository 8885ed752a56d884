"""Versions of one model as a gate meets them: trained again, or with what it must not let by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from service.registry import Registry
from service.registry.work import Options

ROWS = 900
Fit = Callable[[pd.DataFrame, pd.Series, int], Any]


def loans(rows: int = ROWS, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Numbers of like ranges, a category, and a label that follows from them with noise."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "income": rng.normal(0, 1, rows),
            "debt": rng.normal(0, 1, rows),
            "savings": rng.normal(0, 1, rows),
            "tenure": rng.normal(0, 1, rows),
            "visits": rng.integers(0, 6, rows),
            "region": rng.choice(["north", "south", "west"], rows),
        }
    )
    signal = 1.4 * X["income"] - 1.0 * X["debt"] + 0.5 * X["savings"] * (X["region"] == "west")
    y = (signal + rng.logistic(0, 0.5, rows) > 0).astype(int)
    return X, y.map({0: "bad", 1: "good"})


def pipeline(X: pd.DataFrame, y: pd.Series, seed: int) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = [name for name in X if not pd.api.types.is_numeric_dtype(X[name])]
    numbers = [name for name in X if name not in texts]
    columns = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), texts)
    )
    trees = GradientBoostingClassifier(
        n_estimators=30, max_depth=3, subsample=0.8, random_state=seed
    )
    return make_pipeline(columns, trees).fit(X, y)


@dataclass(frozen=True)
class Gated:
    """A registry of `loans` with its versions by name, and the rows in a CSV file."""

    folder: Path
    versions: Mapping[str, int]
    X: pd.DataFrame
    y: pd.Series

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / "registry")

    @property
    def rows(self) -> Path:
        return self.folder / "rows.csv"


def gated_versions(folder: Path) -> Gated:
    """Every version on the same table; `first` serves."""
    X, y = loans()
    registry = Registry(folder / "registry")
    X.assign(outcome=y).to_csv(folder / "rows.csv", index=False)
    drawn = np.random.default_rng(1).integers(len(X), size=len(X))
    leaked = X.assign(tenure=(y == "good") * 2.0 + np.random.default_rng(2).normal(0, 0.2, len(X)))
    swapped = X.rename(columns={"income": "savings", "savings": "income"})[list(X)]
    made = {
        "first": (pipeline(X, y, 0), 0),
        "seed": (pipeline(X, y, 1), 0),
        "bootstrap": (pipeline(X.iloc[drawn], y.iloc[drawn], 2), 0),
        "swapped": (pipeline(swapped, y, 1), 0),
        "leak": (pipeline(leaked, y, 1), 0),
        "background": (pipeline(X, y, 1), 7),
    }
    versions = {
        name: registry.register(
            "loans", model, X, y, options=Options(background_rows=40, seed=seed)
        ).model.version
        for name, (model, seed) in made.items()
    }
    wider = X.assign(score=np.where(y == "good", 1.0, -1.0))
    added = registry.register("loans", pipeline(wider, y, 1), wider, y)
    return Gated(folder, {**versions, "added": added.model.version}, X, y)
