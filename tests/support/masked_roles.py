"""Callers with roles that mask columns of `mixed`, and what an explanation must be for them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_app import LiveApp, live_app
from servers import Client, Reply

from service.auth import Caller, KeyFile

Instance = dict[str, Any]
POLICY = """
[default.roles.blind]
mask = ["site", "mean radius"]

[default.roles.trusted]
mask = []

[models.mixed.roles.support]
mask = ["radius", "grade"]

[models.mixed.decision]
name = "refer"
otherwise = "discharge"
class = "0"
at_least = 0.7

[[models.mixed.rules]]
name = "many visits"
when = "visits > 7"
explain = "never"
"""
MASKED = ("radius", "grade")
VISIBLE = ["texture", "perimeter", "area", "smoothness", "compactness", "site", "visits"]
NUMBERS = (
    *("values", "base_values", "outputs", "standard_errors", "additivity_error", "top", "seed"),
    *("model_evaluations", "duration_seconds"),
)
ROLES: dict[str, tuple[str, ...]] = {
    "owner": (),
    "support": ("support",),
    "blind": ("blind",),
    "misspelt": ("suport",),
    "trusted": ("trusted",),
    "twofold": ("support", "blind"),
    "half": ("trusted", "suport"),
}
PATH = "/models/mixed/predict"
CALLER = Caller("ann", "default", frozenset({"audit"}), "api_key")

ClientOf = Callable[[str], Client]


def settings_of(folder: Path, keys: dict[str, str]) -> dict[str, Any]:
    file, content = folder / "keys.json", KeyFile()
    for name, roles in ROLES.items():
        scopes = ("predict", "explain", "audit", "metrics")
        content, keys[name] = content.with_key(name, scopes, roles=roles, explain_per_minute=0)
    content.write(file)
    (folder / "policy.toml").write_text(POLICY)
    return {"api_keys_file": file, "policy_file": folder / "policy.toml"}


@contextmanager
def app_with_roles(folder: Path, registry: Path, keys: dict[str, str]) -> Iterator[LiveApp]:
    """The application over a copy of the registry; keys: filled with a key for each of ROLES."""
    shutil.copytree(registry, folder / "registry")
    with live_app(folder, **settings_of(folder, keys)) as live:
        yield live


def predicted(client: Client, instance: Instance, **headers: str) -> Reply:
    return client.predict([instance], path=PATH, headers=headers)


def assert_masked(explanation: dict[str, Any]) -> None:
    assert explanation["status"] == "complete"
    assert all(explanation[name] is None for name in NUMBERS)
    (entries,) = explanation["visible"]
    assert sorted(entry["feature"] for entry in entries) == sorted(VISIBLE)
    assert [entry["rank"] for entry in entries] == list(range(1, len(VISIBLE) + 1))
    assert {entry["sign"] for entry in entries} <= {-1, 0, 1}
