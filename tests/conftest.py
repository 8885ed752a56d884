"""Fixtures every level shares: compiled kernels cached once, a registry made once a session."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import drop_database, new_database, running_postgres
from small_versions import without_drill
from tables import breast_cancer, mixed

from service.collecting import look_rarely
from service.compiling import choose_kernel_cache

look_rarely()
os.environ.setdefault("EXPLAIND_QUALITY_SHARE", "0")  # else one request in 100 has a job more
os.environ.setdefault("EXPLAIND_JOB_NICENESS", "0")  # else jobs wait for all tests beside them
choose_kernel_cache(Path(tempfile.gettempdir()) / "explaind-tests")

LONGEST_FIRST = (
    "e2e/test_evidence_faults.py",
    "e2e/test_killed_workers.py",
    "e2e/test_prometheus_faults.py",
    "e2e/test_heavy_faults.py",
    "integration/test_engine_under_load.py",
    "integration/test_queued_acceptance.py",
    "integration/test_acceptance.py",
    "integration/test_replay.py",
    "e2e/test_start.py",
    "integration/test_fuzz.py",
    "e2e/test_worker.py",
    "e2e/test_serve.py",
    "integration/test_best_effort.py",
    "unit/monitoring/test_promtool.py",
    "e2e/test_rolling_update.py",
    "e2e/test_bulk.py",
    "e2e/test_moved_clock.py",
    "e2e/test_image.py",
    "e2e/test_prometheus.py",
    "e2e/test_load_drill.py",
    "e2e/test_promotion.py",
    "unit/explainers/sampled/test_coverage.py",
    "e2e/test_queued_explanations.py",
    "e2e/test_kill.py",
    "e2e/test_full_disk.py",
    "integration/test_access.py",
    "unit/explainers/sampled/test_called_explainers.py",
)
"""Files that take half a minute or more with their drills: those with few tests would begin last,
and the other processes have nothing left to do by then.
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files are shared out among processes: long ones first, then those of many tests."""
    if lacking := without_drill(items):
        raise pytest.UsageError(f"small versions of no drill: {lacking}")
    if not hasattr(config, "workerinput"):
        return
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST_FIRST)}
    if absent := [str(path) for path in places if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST_FIRST names files that are not there: {absent}")
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path, len(places)), -tests[item.path]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """For scripts/test: the names of what failed, one a line."""
    if (path := os.environ.get("EXPLAIND_TEST_FAILURES")) is not None:
        stats = terminalreporter.stats
        reports = [*stats.get("failed", ()), *stats.get("error", ())]
        Path(path).write_text("".join(f"{name}\n" for name in {r.nodeid: 0 for r in reports}))


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    with running_postgres() as directory:
        yield directory


@pytest.fixture
def postgres_url(postgres: Path) -> Iterator[str]:
    """A database that is gone afterwards: each takes 8 MB."""
    url = new_database(postgres)
    yield url
    drop_database(postgres, url)
