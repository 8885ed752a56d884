"""An application over a model of each kind that pages show differently, with a record of each."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from servers import Client, Reply
from tables import breast_cancer, instances_of, larger_table, mixed, wine

HTML = "text/html"
SVG = "image/svg+xml"
KINDS = {"numeric": "breast_cancer", "mixed": "mixed", "multiclass": "wine"}
CREDIT = "german_credit"
MODELS = [*KINDS.values(), pytest.param(CREDIT, marks=pytest.mark.extra_data)]
"""The last one has 13 category columns, and is there where EXPLAIND_TEST_DATA is."""


def registry_of_kinds(folder: Path, two_models: Path) -> Path:
    """`breast_cancer`, `mixed`, `wine` (three classes) and perhaps German credit."""
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    path = folder / "registry"
    shutil.copytree(two_models, path)
    X, y = wine()
    model = XGBClassifier(n_estimators=15, max_depth=3, n_jobs=1).fit(X, y)
    Registry(path).register("wine", model, X, y, options=Options())
    if "EXPLAIND_TEST_DATA" in os.environ:
        _register_credit(path)
    return path


def _register_credit(path: Path) -> None:
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    table = larger_table(CREDIT)
    X, y = table.drop(columns="risk"), table["risk"]
    texts = X.select_dtypes(exclude="number").columns
    X = X.astype(dict.fromkeys(texts, "category"))
    model = XGBClassifier(n_estimators=30, max_depth=3, n_jobs=1, enable_categorical=True)
    options = Options(classes=("good", "bad"))
    Registry(path).register(CREDIT, model.fit(X, y == "bad"), X, y, options=options)


def rows_of(model: str, n_rows: int = 1) -> list[dict[str, Any]]:
    """Valid instances, from the middle of the table the model was trained on."""
    if model == CREDIT:
        table = larger_table(CREDIT).drop(columns="risk")
    else:
        table = {"breast_cancer": breast_cancer, "mixed": mixed, "wine": wine}[model]()[0]
    return instances_of(table.iloc[70 : 70 + n_rows])


def explained(client: Client, model: str, n_rows: int = 1) -> str:
    """The path of a new record."""
    reply = client.predict(rows_of(model, n_rows), path=f"/models/{model}/predict")
    assert reply.status == 200, reply.body
    return f"/explanations/{reply.headers['x-request-id']}"


def page_of(client: Client, path: str, accept: str = HTML, **headers: str) -> Reply:
    """What a browser is answered."""
    return client.get(path, Accept=accept, **headers)
