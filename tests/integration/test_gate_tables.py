"""The gate on real tables: retrained models pass, swaps, leaks and other backgrounds do not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tables import instances_of, larger_table

from service.gate import Bounds, Depth, Gate, GateReport, InstanceRows
from service.registry import RegisteredModel, Registry
from service.registry.work import Options

SEEDS = 2
TABLES: Mapping[str, tuple[str, tuple[str, str], str]] = {
    "german_credit": ("risk", ("credit_amount", "age"), "duration_months"),
    "adult_income": ("income", ("age", "hours_per_week"), "hours_per_week"),
    "bike_sharing": ("count", ("hour", "temperature"), "windspeed"),
}
"""Target, a pair of columns that could be taken for each other, and where the leak is put."""

FAMILIES = ("xgboost", "lightgbm", "sklearn")
ROWS = 4000


def fit(family: str, X: pd.DataFrame, y: pd.Series, seed: int) -> Any:
    is_number = y.nunique() > 2
    if family == "xgboost":
        from xgboost import XGBClassifier, XGBRegressor

        kind = XGBRegressor if is_number else XGBClassifier
        sampled = {"subsample": 0.8, "colsample_bytree": 0.8}
        shape = {"n_estimators": 60, "max_depth": 3, "enable_categorical": True}
        return kind(**shape, **sampled, random_state=seed, n_jobs=1).fit(X, y)
    if family == "lightgbm":
        from lightgbm import LGBMClassifier, LGBMRegressor

        kind = LGBMRegressor if is_number else LGBMClassifier
        sampled = {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8}
        shape = {"n_estimators": 60, "num_leaves": 8, "verbose": -1}
        return kind(**shape, **sampled, random_state=seed, n_jobs=1).fit(X, y)
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = list(X.select_dtypes(exclude="number").columns)
    numbers = [name for name in X if name not in texts]
    columns = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), texts)
    )
    grown = GradientBoostingRegressor if is_number else GradientBoostingClassifier
    return make_pipeline(columns, grown(n_estimators=40, subsample=0.8, random_state=seed)).fit(
        X, y
    )


class Bench:
    """One table and family: registers versions and compares them with the first."""

    def __init__(self, folder: Path, table: str, family: str) -> None:
        target, self.pair, self.leaking = TABLES[table]
        frame = larger_table(table).sample(frac=1, random_state=0).iloc[:ROWS]
        frame = frame.reset_index(drop=True)
        self.X, self.y = frame.drop(columns=target), frame[target]
        if not pd.api.types.is_numeric_dtype(self.y):
            self.y = (self.y == min(self.y.unique())).astype(int)
        numbers = list(self.X.select_dtypes("number").columns)
        self.X[numbers] = self.X[numbers].astype(float)
        texts = [name for name in self.X if name not in numbers]
        kind = "category" if family != "sklearn" else object
        self.X = self.X.astype(dict.fromkeys(texts, kind))
        self.family, self.registry = family, Registry(folder)
        self.first = self.register(self.X, self.y, 0)

    def register(
        self, X: pd.DataFrame, y: pd.Series, seed: int, *, background_seed: int = 0
    ) -> RegisteredModel:
        options = Options(background_rows=60, seed=background_seed)
        model = fit(self.family, X, y, seed)
        return self.registry.register("m", model, self.X, self.y, options=options).model

    def compare(self, new: RegisteredModel) -> GateReport:
        rows = InstanceRows("the table", instances_of(self.X.iloc[:1000]))
        gate = Gate(bounds=Bounds(), depth=Depth(explained_rows=300))
        return gate.compare(self.first, new, rows)

    def blocked(self, new: RegisteredModel) -> set[str]:
        return {finding.check for finding in self.compare(new).blocks}


@pytest.fixture(
    scope="module",
    params=[(table, family) for table in TABLES for family in FAMILIES],
    ids="-".join,
)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), *request.param)


pytestmark = [pytest.mark.extra_data, pytest.mark.drill]


def test_models_trained_again_pass(bench: Bench) -> None:
    for seed in range(1, SEEDS + 1):
        assert bench.blocked(bench.register(bench.X, bench.y, seed)) == set(), seed
        drawn = np.random.default_rng(seed).integers(len(bench.X), size=len(bench.X))
        again = bench.register(bench.X.iloc[drawn], bench.y.iloc[drawn], seed)
        assert bench.blocked(again) == set(), seed


def test_swapped_columns_are_blocked(bench: Bench) -> None:
    a, b = bench.pair
    swapped = bench.X.rename(columns={a: b, b: a})[list(bench.X)]
    assert "swapped_columns" in bench.blocked(bench.register(swapped, bench.y, 1))


def test_a_leaked_label_is_blocked_by_its_columns_share(bench: Bench) -> None:
    column = bench.X[bench.leaking]
    told = (bench.y - bench.y.mean()) / bench.y.std()
    noise = np.random.default_rng(1).normal(0, 0.2, len(bench.y))
    leaked = bench.X.assign(**{bench.leaking: column.mean() + column.std() * (told + noise)})
    report = bench.compare(bench.register(leaked, bench.y, 1))
    (shift,) = (finding for finding in report.blocks if finding.check == "share_shift")
    assert shift.at == bench.leaking


def test_another_background_is_blocked(bench: Bench) -> None:
    again = bench.register(bench.X, bench.y, 0, background_seed=9)
    assert "background" in bench.blocked(again)
