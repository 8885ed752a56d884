"""CPU time of the served numbers and of the derived rows, beside the library's own public calls.

    .venv/bin/python tests/benchmarks/native.py [--rows 64] [--repeat 15] [--only forest]

One process on one core; every call gets rows it has not seen. The library is asked for the scores
alone (predict_proba or predict, one thread) on what it was fitted on, an array or a DataFrame; ours
serves scores and outputs from raw rows. Derived rows are compared with the fitted steps' transform.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import machine
import models
import numpy as np
import pandas as pd
from measuring import row_microseconds, use_one_core
from numpy.typing import NDArray

CATEGORIES = {"colour": ("blue", "green", "red"), "site": tuple("abcdefgh")}
MISSING_SHARE = 0.05

Table = pd.DataFrame | NDArray[np.float64]
Call = Callable[[Any], object]


@dataclass(frozen=True)
class Subject:
    """A fitted model, and rows as it was fitted on them."""

    name: str
    model: Any
    rows: Table


def main() -> None:
    options = _options()
    use_one_core()
    print(machine.facts())
    heads = [f"{what}, {rows}" for what in ("predict", "library") for rows in (1, options.rows)]
    print(f"\n{'CPU us of one call, median':<34}", end="")
    print(*(f"{head:>12}" for head in [*heads, "derive, 1", "library, 1"]))
    for subject in _subjects(options.only):
        _print(subject, options)
    print(machine.load())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch")
    parser.add_argument("--repeat", type=int, default=15, help="batches; single rows: 20 times it")
    parser.add_argument("--only", default="", help="part of the names of what to measure")
    return parser.parse_args()


def _subjects(only: str) -> Iterator[Subject]:
    X, y = models.table()
    rng = np.random.default_rng(1)
    mixed = X.mask(rng.random(X.shape) < MISSING_SHARE)
    for name, levels in CATEGORIES.items():
        mixed[name] = rng.choice(levels, len(X))
    labels = y ^ (mixed["colour"] == "red").to_numpy()
    for name, model in _estimators().items():
        if only in name:
            chosen = y + 2 * (X["c00"].to_numpy() > 0) if "classes" in name else y
            rows = np.ascontiguousarray(X)
            yield Subject(name, model.fit(rows, chosen), rows)
    for name, model in _native_categories().items():
        if only in name:
            frame = mixed.astype(dict.fromkeys(CATEGORIES, "category"))
            yield Subject(name, model.fit(frame, labels), frame)
    for name, model in _piped(list(X.columns)).items():
        if only in name:
            yield Subject(name, model.fit(mixed, labels), mixed)


def _estimators() -> dict[str, Any]:
    from catboost import CatBoostClassifier
    from sklearn import ensemble, linear_model, tree

    return {
        "LightGBM": _leaves(),
        "LightGBM, 4 classes": _leaves(),
        "HistGB": ensemble.HistGradientBoostingClassifier(early_stopping=False),
        "HistGB, 4 classes": ensemble.HistGradientBoostingClassifier(early_stopping=False),
        "HistGB, regression": ensemble.HistGradientBoostingRegressor(early_stopping=False),
        "RandomForest": _forest(),
        "RandomForest, 4 classes": _forest(),
        "ExtraTrees": ensemble.ExtraTreesClassifier(100, max_depth=12, random_state=0),
        "GradientBoosting": ensemble.GradientBoostingClassifier(random_state=0),
        "DecisionTree": tree.DecisionTreeClassifier(random_state=0),
        "logistic": linear_model.LogisticRegression(max_iter=1000),
        "logistic, 4 classes": linear_model.LogisticRegression(max_iter=1000),
        "CatBoost": CatBoostClassifier(
            iterations=100, depth=6, verbose=0, thread_count=1, allow_writing_files=False
        ),
    }


def _native_categories() -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        early_stopping=False, categorical_features="from_dtype", random_state=0
    )
    return {"HistGB, native categories": model}


def _piped(numbers: list[str]) -> dict[str, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from xgboost import XGBClassifier

    finals = {
        "HistGB": HistGradientBoostingClassifier(early_stopping=False),
        "RandomForest": _forest(),
        "logistic": LogisticRegression(max_iter=1000),
        "LightGBM": _leaves(),
        "XGBoost": XGBClassifier(n_estimators=100, max_depth=6, n_jobs=1),
    }
    return {
        f"pipeline, {name}": make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
                (
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                    list(CATEGORIES),
                ),
            ),
            final,
        )
        for name, final in finals.items()
    }


def _leaves() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, max_depth=12, random_state=0)


def _print(subject: Subject, options: argparse.Namespace) -> None:
    from service.models.formats import artifact_of_model, load_model

    model = subject.model
    native = load_model(artifact_of_model(model))
    score = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    X = _coded(subject.rows, native.columns.raw.levels)
    served = native.predict(X[:200]).scores
    assert np.allclose(served, np.reshape(score(subject.rows[:200]), served.shape), rtol=1e-6)
    calls: list[tuple[Call, Table, int]] = [
        (call, rows, n_rows)
        for call, rows in ((native.predict, X), (score, subject.rows))
        for n_rows in (1, options.rows)
    ]
    if hasattr(model, "steps"):
        calls += [(native.form().derivation, X, 1), (model[:-1].transform, subject.rows, 1)]
    elif getattr(model, "_preprocessor", None) is not None:
        transform = model._preprocessor.transform
        calls += [(native.form().derivation, X, 1), (transform, subject.rows, 1)]
    print(f"{subject.name:<34}", end="")
    for call, rows, n_rows in calls:
        repeat = options.repeat if n_rows > 1 else 20 * options.repeat
        print(f"{row_microseconds(call, rows, rows=n_rows, repeat=repeat):>13.1f}", end="")
    print(flush=True)


def _coded(rows: Table, levels: Any) -> NDArray[np.float64]:
    if isinstance(rows, np.ndarray):
        return rows
    columns = [
        rows[name].to_numpy()
        if known is None
        else rows[name].map({level: code for code, level in enumerate(known)})
        for name, known in zip(rows, levels, strict=True)
    ]
    return np.column_stack(columns).astype(np.float64)


if __name__ == "__main__":
    main()
