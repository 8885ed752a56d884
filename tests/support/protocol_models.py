"""Three models for the protocols: binary, three classes, a regression with categories and missing
cells.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live_app import LiveApp, live_app
from tables import breast_cancer, instances_of, mixed, wine

TABLES = {
    "breast_cancer": instances_of(breast_cancer()[0]),
    "wine": instances_of(wine()[0]),
    "area": instances_of(mixed("regression")[0]),
}
"""Model to its rows."""


@contextmanager
def three_models(data_dir: Path, demo_registry: Path) -> Iterator[LiveApp]:
    """The application over them; demo_registry holds the first."""
    from xgboost import XGBClassifier, XGBRegressor

    from service.registry import Registry
    from service.registry.work import Options

    shutil.copytree(demo_registry, data_dir / "registry")
    registry, few = Registry(data_dir / "registry"), {"n_estimators": 10, "max_depth": 3}
    X, y = wine()
    registry.register("wine", XGBClassifier(**few, n_jobs=1).fit(X, y), X, y, options=Options())
    X, y = mixed("regression")
    X = X.astype({"site": "category", "grade": "category"})
    model = XGBRegressor(**few, n_jobs=1, enable_categorical=True).fit(X, y)
    registry.register("area", model, X, y, options=Options())
    with live_app(data_dir, model="breast_cancer") as live:
        yield live
