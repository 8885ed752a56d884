"""`evaluate`, which estimates call, against `predict`, which answers come from."""

import numpy as np
import pytest
from called_families import CALLED
from families import FAMILIES

from service.models.formats import artifact_of_model, load_model
from service.registry.tables import encode_frame

ROWS = 200


@pytest.mark.parametrize(
    "name",
    [
        "wine_xgboost",
        "mixed_lightgbm",
        "mixed_catboost",
        "wine_forest",
        "piped_boosting",
        "mixed_histogram_regression",
        "piped_logistic",
        "mlp",
        "pca",
    ],
)
def test_evaluate_gives_the_outputs_of_predict(name: str) -> None:
    family = {**FAMILIES, **CALLED}[name]()
    native = load_model(
        artifact_of_model(family.model),
        names=tuple(family.X.columns),
        categories=family.options.get("categories"),
    )
    columns = native.columns
    unknown = dict(zip(columns.raw.names, columns.unknown, strict=True))
    rows = encode_frame(family.X, columns.raw, unknown=unknown)[:ROWS]
    outputs = native.evaluate(rows)
    expected = native.predict(rows).outputs
    assert outputs.dtype == np.float64
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_array_equal(native.evaluate(rows), outputs)
