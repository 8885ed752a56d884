"""A fitted model of every supported family, with its table and its library's own predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from exports import Exported
from tables import breast_cancer, diabetes, larger_table, mixed, wine

UNSEEN = "never seen"

Outputs = Callable[[pd.DataFrame], Any]


@dataclass(frozen=True)
class Family:
    """A model fitted on `prepare(X)`, and y as it is registered with."""

    model: Any
    X: pd.DataFrame
    y: pd.Series
    options: Mapping[str, Any] = field(default_factory=dict)
    is_classifier: bool = True
    one_by_one: bool = False
    """The library's last bits depend on the rows of a batch."""
    library: Any = None
    """What predicts where `model` itself has no methods."""

    def prepare(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows as the application knows them to what the library was fitted on."""
        made = {}
        for name, trained in self.X.items():
            cells = frame[name]
            if pd.api.types.is_numeric_dtype(trained):
                made[name] = cells.astype(np.float64)
            elif reads_categories(self.model):
                known = trained.astype("category").cat.categories
                made[name] = cells.where(cells.isin(known)).astype(pd.CategoricalDtype(known))
            else:
                made[name] = cells.astype(object).where(cells.notna(), np.nan)
        return pd.DataFrame(made)

    def predictions(self, frame: pd.DataFrame) -> np.ndarray:
        """(N, K) from the fitted model's public methods, a row at a time where it matters."""
        model, rows = self.library or self.model, self.prepare(frame)
        if not self.one_by_one:
            return self._scores(model, rows)
        if hasattr(model, "steps"):
            transformed = model[:-1].transform(rows)
            return np.vstack(
                [self._scores(model[-1], transformed[i : i + 1]) for i in range(len(rows))]
            )
        return np.vstack([self._scores(model, rows.iloc[[i]]) for i in range(len(rows))])

    def _scores(self, model: Any, rows: Any) -> np.ndarray:
        scores = model.predict_proba(rows) if self.is_classifier else model.predict(rows)
        return np.asarray(scores, dtype=np.float64).reshape(rows.shape[0], -1)


def reads_categories(model: Any) -> bool:
    return type(model).__module__.startswith(("xgboost", "lightgbm", "sklearn.ensemble._hist"))


def outputs_of_artifact(folder: Path) -> Callable[[pd.DataFrame], np.ndarray]:
    """Prepared rows to (N, C) outputs, by the library itself from the stored artifact."""
    file = next(folder.glob("model.*"))
    outputs = ARTIFACTS[file.suffix](file)
    return lambda rows: np.asarray(outputs(rows), dtype=np.float64).reshape(len(rows), -1)


def _xgboost_outputs(file: Path) -> Outputs:
    from xgboost import Booster, DMatrix

    booster = Booster(model_file=file)
    booster.set_param({"nthread": 1})
    return lambda rows: booster.predict(DMatrix(rows, enable_categorical=True), output_margin=True)


def _lightgbm_outputs(file: Path) -> Outputs:
    from lightgbm import Booster

    booster = Booster(model_file=file)
    return lambda rows: booster.predict(rows, raw_score=True, num_threads=1)


def _catboost_outputs(file: Path) -> Outputs:
    from catboost import CatBoost

    model = CatBoost().load_model(str(file))
    return lambda rows: model.predict(rows, prediction_type="RawFormulaVal", thread_count=1)


def _sklearn_outputs(file: Path) -> Outputs:
    from skops.io import get_untrusted_types, load

    model = load(file, trusted=get_untrusted_types(file=file))
    if not hasattr(model, "classes_"):
        return model.predict
    if hasattr(model, "decision_function"):
        return model.decision_function

    def outputs(rows: pd.DataFrame) -> np.ndarray:
        return _explained(model.predict_proba(rows))

    return outputs


def _onnx_outputs(file: Path) -> Outputs:
    exported = Exported(file.read_bytes())
    return lambda rows: _explained(exported.predict_proba(rows))


def _explained(shares: np.ndarray) -> np.ndarray:
    return shares[:, 1:] if shares.shape[1] == 2 else shares


ARTIFACTS: Mapping[str, Callable[[Path], Outputs]] = {
    ".ubj": _xgboost_outputs,
    ".txt": _lightgbm_outputs,
    ".cbm": _catboost_outputs,
    ".onnx": _onnx_outputs,
    ".skops": _sklearn_outputs,
}


def preprocessing(X: pd.DataFrame) -> Any:
    """Impute and scale numbers, one-hot encode text, ordinal codes for `grade`."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numbers = list(X.select_dtypes("number").columns)
    texts = [name for name in X if name not in numbers and name != "grade"]
    steps = [
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), texts),
    ]
    if "grade" in X:
        steps.append((OrdinalEncoder(), ["grade"]))
    return make_column_transformer(*steps)


def fitted(model: Any, X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    labels = facts.pop("labels", y)
    family = Family(model, X, labels, **facts)
    model.fit(family.prepare(X), y)
    return family


def piped(final: Any, X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    from sklearn.pipeline import make_pipeline

    return fitted(make_pipeline(preprocessing(X), final), X, y, **facts)


def _xgboost(X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    from xgboost import XGBClassifier, XGBRegressor

    kind = XGBClassifier if facts.get("is_classifier", True) else XGBRegressor
    model = kind(n_estimators=30, max_depth=4, n_jobs=1, enable_categorical=True)
    return fitted(model, X, y, **facts)


def _lightgbm(X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(
        n_estimators=20, num_leaves=15, min_child_samples=10, n_jobs=1, verbose=-1
    )
    return fitted(model, X, y, **facts)


def catboost(X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostClassifier if facts.get("is_classifier", True) else CatBoostRegressor
    options = {"iterations": 20, "depth": 4, "thread_count": 1, "allow_writing_files": False}
    model = kind(verbose=False, random_seed=0, **options, **facts.pop("grown", {}))
    return fitted(model, X, y, **facts)


def narrow(table: tuple[pd.DataFrame, pd.Series]) -> tuple[pd.DataFrame, pd.Series]:
    return table[0].iloc[:, :8], table[1]


def _wine_xgboost() -> Family:
    return _xgboost(*narrow(wine()))


def _wine_lightgbm() -> Family:
    X, y = narrow(wine())
    return _lightgbm(X, y.map({0: "first", 1: "second", 2: "third"}))


def _forest(table: tuple[pd.DataFrame, pd.Series]) -> Family:
    from sklearn.ensemble import RandomForestClassifier

    return fitted(RandomForestClassifier(15, max_depth=6, random_state=0), *table)


def _logistic() -> Family:
    from sklearn.linear_model import LogisticRegression

    X, y = narrow(breast_cancer())
    return fitted(LogisticRegression(max_iter=5000), X, y, one_by_one=True)


def _linear() -> Family:
    from sklearn.linear_model import LinearRegression

    X, y = narrow(diabetes())
    return fitted(LinearRegression(), X, y, is_classifier=False, one_by_one=True)


def _piped_logistic() -> Family:
    from sklearn.linear_model import LogisticRegression

    return piped(LogisticRegression(max_iter=5000), *mixed(), one_by_one=True)


def _piped_linear() -> Family:
    from sklearn.linear_model import Ridge

    return piped(Ridge(), *mixed("regression"), is_classifier=False, one_by_one=True)


def _piped_boosting() -> Family:
    from sklearn.ensemble import GradientBoostingClassifier

    return piped(GradientBoostingClassifier(n_estimators=20, random_state=0), *mixed())


def _histogram(X: pd.DataFrame, y: pd.Series, **facts: Any) -> Family:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    is_classifier = facts.get("is_classifier", True)
    kind = HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
    return fitted(kind(max_iter=20, max_leaf_nodes=15, random_state=0), X, y, **facts)


def _wine_histogram() -> Family:
    X, y = narrow(wine())
    return _histogram(X, y.map({0: "first", 1: "second", 2: "third"}))


def _piped_histogram() -> Family:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return piped(HistGradientBoostingClassifier(max_iter=20, random_state=0), *mixed())


def _wine_catboost() -> Family:
    X, y = narrow(wine())
    return catboost(X, y.map({0: "first", 1: "second", 2: "third"}))


def _gappy_catboost() -> Family:
    X, y = mixed("regression")
    return catboost(X.drop(columns=["site", "grade"]), y, is_classifier=False)


def german() -> tuple[pd.DataFrame, pd.Series]:
    table = larger_table("german_credit")
    return table.drop(columns="risk"), table["risk"]


def _german_xgboost() -> Family:
    X, y = german()
    options = {"classes": ("good", "bad")}
    return _xgboost(X, (y == "bad").astype(int), labels=y, options=options)


def _german_forest() -> Family:
    from sklearn.ensemble import RandomForestClassifier

    return piped(RandomForestClassifier(20, max_depth=7, random_state=0), *german())


def _adult_lightgbm() -> Family:
    table = larger_table("adult_income")
    return _lightgbm(table.drop(columns="income"), table["income"])


def _bike_xgboost() -> Family:
    table = larger_table("bike_sharing")
    return _xgboost(table.drop(columns="count"), table["count"], is_classifier=False)


FAMILIES: Mapping[str, Callable[[], Family]] = {
    "wine_xgboost": _wine_xgboost,
    "wine_lightgbm": _wine_lightgbm,
    "wine_forest": lambda: _forest(narrow(wine())),
    "cancer_forest": lambda: _forest(breast_cancer()),
    "cancer_xgboost": lambda: _xgboost(*breast_cancer()),
    "logistic": _logistic,
    "linear": _linear,
    "piped_logistic": _piped_logistic,
    "piped_linear": _piped_linear,
    "piped_boosting": _piped_boosting,
    "mixed_xgboost": lambda: _xgboost(*mixed()),
    "mixed_lightgbm": lambda: _lightgbm(*mixed()),
    "wine_histogram": _wine_histogram,
    "mixed_histogram": lambda: _histogram(*mixed()),
    "mixed_histogram_regression": lambda: _histogram(*mixed("regression"), is_classifier=False),
    "piped_histogram": _piped_histogram,
    "wine_catboost": _wine_catboost,
    "cancer_catboost": lambda: catboost(*breast_cancer(), grown={"grow_policy": "Lossguide"}),
    "gappy_catboost": _gappy_catboost,
}
LARGER: Mapping[str, Callable[[], Family]] = {
    "german_xgboost": _german_xgboost,
    "german_forest": _german_forest,
    "adult_lightgbm": _adult_lightgbm,
    "bike_xgboost": _bike_xgboost,
}
