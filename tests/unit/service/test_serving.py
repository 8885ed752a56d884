"""A running service follows its registry and never serves less than it did."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from counted import total

from service.bulk import Order, explain_table
from service.compute import NotHereError
from service.computing import Computer
from service.errors import NotFoundError
from service.metrics import Metrics
from service.registry import Registry
from service.registry.errors import GoldenMismatchError
from service.serving import ServedModels
from service.settings import Settings
from service.worker.canaries import count_refusal


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


def other_numbers(registry: Path, name: str = "breast_cancer") -> None:
    """A version whose golden values are others, with all digests put right."""
    folder = registry / name / "1"
    golden = json.loads((folder / "golden.json").read_text())
    golden["values"][0][0][0] += 0.01
    (folder / "golden.json").write_text(json.dumps(golden))
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "golden.json").read_bytes()).hexdigest()
    manifest["files"]["golden.json"]["sha256"] = f"sha256:{digest}"
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_version_that_lost_its_golden_values_is_not_served_and_counted(registry: Path) -> None:
    other_numbers(registry)
    metrics = Metrics()
    models = ServedModels(Registry(registry), metrics, default=None, retention_days=1)
    for _ in range(3):
        models.refresh()
    assert not models.all
    labels = ("breast_cancer", "tree_interventional", "golden")
    assert total(metrics.invariant_failures.labels(*labels)) == 1
    assert total(metrics.errors.labels("breast_cancer", "load", "GoldenMismatchError")) == 1


def test_a_damaged_version_is_not_served_and_counted(registry: Path) -> None:
    model = registry / "breast_cancer" / "1" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1])
    models = models_of(registry)
    models.refresh()
    assert not models.all
    errors = models._metrics.errors.labels("breast_cancer", "load", "DamagedVersionError")
    assert total(errors) == 1


def test_a_promoted_version_takes_the_place_of_the_other_in_the_metrics(registry: Path) -> None:
    models = models_of(registry)
    manifest = add_version(registry, 2) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    (registry / "breast_cancer" / "serving").write_text("2\n")
    models.refresh()
    (family,) = models._metrics.model_info.collect()
    assert [sample.labels["version"] for sample in family.samples] == ["2"]


def test_a_process_that_explains_refuses_such_a_version_too(registry: Path) -> None:
    other_numbers(registry)
    computer = Computer(Registry(registry))
    assert computer.prepare()
    with pytest.raises(NotHereError, match="values differ from the golden values") as raised:
        computer._loaded("breast_cancer", 1)
    assert raised.value.kind == "GoldenMismatchError"
    metrics = Metrics().bind("breast_cancer", "tree_interventional")
    count_refusal(metrics, raised.value.kind)
    assert total(metrics.invariant_failures["golden"]) == 1
    with pytest.raises(GoldenMismatchError):
        asyncio.run(bulk_over(registry))


async def bulk_over(registry: Path) -> None:
    settings = Settings.load({}, data_dir=registry.parent)
    order = Order("breast_cancer", registry / "none.csv", registry / "none.parquet")
    await explain_table(settings, order, on_start=lambda _: None, on_progress=lambda _: None)
