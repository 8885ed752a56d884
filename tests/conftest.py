"""Fixtures every level shares: compiled kernels cached once, a registry made once a session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import new_database, running_postgres
from tables import breast_cancer, mixed

from service.compiling import choose_kernel_cache

os.environ.setdefault("EXPLAIND_QUALITY_SHARE", "0")  # else one request in 100 has a job more
choose_kernel_cache(Path(tempfile.gettempdir()) / "explaind-tests")


@pytest.fixture(scope="session")
def demo_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with `breast_cancer`: XGBoost over 30 numeric columns. Copy it to change it."""
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    X, y = breast_cancer()
    model = XGBClassifier(n_estimators=40, max_depth=4, learning_rate=0.2, n_jobs=1).fit(X, y)
    path = tmp_path_factory.mktemp("registry")
    names = {0: "malignant", 1: "benign"}
    Registry(path).register(
        "breast_cancer", model, X, y.map(names), options=Options(classes=tuple(names.values()))
    )
    return path


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Path:
    """A registry with `breast_cancer` and `mixed`. Copy it to change it."""
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    path = tmp_path_factory.mktemp("two") / "registry"
    shutil.copytree(demo_registry, path)
    X, y = mixed()
    X = X.astype({"site": "category", "grade": "category"})
    model = XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1, enable_categorical=True)
    Registry(path).register("mixed", model.fit(X, y), X, y, options=Options())
    return path


@pytest.fixture
def data_dir(tmp_path: Path, demo_registry: Path) -> Path:
    """A data directory of its own, serving `breast_cancer`."""
    shutil.copytree(demo_registry, tmp_path / "registry")
    return tmp_path


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    with running_postgres() as directory:
        yield directory


@pytest.fixture
def postgres_url(postgres: Path) -> str:
    return new_database(postgres)
