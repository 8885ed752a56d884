"""A table explained through the real queue, worker and evidence store."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bulk_runs import FAR, explain, opened, stored, working_queue
from commands import explaind
from live_app import live_app
from tables import breast_cancer, instances_of
from valkey_server import running_valkey

from explainers.base import FloatArray
from service.bulk import Order
from service.bulk.running import Bulk
from service.disposal import Destruction, erase
from service.disposal import Order as Cause
from service.endings import failed_final
from service.errors import CommandError
from service.evidence.events import EPOCH
from service.metrics import Metrics
from service.models.base import NativeModel, Served
from service.registry import Registry
from service.served import ServedModel
from service.settings import Settings
from service.storing import evidence_store

ROWS = 30
MODEL = "breast_cancer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Path:
    folder = tmp_path_factory.mktemp("bulk")
    shutil.copytree(demo_registry, folder / "registry")
    return folder


@pytest.fixture(scope="module", autouse=True)
def queue(folder: Path) -> Iterator[str]:
    with working_queue(folder) as url:
        yield url


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return breast_cancer()[0].iloc[:ROWS]


def test_the_numbers_are_those_of_an_inline_answer(
    folder: Path, frame: pd.DataFrame, tmp_path: Path, queue: str
) -> None:
    frame.assign(note="NA").to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    tables = {}
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"{suffix}.parquet"
        order = Order(MODEL, tmp_path / f"in.{suffix}", out, chunk_rows=8)
        assert explain(folder, order).by_status == {"complete": ROWS}
        tables[suffix] = pq.read_table(out)
    csv = tables["csv"].to_pandas().drop(columns="request_id")
    pd.testing.assert_frame_equal(csv, tables["parquet"].to_pandas().drop(columns="request_id"))
    with live_app(folder, redis_url=queue) as live:
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


def test_rows_that_are_not_explained_say_why_and_records_can_be_fetched(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    text = frame.head(5).astype(object)
    text.iloc[2, 0] = "wide"
    text.to_csv(tmp_path / "in.csv", index=False)
    order = Order(MODEL, tmp_path / "in.csv", tmp_path / "out.parquet", chunk_rows=2)
    assert explain(folder, order).by_status == {"complete": 4, "refused": 1}
    lines = pq.read_table(order.out).to_pylist()
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
    path = tmp_path / "in.csv"
    frame.tail(6).to_csv(path, index=False)
    first = Order(MODEL, path, tmp_path / "first.parquet", chunk_rows=3)
    second = replace(first, out=tmp_path / "second.parquet")
    explain(folder, first)
    before = stored(folder, "decision"), stored(folder, "explanation")
    explain(folder, second)
    assert (stored(folder, "decision"), stored(folder, "explanation")) == before
    assert first.out.read_bytes() == second.out.read_bytes()
    explain(folder, replace(first, tenant="other"))
    assert len(stored(folder, "decision")) == len(before[0]) + 2
    frame.head(6).to_csv(path, index=False)
    explain(folder, first)
    assert len(stored(folder, "decision")) == len(before[0]) + 4


def test_rows_whose_record_was_erased_say_so_and_the_others_are_written(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.tail(7).to_csv(tmp_path / "in.csv", index=False)
    first = Order(MODEL, tmp_path / "in.csv", tmp_path / "first.parquet", chunk_rows=4)
    explain(folder, first)
    erased = pq.read_table(first.out)["request_id"].to_pylist()[0]
    why = Destruction("erasure", Cause("cli:test", "case-1", datetime.now(UTC)))
    with evidence_store(Settings.load({}, data_dir=folder)) as store:
        erase(store, [("default", erased)], why)
    again = replace(first, out=tmp_path / "again.parquet")
    assert explain(folder, again).by_status == {"erased": 4, "complete": 3}
    lines = pq.read_table(again.out).to_pylist()
    assert {line["reason"] for line in lines[:4]} == {"The record has been erased."}


def test_policy_keeps_rows_apart_that_it_does_not_let_explain(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    limit = float(frame["mean radius"].median())
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"[models.{MODEL}]\nrules = [{{ when = 'column(\"mean radius\") > {limit}', "
        "explain = 'never' }]\n"
        f"[models.{MODEL}.decision]\nname = 'biopsy'\nclass = 'malignant'\nat_least = 0.5\n"
    )
    frame.to_csv(tmp_path / "in.csv", index=False)
    order = Order(MODEL, tmp_path / "in.csv", tmp_path / "out.parquet")
    explain(folder, order, policy=policy)
    table = pq.read_table(order.out).to_pandas()
    skipped = frame["mean radius"].to_numpy() > limit
    assert table["status"].tolist() == ["skipped" if is_so else "complete" for is_so in skipped]
    assert table.loc[skipped, "reason"].str.contains("allows no explanation").all()
    assert (table["decision"].eq("biopsy") == table["label"].eq("malignant")).all()
    assert (table["output"].isna() == skipped).all()


def test_policy_and_secret_of_the_service_are_flags_of_the_command_too(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    policy, secret = tmp_path / "policy.toml", tmp_path / "elsewhere"
    policy.write_text(f"[models.{MODEL}]\nrules = [{{ explain = 'never' }}]\n")
    frame.head(4).to_parquet(tmp_path / "in.parquet")
    first = Order(MODEL, tmp_path / "in.parquet", tmp_path / "first.parquet")
    second = replace(first, out=tmp_path / "second.parquet")
    explain(folder, first, policy=policy, secret=secret)
    before = stored(folder, "decision")
    files = ("--policy-file", str(policy), "--secret-file", str(secret))
    place = ("--out", str(second.out), "--data-dir", str(folder), "--json")
    done = explaind("explain", MODEL, str(second.file), *files, *place)
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["by_status"] == {"skipped": 4}
    assert stored(folder, "decision") == before, "another secret gives other request IDs"
    assert second.out.read_bytes() == first.out.read_bytes()


@pytest.mark.parametrize(
    ("reason", "records"), [("cancelled by alice", 1), ("the explainer failed (Error)", 7)]
)
def test_a_chunk_that_fails_is_halved_unless_somebody_called_it_off(
    tmp_path: Path, demo_registry: Path, frame: pd.DataFrame, reason: str, records: int
) -> None:
    frame.head(4).to_parquet(tmp_path / "in.parquet")
    order = Order(MODEL, tmp_path / "in.parquet", tmp_path / "out.parquet", chunk_rows=4)
    served = ServedModel.of(Registry(demo_registry).load(MODEL, 1), Metrics(), retention_days=1)

    async def end_all(bulk: Bulk) -> None:
        """In the place of a worker that can only fail."""
        while True:
            for found in await bulk.evidence.pending(since=EPOCH, until=FAR, limit=9):
                record = await bulk.evidence.record(found.tenant, found.request_id)
                assert record is not None
                final = failed_final(record, reason, outcome="failed", actor="test")
                await bulk.evidence.append_final(final)
                await bulk.queue.announce_final(found.tenant, found.request_id)
            await asyncio.sleep(0.02)

    async def run(queue: str) -> dict[str, int]:
        async with opened(tmp_path, queue, served, order) as bulk:
            ending = asyncio.create_task(end_all(bulk))
            try:
                report = await bulk.explain_into(order.out, lambda _: None)
            finally:
                ending.cancel()
            return report.by_status

    with running_valkey() as valkey:
        assert asyncio.run(run(valkey.url)) == {"failed": 4}
    assert len(stored(tmp_path, "decision")) == records
    assert set(pq.read_table(tmp_path / "out.parquet")["reason"].to_pylist()) == {reason}


class FragileModel:
    """The real model, but it raises for some rows."""

    def __init__(self, real: NativeModel, first_cells: set[float]) -> None:
        self._real = real
        self._first_cells = first_cells

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def predict(self, X: FloatArray) -> Served:
        if self._first_cells & set(X[:, 0].tolist()):
            raise RuntimeError("as libraries do")
        return self._real.predict(X)


def test_a_row_the_model_fails_on_takes_no_other_with_it(
    folder: Path, frame: pd.DataFrame, tmp_path: Path, queue: str
) -> None:
    cells = frame["mean radius"].tolist()
    bad = {3, 17}
    frame.to_parquet(tmp_path / "in.parquet")
    model = Registry(folder / "registry").load(MODEL, 1)
    fragile: Any = FragileModel(model.native, {cells[i] for i in bad})
    served = ServedModel.of(replace(model, native=fragile), Metrics(), retention_days=1)
    out = tmp_path / "out.parquet"

    async def run() -> dict[str, int]:
        order = Order(MODEL, tmp_path / "in.parquet", out, chunk_rows=20)
        async with opened(folder, queue, served, order) as bulk:
            return (await bulk.explain_into(out, lambda _: None)).by_status

    assert asyncio.run(run()) == {"complete": ROWS - 2, "failed": 2}
    lines = pq.read_table(out).to_pylist()
    assert {line["row"] - 1 for line in lines if line["status"] == "failed"} == bad
    assert all("failed" in line["reason"] for line in lines if line["status"] == "failed")


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"model": "nobody"}, 3, "no version of 'nobody'"),
        ({"version": 7}, 3, "no version of 'breast_cancer'"),
        ({"file": Path("none.csv")}, 4, "No such file"),
        ({"file": Path("narrow.csv")}, 4, "lacks columns the model reads"),
        ({"out": Path("none/out.parquet")}, 5, "No such file"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    folder: Path, tmp_path: Path, change: dict[str, Any], code: int, reason: str
) -> None:
    frame = breast_cancer()[0].head(3)
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.iloc[:, 1:].to_csv(tmp_path / "narrow.csv", index=False)
    places = {"file": Path("in.csv"), "out": Path("out.parquet")}
    given = {"model": MODEL, **places, **change}
    order = Order(**{k: tmp_path / v if isinstance(v, Path) else v for k, v in given.items()})
    before = stored(folder, "decision")
    with pytest.raises(CommandError, match=reason) as refused:
        explain(folder, order)
    assert refused.value.exit_code == code
    assert not order.out.exists()
    assert stored(folder, "decision") == before
