"""A server that is killed: what it had stored of drift is there once, what it had not is lost."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers import Server, explaind, running_server, wait_until
from tables import breast_cancer, instances_of

from service.drift.baseline import Baseline
from service.drift.windows import summed
from service.evidence import EvidenceStore
from service.registry import Registry

MODEL = "breast_cancer"


def counted(data_dir: Path, baseline: Baseline) -> tuple[int, int]:
    """Rows and explained rows in the windows."""
    now = datetime.now(UTC)
    with EvidenceStore.open(f"sqlite:///{data_dir}/evidence.db") as store:
        tally = summed(store, baseline, now - timedelta(hours=2), now + timedelta(hours=1))
    return int(tally[0]), int(tally[1])


def send(server: Server, rows: list[dict[str, Any]], times: int) -> None:
    for _ in range(times):
        assert server.client().predict(rows).status == 200


@pytest.mark.drill
def test_a_kill_loses_at_most_the_last_interval_and_counts_nothing_twice(
    tmp_path: Path, demo_registry: Path
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    baseline = Baseline.read(Registry(demo_registry).layout, MODEL, 1)
    rows = instances_of(breast_cancer()[0].iloc[:10])
    options = {**os.environ, "EXPLAIND_EMBEDDED_WORKERS": "0"}
    with running_server(tmp_path, env=options) as server:
        send(server, rows, 3)
        wait_until(lambda: counted(tmp_path, baseline) == (30, 30), seconds=60)
        send(server, rows, 2)
        server.kill()
    left = counted(tmp_path, baseline)
    assert left in {(30, 30), (40, 40), (50, 50)}
    with running_server(tmp_path, env=options) as server:
        send(server, rows, 4)
        assert server.stop() == 0
    assert counted(tmp_path, baseline) == (left[0] + 40, left[1] + 40)
    report = explaind("drift", "--data-dir", str(tmp_path))
    assert report.returncode == 0
    assert "too few rows to say anything" in report.stdout
