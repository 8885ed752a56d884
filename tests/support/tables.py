"""Tables for tests: scikit-learn's bundled sets, with seeded category, missing and odd columns."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine


def larger_table(name: str) -> pd.DataFrame:
    """One of the tables EXPLAIND_TEST_DATA names (tests using it are marked extra_data)."""
    folder = Path(os.environ["EXPLAIND_TEST_DATA"])
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])


def breast_cancer() -> tuple[pd.DataFrame, pd.Series]:
    data = load_breast_cancer(as_frame=True)
    return data.data, data.target


def wine() -> tuple[pd.DataFrame, pd.Series]:
    data = load_wine(as_frame=True)
    return data.data, data.target


def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    data = load_diabetes(as_frame=True)
    return data.data, data.target


def mixed(task: str = "binary", rows: int = 569) -> tuple[pd.DataFrame, pd.Series]:
    """Breast-cancer rows with two text categories, an integer column and missing cells."""
    X, y = breast_cancer()
    X, y = X.iloc[:rows, :6].copy(), y.iloc[:rows]
    X.columns = ["radius", "texture", "perimeter", "area", "smoothness", "compactness"]
    rng = np.random.default_rng(7)
    X["site"] = np.where(
        X["area"] > 600, "left", np.where(rng.random(len(X)) < 0.5, "right", "both")
    )
    X["grade"] = rng.choice(["low", "middle", "high", "NA"], size=len(X))
    X["visits"] = rng.integers(0, 9, size=len(X))
    X.loc[rng.random(len(X)) < 0.1, "texture"] = np.nan
    X.loc[rng.random(len(X)) < 0.1, "site"] = np.nan
    X["site"], X["grade"] = X["site"].astype(object), X["grade"].astype(object)
    if task == "regression":
        return X.drop(columns="area"), X["area"]
    return X, y


def instances_of(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as JSON instances, missing as null."""
    return [
        {
            name: None if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for name, value in row.items()
        }
        for row in frame.astype(object).to_dict("records")
    ]
