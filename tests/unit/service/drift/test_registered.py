"""Baselines of registered versions: what registration freezes, and what older ones lack."""

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tables import breast_cancer, mixed

from service.drift.baseline import BEFORE_ATTRIBUTIONS, Baseline
from service.drift.tallying import Tallies
from service.errors import InvalidInputError
from service.metrics import Metrics
from service.registry import Registry
from service.registry.baseline import NO_INLINE
from service.registry.errors import DamagedVersionError
from service.registry.layout import sha256_of
from service.registry.work import Options
from service.serving import ServedModels


@pytest.fixture(scope="module")
def small_model() -> tuple[Any, ...]:
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    X = X.iloc[:200, :4].rename(columns=lambda name: name.replace(" ", "_"))
    return XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(X, y[:200]), X, y[:200]


@pytest.fixture(scope="module")
def made(small_model: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "registry"
    options = Options(sources={"mean_area": "scanner/2"})
    Registry(path).register("small", *small_model, options=options)
    return path


def test_registration_freezes_inputs_scores_and_attributions(made: Path) -> None:
    baseline = Baseline.read(Registry(made).layout, "small", 1)
    assert baseline.without_attributions is None
    assert baseline.reference[:2].tolist() == [200, 200]
    assert len(baseline.bins.attributed) == 4
    assert baseline.names.sources == ("", "", "", "scanner/2")
    first = baseline.bins.columns[0].ordered(baseline.reference)
    assert first.sum() == 200
    assert first.max() - first.min() <= 3


def test_sources_of_columns_that_are_not_there_are_refused(
    small_model: tuple[Any, ...], tmp_path: Path
) -> None:
    options = Options(sources={"mean_volume": "scanner/2"})
    with pytest.raises(InvalidInputError, match="'mean_volume'"):
        Registry(tmp_path).register("small", *small_model, options=options)


def as_registered_before(made: Path, tmp_path: Path) -> Path:
    """The version as an earlier release wrote it."""
    shutil.copytree(made, tmp_path / "old")
    folder = tmp_path / "old" / "small" / "1"
    document = json.loads((folder / "baseline.json").read_bytes())
    del document["attributions"], document["without_attributions"]
    data = orjson.dumps(document)
    (folder / "baseline.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["baseline.json"] = {"sha256": sha256_of(data), "size": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "old"


def test_an_older_version_is_served_and_compared_without_attributions_and_says_so(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = as_registered_before(made, tmp_path)
    baseline = Baseline.read(Registry(path).layout, "small", 1)
    assert baseline.without_attributions == BEFORE_ATTRIBUTIONS
    assert baseline.bins.attributed == ()
    models = ServedModels(
        Registry(path),
        Metrics(CollectorRegistry()),
        default=None,
        retention_days=1,
        tallies=Tallies(lambda _: None),
    )
    models.refresh()
    tap = models.resolve("small").tap
    assert tap is not None
    assert "attribution_drift_off" in capsys.readouterr().out


def test_a_model_that_is_only_called_has_no_attributions_in_its_baseline(tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsRegressor

    X, y = mixed("regression", rows=120)
    X = X[["radius", "smoothness"]]
    Registry(tmp_path).register("near", KNeighborsRegressor().fit(X, y), X, y)
    baseline = Baseline.read(Registry(tmp_path).layout, "near", 1)
    assert baseline.without_attributions == NO_INLINE
    assert not baseline.bins.attributed


def test_a_changed_baseline_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "damaged")
    file = tmp_path / "damaged" / "small" / "1" / "baseline.json"
    file.write_bytes(file.read_bytes().replace(b'"rows":200', b'"rows":201'))
    with pytest.raises(DamagedVersionError, match="not the file that was registered"):
        Baseline.read(Registry(tmp_path / "damaged").layout, "small", 1)
