"""A native model and its explainer, of every engine and kind of family, as threads share them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from families import FAMILIES

from explainers.base import Background, Engine, Explainer, FloatArray, Naming, RawColumns
from explainers.tree.explainer import TreeEngine
from service.models.base import NativeModel
from service.models.formats import artifact_of_model, load_model
from service.registry.building import ExplainerFactory

BACKGROUND_ROWS = 50

ENGINES: dict[str, tuple[str, TreeEngine, Engine]] = {
    "xgboost": ("cancer_xgboost", "auto", "table"),
    "xgboost-walk": ("cancer_xgboost", "walk", "walk"),
    "lightgbm": ("wine_lightgbm", "auto", "table"),
    "catboost": ("wine_catboost", "auto", "table"),
    "histogram": ("wine_histogram", "auto", "table"),
    "forest-walk": ("wine_forest", "walk", "walk"),
    "logistic": ("logistic", "auto", "closed_form"),
    "boosting-pipeline": ("piped_boosting", "auto", "table"),
    "linear-pipeline": ("piped_linear", "auto", "closed_form"),
}
"""Name to a family, the engine asked for and the engine that must come of it."""


@dataclass(frozen=True)
class Pair:
    """Model, explainer, and rows to ask about."""

    native: NativeModel
    explainer: Explainer
    rows: FloatArray

    def answer(self, X: FloatArray) -> bytes:
        """Every number of prediction and explanation."""
        served, explanation = self.native.predict(X), self.explainer.explain(X)
        arrays = served.outputs, served.scores, explanation.values, explanation.base_values
        return b"".join(array.tobytes() for array in arrays)


def pair(name: str) -> Pair:
    from threadpoolctl import threadpool_limits

    family_name, engine, expected = ENGINES[name]
    with threadpool_limits(1):  # OpenMP's threads wait for each other for seconds on busy cores
        family = FAMILIES[family_name]()
    native = load_model(artifact_of_model(family.model), names=tuple(family.X.columns))
    rows = raw_rows(family.X, native.columns.raw)
    outputs = native.predict(rows[:1]).outputs.shape[1]
    naming = Naming(native.columns.raw.names, tuple(map(str, range(outputs))), native.output_space)
    background = Background.of(rows[:BACKGROUND_ROWS])
    explainer = ExplainerFactory.for_model(native, naming).build(background, engine=engine)
    assert explainer.engine == expected
    return Pair(native, explainer, rows)


def raw_rows(frame: pd.DataFrame, columns: RawColumns) -> FloatArray:
    """(N, F): level codes where a column has levels."""
    made = [
        frame[name] if levels is None else frame[name].map({v: i for i, v in enumerate(levels)})
        for name, levels in zip(columns.names, columns.levels, strict=True)
    ]
    return np.column_stack(made).astype(np.float64)
