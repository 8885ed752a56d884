"""The engine's methods on real models, beside brute force through the library."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from families import FAMILIES
from mixed_pipelines import (
    BOOSTING,
    FOREST,
    LOGISTIC,
    coded,
    labels,
    mixed_frame,
    preprocessing,
    unusual_rows,
)
from sklearn.pipeline import make_pipeline

from explainers.base import Background, FloatArray, Naming
from explainers.exact import interventional_interactions, interventional_values
from service.models.base import NativeModel
from service.models.formats import artifact_of_model, load_model
from service.registry.building import TOLERANCE, ExplainerFactory

BACKGROUND_ROWS = 20
EXPLAINED_ROWS = 4


def read(model: Any, frame: pd.DataFrame) -> tuple[NativeModel, FloatArray]:
    """The model as it is served, and rows of the frame that are spread over it."""
    native = load_model(artifact_of_model(model), names=tuple(frame.columns))
    rows = coded(frame, native.columns.raw)
    spread = np.linspace(0, len(rows) - 1, BACKGROUND_ROWS + EXPLAINED_ROWS).astype(int)
    return native, rows[np.random.default_rng(0).permutation(spread)]


def family(name: str) -> tuple[NativeModel, FloatArray]:
    made = FAMILIES[name]()
    return read(made.model, made.X)


def pipeline(final: Any) -> tuple[NativeModel, FloatArray]:
    """Imputed with indicators, scaled, one-hot and ordinal columns; some levels are unseen."""
    frame = mixed_frame()
    return read(
        make_pipeline(preprocessing(), final).fit(frame, labels(frame)), unusual_rows(frame)
    )


MODELS: dict[str, Callable[[], tuple[NativeModel, FloatArray]]] = {
    "XGBoost, three classes": lambda: family("wine_xgboost"),
    "LightGBM with categories": lambda: family("mixed_lightgbm"),
    "forest over one-hot columns": lambda: pipeline(FOREST),
    "boosting over one-hot columns": lambda: pipeline(BOOSTING),
    "logistic regression over one-hot columns": lambda: pipeline(LOGISTIC),
}


@pytest.fixture(scope="module", params=MODELS)
def served(request: pytest.FixtureRequest) -> tuple[NativeModel, FloatArray]:
    return MODELS[request.param]()


def factory_of(native: NativeModel, X: FloatArray) -> ExplainerFactory:
    outputs = tuple(map(str, range(native.predict(X[:1]).outputs.shape[1])))
    return ExplainerFactory.for_model(
        native, Naming(native.columns.raw.names, outputs, native.output_space)
    )


def assert_close(found: FloatArray, expected: FloatArray, native: NativeModel) -> None:
    # Tables are float32: the diagonal holds what they leave.
    tolerance = max(TOLERANCE[native.is_float32], 1e-6)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_interactions_are_those_of_brute_force_through_the_library(
    served: tuple[NativeModel, FloatArray],
) -> None:
    native, rows = served
    X, background = rows[:EXPLAINED_ROWS], rows[EXPLAINED_ROWS:]
    explainer = factory_of(native, X).build(Background.of(background))
    for x, found in zip(X, explainer.interactions(X).values, strict=True):
        expected = interventional_interactions(lambda Z: native.predict(Z).outputs, x, background)
        assert_close(found, expected, native)


def test_values_against_another_background_are_those_of_brute_force_through_the_library(
    served: tuple[NativeModel, FloatArray],
) -> None:
    native, rows = served
    X, background = rows[:EXPLAINED_ROWS], rows[-5:]
    explainer = factory_of(native, X).build(Background.of(rows[EXPLAINED_ROWS:-5]))
    found = explainer.against(Background.of(background)).explain(X)
    assert found.background_digest == Background.of(background).digest
    for x, values in zip(X, found.values, strict=True):
        expected = interventional_values(lambda Z: native.predict(Z).outputs, x, background)
        assert_close(values, expected, native)
    base_values = native.predict(background).outputs.mean(axis=0)
    np.testing.assert_allclose(found.base_values[0], base_values, rtol=1e-6)
