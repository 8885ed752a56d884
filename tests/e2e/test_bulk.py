"""`explaind explain` as a process: alone, interrupted, killed."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bulk_runs import stored
from servers import COMMAND, explaind, wait_until
from tables import breast_cancer

from service.evidence import EvidenceStore
from service.queue.embedded import running_url
from service.registry import Registry
from service.registry.work import Options
from service.settings import Settings

ROWS = 16
SOON = {"EXPLAIND_LEASE_SECONDS": "2"}
"""After it, what a killed run's worker had taken is run again."""

COLUMNS = 13
"""One more than is enumerated: explanations are estimates, and take a while."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a model that is only called."""
    from sklearn.neighbors import KNeighborsClassifier

    folder = tmp_path_factory.mktemp("bulk")
    X, y = breast_cancer()
    X = X.iloc[:, :COLUMNS]
    Registry(folder / "registry").register(
        "sampled",
        KNeighborsClassifier(5).fit(X, y),
        X,
        y.map({0: "malignant", 1: "benign"}),
        options=Options(classes=("malignant", "benign"), background_rows=500),
    )
    EvidenceStore.open(Settings.load({}, data_dir=folder).database_url).close()
    return folder


def written(file: Path, *, seed: int) -> str:
    """Some rows, each about somebody else; who the first one is."""
    frame = breast_cancer()[0].iloc[:, :COLUMNS].sample(ROWS, random_state=seed)
    clients = [f"client {seed}-{n}" for n in range(ROWS)]
    frame.assign(note="NA", client=clients).to_csv(file, index=False)
    return clients[0]


def arguments(folder: Path, file: Path, out: Path) -> list[str]:
    named = ["explain", "sampled", str(file), "--out", str(out)]
    about = ["--chunk", "1", "--subject-column", "client"]
    return [*named, "--data-dir", str(folder), *about]


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **SOON},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended_midway(folder: Path, command: list[str], end: signal.Signals) -> tuple[int, bytes]:
    """Exit code and last words of a run ended once it had some explanations stored."""
    before = stored(folder, "explanation")
    with started(command) as process:

        def has_begun() -> bool:
            assert process.poll() is None, process.communicate()
            return len(stored(folder, "explanation") - before) >= 2

        wait_until(has_begun, seconds=60)
        process.send_signal(end)
        _, said = process.communicate(timeout=30)
    return process.returncode, said


@pytest.mark.drill
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_goes_on_from_what_is_stored(
    folder: Path, tmp_path: Path, end: signal.Signals
) -> None:
    """Nothing else runs: it brings queue and worker and takes them away."""
    file, out = tmp_path / "in.csv", tmp_path / "out.parquet"
    client = written(file, seed=int(end))
    command = arguments(folder, file, out)
    before = stored(folder, "explanation")
    code, said = ended_midway(folder, command, end)
    midway = stored(folder, "explanation")
    assert not out.exists()
    assert len(midway - before) < ROWS, "it was over before it was ended"
    if end is signal.SIGINT:
        assert code == 130
        assert b"goes on from what is stored" in said
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    done = explaind(*command, "--json", env=SOON)
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["by_status"] == {"complete": ROWS}
    assert "not read, because the model lacks them: note" in done.stderr
    assert "%" in done.stderr
    assert "worker_started" not in done.stderr
    assert "worker_started" in (folder / "worker.log").read_text()
    assert midway <= stored(folder, "explanation")
    assert len(stored(folder, "explanation") - before) == ROWS
    assert_estimates(pq.read_table(out).to_pandas())
    assert_one_is_erased(folder, client)
    assert asyncio.run(running_url(Settings.load({}, data_dir=folder))) is None


def assert_one_is_erased(folder: Path, client: str) -> None:
    named = ["--subject", client, "--yes", "--json", "--data-dir", str(folder)]
    assert orjson.loads(explaind("erase", *named).stdout)["erased"] == 1


def assert_estimates(table: pd.DataFrame) -> None:
    errors = table.filter(like="standard_error:").to_numpy()
    assert errors.shape[1] == COLUMNS
    assert (errors >= 0).all()
    assert (errors > 0).any()
    sums = table.filter(like="contribution:").sum(axis=1) + table["base_value"]
    assert np.allclose(sums, table["output"])
