"""`explaind gate` on what the service decided: read through the access log, nothing withheld."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from live_app import live_app

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def decided(
    tmp_path_factory: pytest.TempPathFactory, demo_registry: Path, rows: list[Instance]
) -> tuple[Path, str]:
    """A data directory with 128 stored decisions, 64 of them in one request in quarantine."""
    folder = tmp_path_factory.mktemp("decided")
    shutil.copytree(demo_registry, folder / "registry")
    with live_app(folder) as live:
        client = live.client()
        client.predict(rows, query="")
        kept = client.predict(rows, query="").headers["x-request-id"]
    return folder, kept


def gate(folder: Path, *options: str) -> Any:
    return explaind(
        "gate", "breast_cancer:1", "breast_cancer:1", "--data-dir", str(folder), *options
    )


def test_the_last_decisions_are_compared_and_that_is_in_the_access_log(
    decided: tuple[Path, str],
) -> None:
    folder, _ = decided
    done = gate(folder, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["verdict"]) == (128, "pass")
    newest = gate(folder, "--json", "--last", "100")
    assert json.loads(newest.stdout)["rows"] == 100
    told = json.loads(explaind("accesses", "--json", "--data-dir", str(folder)).stdout)
    compared = [entry for entry in told if entry["event_type"] == "access/compare"]
    assert {entry["model"] for entry in compared} == {"breast_cancer"}


def test_decisions_of_another_tenant_are_none(decided: tuple[Path, str]) -> None:
    done = gate(decided[0], "--tenant", "elsewhere")
    assert done.returncode == 2
    assert "takes 0 rows" in done.stderr


def test_what_is_in_quarantine_is_not_read(decided: tuple[Path, str], tmp_path: Path) -> None:
    kept, folder = decided[1], tmp_path / "data"
    shutil.copytree(decided[0], folder)
    place = ("--data-dir", str(folder))
    put = explaind("quarantine", "--request-id", kept, "--reason", "case-7", *place)
    assert put.returncode == 0, put.stderr
    done = gate(folder)
    assert done.returncode == 2
    assert "takes 64 rows" in done.stderr
