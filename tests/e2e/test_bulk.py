"""`explaind explain`: a whole table through the real queue, worker and evidence store."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from live_app import live_app
from servers import COMMAND, explaind, wait_until
from tables import breast_cancer, instances_of

from service.queue.embedded import Embedded, running_url
from service.registry import Registry
from service.registry.work import Options
from service.settings import Settings

ROWS = 30
MODEL = "breast_cancer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[Path]:
    """A data directory whose queue and worker run for all tests, as beside `explaind serve`."""
    folder = tmp_path_factory.mktemp("bulk")
    shutil.copytree(demo_registry, folder / "registry")
    register_sampled(folder)
    with embedded(folder):
        yield folder


@contextmanager
def embedded(folder: Path) -> Iterator[None]:
    settings = Settings.load({}, data_dir=folder)
    with asyncio.Runner() as runner:
        # In this thread, at whose end they would end.
        running = runner.run(Embedded.start(settings))
        assert runner.run(running_url(settings)) == running.redis_url
        try:
            yield
        finally:
            runner.run(running.stop())


def register_sampled(folder: Path) -> None:
    """A model that is only called, so that its explanations are estimates and take a while."""
    from sklearn.neighbors import KNeighborsClassifier

    X, y = breast_cancer()
    X = X.iloc[:, :14]
    model = KNeighborsClassifier(5).fit(X, y)
    Registry(folder / "registry").register(
        "sampled",
        model,
        X,
        y.map({0: "malignant", 1: "benign"}),
        options=Options(classes=("malignant", "benign"), background_rows=20),
    )


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return breast_cancer()[0].iloc[:ROWS]


def bulk(
    folder: Path, file: Path, out: Path, *options: str, model: str = MODEL, **env: str
) -> subprocess.CompletedProcess[str]:
    arguments = ("explain", model, str(file), "--out", str(out), "--data-dir", str(folder))
    return explaind(*arguments, *options, env=env)


def events(folder: Path, event_type: str) -> list[tuple[str, str, int]]:
    """Event ID, request ID and instances of all such events of bulk runs."""
    query = "SELECT event_id, request_id FROM events WHERE event_type = ? AND request_id LIKE ?"
    with closing(sqlite3.connect(folder / "evidence.db", timeout=30)) as connection:
        return list(connection.execute(query, (event_type, "bulk-%")))


def test_the_numbers_are_those_of_an_inline_answer(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.assign(note="NA").to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    tables = {}
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"{suffix}.parquet"
        done = bulk(folder, tmp_path / f"in.{suffix}", out, "--chunk", "8", "--json")
        assert done.returncode == 0, done.stderr
        assert orjson.loads(done.stdout) == {
            "file": str(out),
            "rows": ROWS,
            "by_status": {"complete": ROWS},
        }
        tables[suffix] = pq.read_table(out)
    csv = tables["csv"].to_pandas().drop(columns="request_id")
    pd.testing.assert_frame_equal(csv, tables["parquet"].to_pandas().drop(columns="request_id"))
    with live_app(folder, model=MODEL) as live:
        answer = live.client().predict(instances_of(frame)).json()
    explanation = answer["explanation"]
    found = csv[[f"contribution:{name}" for name in frame.columns]].to_numpy()
    assert np.array_equal(found, np.array(explanation["values"])[:, :, 0])
    assert np.array_equal(csv["base_value"], np.array(explanation["base_values"])[:, 0])
    assert np.array_equal(csv["output"], np.array(explanation["outputs"])[:, 0])
    assert csv["label"].tolist() == [p["label"] for p in answer["predictions"]]
    chances = [p["probabilities"]["benign"] for p in answer["predictions"]]
    assert csv["probability:benign"].tolist() == chances
    assert csv["row"].tolist() == list(range(1, ROWS + 1))
    assert_provenance(tables["csv"], answer)


def assert_provenance(table: Any, answer: dict[str, Any]) -> None:
    facts = orjson.loads(table.schema.metadata[b"explaind"])
    explanation = answer["explanation"]
    assert facts["model"] == answer["model"]
    for name in ("method", "engine", "exact", "output_space", "link", "background_digest"):
        assert facts[name] == explanation[name]
    assert facts["library_versions"]["numpy"] == np.__version__
    assert facts["service_version"]
    assert facts["file"]["digest"].startswith("sha256:")


def test_every_record_can_be_fetched_and_rows_say_why_they_are_not_there(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    text = frame.head(5).astype(object)
    text.iloc[2, 0] = "wide"
    text.to_csv(tmp_path / "in.csv", index=False)
    done = bulk(folder, tmp_path / "in.csv", tmp_path / "out.parquet", "--chunk", "2")
    assert done.returncode == 0, done.stderr
    assert "5 rows: 4 complete, 1 refused" in done.stderr
    lines = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [line["status"] for line in lines] == ["complete"] * 2 + ["refused"] + ["complete"] * 2
    assert lines[2]["reason"] == "mean radius: must be a number"
    assert lines[2]["request_id"] is lines[2]["label"] is lines[2]["output"] is None
    got = explaind("get", lines[3]["request_id"], "--data-dir", str(folder))
    record = orjson.loads(got.stdout)
    assert record["explanation"]["values"][0][0][0] == lines[3]["contribution:mean radius"]
    assert record["explanation"]["lane"] == "queued"


def test_what_is_stored_is_not_done_again(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.tail(6).to_csv(tmp_path / "in.csv", index=False)
    first, second, other = (tmp_path / f"{name}.parquet" for name in ("first", "second", "other"))
    assert bulk(folder, tmp_path / "in.csv", first, "--chunk", "3").returncode == 0
    before = events(folder, "decision"), events(folder, "explanation")
    assert bulk(folder, tmp_path / "in.csv", second, "--chunk", "3").returncode == 0
    assert (events(folder, "decision"), events(folder, "explanation")) == before
    assert first.read_bytes() == second.read_bytes()
    frame.head(6).to_csv(tmp_path / "in.csv", index=False)
    assert bulk(folder, tmp_path / "in.csv", other, "--chunk", "3").returncode == 0
    assert len(events(folder, "decision")) == len(before[0]) + 2


def test_policy_keeps_rows_apart_that_it_does_not_let_explain(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    limit = float(frame["mean radius"].median())
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"[models.{MODEL}]\nrules = [{{ when = 'column(\"mean radius\") > {limit}', "
        "explain = 'never' }]"
    )
    frame.to_csv(tmp_path / "in.csv", index=False)
    out = tmp_path / "out.parquet"
    done = bulk(folder, tmp_path / "in.csv", out, EXPLAIND_POLICY_FILE=str(policy))
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out).to_pandas()
    skipped = frame["mean radius"].to_numpy() > limit
    assert table["status"].tolist() == ["skipped" if is_so else "complete" for is_so in skipped]
    assert table["label"].notna().all()
    assert (table["output"].isna() == skipped).all()


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "explain", "sampled", *arguments, "--data-dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_goes_on_from_what_is_stored(
    folder: Path, tmp_path: Path, end: signal.Signals
) -> None:
    X = breast_cancer()[0].iloc[:, :14]
    X.sample(24, random_state=int(end)).to_csv(tmp_path / "in.csv", index=False)
    file, out = str(tmp_path / "in.csv"), tmp_path / "out.parquet"
    before = len(events(folder, "explanation"))
    with started(folder, file, "--out", str(out), "--chunk", "1") as process:

        def has_begun() -> bool:
            assert process.poll() is None, process.communicate()
            return len(events(folder, "explanation")) > before + 3

        wait_until(has_begun, seconds=60)
        process.send_signal(end)
        _, said = process.communicate(timeout=30)
    assert not out.exists()
    if end is signal.SIGINT:
        assert process.returncode == 130
        assert b"goes on from what is stored" in said
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    stored = set(events(folder, "explanation"))
    assert len(stored) < before + 24, "it was over before it was ended"
    done = bulk(folder, tmp_path / "in.csv", out, "--chunk", "1", model="sampled")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out).to_pandas()
    assert table["status"].tolist() == ["complete"] * 24
    finals = events(folder, "explanation")
    assert stored <= set(finals)
    assert len(finals) == before + 24
    assert_estimates(table)


def assert_estimates(table: pd.DataFrame) -> None:
    errors = table.filter(like="standard_error:").to_numpy()
    assert errors.shape[1] == 14
    assert (errors >= 0).all()
    assert (errors > 0).any()
    sums = table.filter(like="contribution:").sum(axis=1) + table["base_value"]
    assert np.allclose(sums, table["output"])


@pytest.mark.parametrize(
    ("model", "file", "code", "reason"),
    [
        ("nobody", "in.csv", 3, "no version of 'nobody'"),
        (MODEL, "none.csv", 4, "No such file"),
        (MODEL, "narrow.csv", 4, "lacks columns the model reads"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    folder: Path,
    tmp_path: Path,
    model: str,
    file: str,
    code: int,
    reason: str,
) -> None:
    frame = breast_cancer()[0].head(3)
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.iloc[:, 1:].to_csv(tmp_path / "narrow.csv", index=False)
    done = bulk(folder, tmp_path / file, tmp_path / "out.parquet", model=model)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_alone_it_brings_queue_and_worker_and_takes_them_away(
    tmp_path: Path, demo_registry: Path, frame: pd.DataFrame
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(demo_registry, folder / "registry")
    frame.to_csv(tmp_path / "in.csv", index=False)
    started_at = time.monotonic()
    done = bulk(folder, tmp_path / "in.csv", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started_at < 60
    assert pq.read_table(tmp_path / "out.parquet").num_rows == ROWS
    settings = Settings.load({}, data_dir=folder)
    assert asyncio.run(running_url(settings)) is None
