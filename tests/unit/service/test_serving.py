"""A running service follows its registry and never serves less than it did."""

import shutil
from pathlib import Path

import pytest

from service.errors import NotFoundError
from service.metrics import Metrics
from service.registry import Registry
from service.serving import ServedModels


@pytest.fixture
def registry(data_dir: Path) -> Path:
    return data_dir / "registry"


def models_of(registry: Path, default: str | None = None) -> ServedModels:
    models = ServedModels(Registry(registry), Metrics(), default=default, retention_days=1)
    models.refresh()
    return models


def add_version(registry: Path, version: int) -> Path:
    """A copy of version 1; its manifest says so, and it is refused."""
    return Path(
        shutil.copytree(registry / "breast_cancer" / "1", registry / "breast_cancer" / str(version))
    )


def test_the_only_model_is_the_default(registry: Path) -> None:
    assert models_of(registry).resolve(None).model.name == "breast_cancer"


def test_two_models_need_a_default(registry: Path) -> None:
    models = models_of(registry)
    models._served = {**models.all, "other": models.all["breast_cancer"]}
    with pytest.raises(NotFoundError, match="EXPLAIND_MODEL"):
        models.resolve(None)
    assert models_of(registry, default="breast_cancer").resolve(None)


def test_an_empty_registry_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="explaind register"):
        models_of(tmp_path / "none").resolve(None)


@pytest.mark.parametrize("pointer", ["2\n", "9\n", "garbage", "\xff"])
def test_a_version_that_cannot_be_loaded_leaves_the_old_one(registry: Path, pointer: str) -> None:
    models = models_of(registry)
    add_version(registry, 2)
    serving = registry / "breast_cancer" / "serving"
    serving.write_bytes(pointer.encode("latin-1"))
    models.refresh()
    assert models.resolve(None).model.version == 1
    assert list(models.refused) == ["breast_cancer"]
    serving.write_text("1\n")
    models.refresh()
    assert not models.refused


def test_a_start_beside_an_unreadable_name_serves_the_others(registry: Path) -> None:
    (registry / "odd").mkdir()
    (registry / "odd" / "serving").write_text("?")
    models = models_of(registry)
    assert list(models.all) == ["breast_cancer"]
    assert list(models.refused) == ["odd"]


def test_a_name_that_is_gone_is_no_longer_served(registry: Path) -> None:
    models = models_of(registry)
    shutil.rmtree(registry / "breast_cancer")
    models.refresh()
    assert not models.all


def test_a_repaired_version_is_tried_again_after_a_while(registry: Path) -> None:
    models = models_of(registry)
    folder = add_version(registry, 2)
    (registry / "breast_cancer" / "serving").write_text("2\n")
    models.refresh()
    assert models.refused == {"breast_cancer": 2}
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    models.refresh()
    assert models.resolve(None).model.version == 1
    models._retry_at["breast_cancer"] = 0.0
    models.refresh()
    assert models.resolve(None).model.version == 2
    assert not models.refused


def test_each_refused_name_is_tried_again_by_its_own_clock(registry: Path) -> None:
    models = models_of(registry)
    for name in ("first", "second"):
        (registry / name / "1").mkdir(parents=True)
        (registry / name / "serving").write_text("1\n")
    models.refresh()
    assert models.refused == {"first": 1, "second": 1}
    models._retry_at = dict.fromkeys(models._retry_at, 0.0)
    models.refresh()
    assert min(models._retry_at.values()) > 0
