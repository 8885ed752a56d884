"""Tables that say whom each row is about: filed and erased as what `POST /predict` stores."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bulk_runs import explain, opened, stored, working_queue
from commands import explaind
from disposals import ERASURE
from recorded import recorded_in, replayed_here
from tables import breast_cancer
from valkey_server import running_valkey

from service.bulk import Order
from service.bulk.running import Bulk
from service.bulk.writing import METADATA_KEY
from service.disposal import erase
from service.errors import CommandError
from service.metrics import Metrics
from service.registry import Registry
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import Settings
from service.storing import evidence_store

MODEL = "breast_cancer"
CLIENTS = ["anna-7f3a", "bert", "anna-7f3a", None, "4711", "bert"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bulk-subjects")
    shutil.copytree(demo_registry, folder / "registry")
    with working_queue(folder):
        yield folder


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return breast_cancer()[0].iloc[: len(CLIENTS)]


def order_of(folder: Path, frame: pd.DataFrame, clients: list[Any] = CLIENTS) -> Order:
    """Of these rows in chunks of four."""
    path = folder / "in.csv"
    frame.assign(client=clients).to_csv(path, index=False)
    out = folder / "out.parquet"
    return Order(MODEL, path, out, chunk_rows=4, subject_column="client")


def lines_of(order: Order) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = pq.read_table(order.out).to_pylist()
    return lines


def subjects_of(folder: Path, request_id: str) -> list[str | None]:
    with evidence_store(Settings.load({}, data_dir=folder)) as store:
        record = store.record("default", request_id)
    assert record is not None
    (keyed,) = {record.decision.subjects, record.decision.part("subjects").decode()}
    found: list[str | None] = orjson.loads(keyed or "null")
    return found


def erased(folder: Path, subject: str) -> int:
    command = ["erase", "--subject", subject, "--yes", "--json", "--data-dir", str(folder)]
    done = explaind(*command)
    assert done.returncode == 0, done.stderr
    return int(orjson.loads(done.stdout)["erased"])


def test_rows_are_filed_under_their_subjects_and_erasing_one_leaves_the_others(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    order = order_of(tmp_path, frame)
    assert explain(folder, order).by_status == {"complete": len(CLIENTS)}
    before = lines_of(order)
    facts = orjson.loads(pq.read_schema(order.out).metadata[METADATA_KEY])
    assert facts["subject_column"] == "client"
    first, second = dict.fromkeys(line["request_id"] for line in before)
    keyed = Keyring.open(Settings.load({}, data_dir=folder).secret_file).keyed_subject
    for request_id, names in ((first, CLIENTS[:4]), (second, CLIENTS[4:])):
        expected = [None if name is None else keyed("default", name) for name in names]
        assert subjects_of(folder, request_id) == expected
        assert replayed_here(folder, recorded_in(folder, request_id))["equal"]
    assert b"anna-7f3a" not in (folder / "evidence.db").read_bytes()
    assert [erased(folder, "anna-7f3a"), erased(folder, "anna-7f3a")] == [1, 0]
    made = stored(folder, "decision")
    assert explain(folder, order).by_status == {"complete": 4, "erased": 2}
    assert stored(folder, "decision") == made, "of what was erased nothing is made anew"
    after = lines_of(order)
    assert [line for line in after if line["status"] == "complete"] == [
        line for line, name in zip(before, CLIENTS, strict=True) if name != "anna-7f3a"
    ]
    said = {"row", "request_id", "status", "reason"}
    for line in (after[0], after[2]):
        assert {name for name, value in line.items() if value is not None} == said
    assert erased(folder, "bert") == 2
    assert explain(folder, order).by_status == {"complete": 2, "erased": 4}


def test_another_subject_is_another_record_and_the_numbers_are_the_same(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame = frame.tail(3)
    order = order_of(tmp_path, frame, ["carl", "dora", None])
    explain(folder, order)
    named = lines_of(order)
    explain(folder, replace(order, subject_column=None))
    unnamed = lines_of(order)
    assert named[0]["request_id"] != unnamed[0]["request_id"]
    assert subjects_of(folder, named[0]["request_id"])[2] is None
    for line in (*named, *unnamed):
        del line["request_id"]
    assert named == unnamed


def test_rows_that_policy_sets_apart_keep_their_subjects(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    limit = float(frame["mean radius"].median())
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f"[[default.rules]]\nwhen = 'column(\"mean radius\") > {limit}'\nexplain = 'never'\n"
    )
    names = [f"client {n}" for n in range(len(frame))]
    order = replace(order_of(tmp_path, frame, names), chunk_rows=len(frame))
    assert explain(folder, order, policy=policy).by_status == {"complete": 3, "skipped": 3}
    keyed = Keyring.open(Settings.load({}, data_dir=folder).secret_file).keyed_subject
    own: dict[str, list[str]] = {}
    for line, name in zip(lines_of(order), names, strict=True):
        own.setdefault(line["request_id"], []).append(keyed("default", name))
    assert {request_id: subjects_of(folder, request_id) for request_id in own} == own
    assert len(own) == 2


def test_what_names_nobody_that_can_be_asked_for_is_refused_with_its_row(
    folder: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    order = replace(order_of(tmp_path, frame), file=path)
    for clients, reason in (
        ([1.0, 2.0, None, None, None, None], "client: must be text or null"),
        (["x" * 257, "y" * 257, "z" * 256, "", None, "a"], "client: must have 1 to 256 characters"),
    ):
        frame.assign(client=clients).to_parquet(path)
        assert explain(folder, order).by_status == {"refused": 2, "complete": 4}
        assert {line["reason"] for line in lines_of(order)[:2]} == {reason}


@pytest.mark.parametrize(
    ("column", "reason"),
    [("nobody", "has no column 'nobody'"), ("mean radius", "the model reads 'mean radius'")],
)
def test_a_column_that_says_whom_rows_are_about_is_there_and_none_of_the_models(
    folder: Path, frame: pd.DataFrame, tmp_path: Path, column: str, reason: str
) -> None:
    order = replace(order_of(tmp_path, frame), subject_column=column)
    with pytest.raises(CommandError, match=reason) as refused:
        explain(folder, order)
    assert refused.value.exit_code == 4
    assert not order.out.exists()


def test_whoever_is_erased_while_a_chunk_is_explained_is_not_explained_again_in_a_smaller_one(
    tmp_path: Path, demo_registry: Path, frame: pd.DataFrame
) -> None:
    order = order_of(tmp_path, frame.head(4), CLIENTS[:4])
    served = ServedModel.of(Registry(demo_registry).load(MODEL, 1), Metrics(), retention_days=1)

    async def erase_anna(bulk: Bulk) -> None:
        """In the place of a worker."""
        what = replace(ERASURE, subject=bulk.keyring.keyed_subject("default", "anna-7f3a"))
        while True:
            keys = [("default", request_id) for _, request_id in stored(tmp_path, "decision")]
            await asyncio.to_thread(erase, bulk.evidence.store, keys, what)
            for key in keys:
                await bulk.queue.announce_final(*key)
            await asyncio.sleep(0.02)

    async def run(queue: str) -> dict[str, int]:
        async with opened(tmp_path, queue, served, order) as bulk:
            erasing = asyncio.create_task(erase_anna(bulk))
            try:
                return (await bulk.explain_into(order.out, lambda _: None)).by_status
            finally:
                erasing.cancel()

    with running_valkey() as valkey:
        assert asyncio.run(run(valkey.url)) == {"erased": 2, "failed": 2}
    assert len(stored(tmp_path, "decision")) == 1
    assert {line["reason"] for line in lines_of(order)[1::2]} == {"the record was erased in part"}
