"""Tables are compiled once, at registration; a load that cannot use them compiles again."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from structlog.testing import capture_logs

from explainers.tree import stored
from service.registry import Registry
from service.registry.layout import TABLES
from service.registry.registered import RegisteredModel

Fitted = tuple[Any, pd.DataFrame, pd.Series]


def folder_of(registry: Registry, version: int = 1) -> Path:
    return registry.layout.folder("small", version)


def loaded(registry: Registry) -> tuple[RegisteredModel, list[Any]]:
    """The model, and what was logged meanwhile."""
    with capture_logs() as logs:
        return registry.load("small", 1), logs


def values_of(model: RegisteredModel) -> bytes:
    assert model.explainer is not None
    return model.explainer.explain(model.background.rows).values.tobytes()


def refuse_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any build from now on fails."""
    monkeypatch.delattr("explainers.tree.tables.compile_tables")


def test_a_version_is_loaded_without_compiling(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = registry.load("small", 1)
    assert compiled.explainer is not None
    assert compiled.explainer.stored_tables() == (folder_of(registry) / TABLES).read_bytes()
    refuse_to_compile(monkeypatch)
    model, logs = loaded(registry)
    assert logs == []
    assert values_of(model) == values_of(compiled)
    (folder_of(registry) / TABLES).unlink()
    forget_tables(folder_of(registry))
    with pytest.raises(ImportError, match="compile_tables"):
        registry.load("small", 1)


def test_tables_of_another_format_are_compiled_again_and_logged(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = registry.load("small", 1)
    monkeypatch.setattr(stored, "FORMAT", stored.FORMAT + 1)
    model, logs = loaded(registry)
    assert values_of(model) == values_of(before)
    assert model.digest == before.digest
    assert logs == [
        {
            "event": "tables_rebuilt",
            "log_level": "info",
            "model": "small",
            "version": 1,
            "reason": "the stored tables are not of format 2",
        }
    ]


def forget_tables(folder: Path) -> None:
    """The manifest as releases wrote it that stored no tables."""
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    del manifest["files"][TABLES]
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))


def test_versions_registered_without_tables_are_compiled_at_every_load(registry: Registry) -> None:
    before = registry.load("small", 1)
    (folder_of(registry) / TABLES).unlink()
    forget_tables(folder_of(registry))
    model, logs = loaded(registry)
    assert logs == []
    assert model.engine == "table"
    assert values_of(model) == values_of(before)


def test_tables_of_another_version_are_compiled_again(registry: Registry, small: Fitted) -> None:
    from xgboost import XGBClassifier

    _, X, y = small
    other = XGBClassifier(n_estimators=6, max_depth=2, n_jobs=1).fit(X, y)
    version = registry.register("small", other, X, y).model.version
    data = (folder_of(registry, version) / TABLES).read_bytes()
    before = registry.load("small", 1)
    (folder_of(registry) / TABLES).write_bytes(data)
    manifest = orjson.loads((folder_of(registry) / "manifest.json").read_bytes())
    source = orjson.loads((folder_of(registry, version) / "manifest.json").read_bytes())
    manifest["files"][TABLES] = source["files"][TABLES]
    (folder_of(registry) / "manifest.json").write_bytes(orjson.dumps(manifest))
    model, logs = loaded(registry)
    assert [entry["reason"] for entry in logs] == [
        "the stored tables are of other trees or another background"
    ]
    assert values_of(model) == values_of(before)


def test_nothing_is_stored_for_a_model_without_tables(tmp_path: Path, small: Fitted) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    _, X, y = small
    registry = Registry(tmp_path / "registry")
    for final in (
        LogisticRegression(max_iter=5000),
        MLPClassifier((8,), max_iter=2000, random_state=0),
    ):
        registry.register("small", final.fit(X / np.max(X), y), X / np.max(X), y)
    for version in (1, 2):
        assert registry.load("small", version).version == version
        assert not (folder_of(registry, version) / TABLES).exists()
