"""The application of one test module, and a registry with a second model of mixed columns."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from access_table import PRINCIPALS
from live_app import LiveApp, live_app
from servers import Client
from tables import breast_cancer, instances_of, mixed

from service.auth import SCOPES, KeyFile

Instance = dict[str, Any]


@pytest.fixture(scope="session")
def rows() -> list[Instance]:
    """Valid instances of `breast_cancer`."""
    return instances_of(breast_cancer()[0].iloc[:64])


@pytest.fixture(scope="session")
def mixed_rows() -> list[Instance]:
    """Valid instances of `mixed`: a text category, an integer column, missing cells."""
    return instances_of(mixed()[0].iloc[:64])


@pytest.fixture
def calm(mixed_rows: list[Instance]) -> Instance:
    """An instance that policy lets be explained."""
    return {**mixed_rows[0], "visits": 3}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, two_models: Path) -> Iterator[LiveApp]:
    """The application over both models; `breast_cancer` is the default."""
    data_dir = tmp_path_factory.mktemp("data")
    shutil.copytree(two_models, data_dir / "registry")
    with live_app(data_dir, model="breast_cancer") as live:
        yield live


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """API keys by name, filled by what starts the module's application."""
    return {}


@pytest.fixture
def client_of(live: LiveApp, keys: dict[str, str]) -> Callable[[str], Client]:
    """A client with the key of that name."""
    return lambda name: live.client(keys[name])


@dataclass(frozen=True)
class Keyed:
    """An application that asks for keys."""

    live: LiveApp
    file: Path
    keys: dict[str, str]

    def client(self, name: str | None) -> Client:
        return self.live.client(None if name is None else self.keys[name])


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[Keyed]:
    """`breast_cancer` behind the keys of PRINCIPALS."""
    data_dir = tmp_path_factory.mktemp("keyed")
    file, content, keys = data_dir / "keys.json", KeyFile(), {}
    for name, (scopes, tenant) in PRINCIPALS.items():
        content, keys[name] = content.with_key(name, scopes, tenant)
    content, keys["both"] = content.with_key("both", SCOPES, "default", "elsewhere")
    content, keys["renewed"] = content.rotated("ended", timedelta(0))
    content.without("revoked").write(file)
    with live_app(data_dir, registry=demo_registry, api_keys_file=file) as live:
        yield Keyed(live, file, keys)
