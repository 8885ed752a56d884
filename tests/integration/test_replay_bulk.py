"""Chunks of a table that was explained as a whole, replayed by the request IDs in its output."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bulk_runs import explain, working_queue
from called_families import CALLED
from commands import explaind
from recorded import one_digit_off, recorded_in, replayed_here
from tables import breast_cancer

from service.bulk import Order
from service.registry import Registry
from service.registry.work import Options

MODEL = "breast_cancer"
SAMPLED = "wide_svm"
RULES = f"""
[models.{MODEL}]
rules = [{{ when = 'column("mean radius") > LIMIT', explain = 'never' }}]

[models.{MODEL}.decision]
name = "biopsy"
class = "malignant"
at_least = 0.5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[Path]:
    """A data directory with a queue, a worker and two models: one of trees, one that is called."""
    folder = tmp_path_factory.mktemp("replay-bulk")
    shutil.copytree(demo_registry, folder / "registry")
    family = CALLED[SAMPLED]()
    options = Options(background_rows=20, **family.options)
    Registry(folder / "registry").register(
        SAMPLED, family.model, family.X, family.y, options=options
    )
    with working_queue(folder):
        yield folder


@pytest.fixture(scope="module")
def chunks(folder: Path) -> pd.DataFrame:
    """The output of a run with a refused row, and rows that policy does not let explain."""
    frame = breast_cancer()[0].iloc[:30].astype(object)
    limit, frame.iloc[2, 0] = float(frame["mean radius"].median()), "wide"
    (folder / "policy.toml").write_text(RULES.replace("LIMIT", str(limit)))
    frame.to_csv(folder / "in.csv", index=False)
    order = Order(MODEL, folder / "in.csv", folder / "out.parquet", chunk_rows=12)
    explain(folder, order, policy=folder / "policy.toml")
    return pq.read_table(order.out).to_pandas()


def replayed(folder: Path, request_id: str) -> Any:
    done = explaind("replay", request_id, "--json", "--data-dir", str(folder))
    assert done.returncode in (0, 1), done.stderr
    report = orjson.loads(done.stdout)
    assert done.returncode == (0 if report["equal"] else 1)
    return report


def test_each_chunk_is_equal(folder: Path, chunks: pd.DataFrame) -> None:
    ids = chunks["request_id"].dropna().unique()
    assert len(ids) == 6, "three chunks, each in two by policy"
    for request_id in ids:
        # Here, not in six more processes; one is replayed by the command below.
        report = replayed_here(folder, recorded_in(folder, request_id))
        assert report["equal"], report
        assert report["predictions"]["equal"]
        assert report["explanation"]["equal"]
    assert replayed(folder, ids[0])["equal"]


def test_a_pointer_counts_the_rows_with_that_request_id(folder: Path, chunks: pd.DataFrame) -> None:
    (request_id, *_) = chunks.loc[chunks["status"] == "complete", "request_id"]
    recorded = recorded_in(folder, request_id)
    own = chunks[chunks["request_id"] == request_id].reset_index()
    instances = orjson.loads(recorded.part("instances"))
    outputs = orjson.loads(recorded.part("outputs"))
    assert len(instances) == len(own) > 1
    assert own["output"].tolist() == [numbers[0] for numbers in outputs]
    outputs[1][0] += 1.0
    changed = replace(recorded, parts={**recorded.parts, "outputs": orjson.dumps(outputs)})
    report = replayed_here(folder, changed)
    gap = report["predictions"]["largest_gap"]
    assert (report["equal"], gap["pointer"]) == (False, "/outputs/1/0")
    assert gap["absolute"] == pytest.approx(1.0)


def test_another_digit_or_version_is_told_with_the_largest_gap(
    folder: Path, chunks: pd.DataFrame, tmp_path: Path
) -> None:
    (request_id, *_) = chunks.loc[chunks["status"] == "complete", "request_id"]
    recorded = recorded_in(folder, request_id)
    report = replayed_here(folder, one_digit_off(recorded, "values", "explanation"))
    assert (report["equal"], report["differing_digests"]) == (False, [])
    assert report["explanation"]["largest_gap"]["pointer"] == "/values/0/0/0"
    from xgboost import XGBClassifier

    X, y = breast_cancer()
    other = XGBClassifier(n_estimators=39, max_depth=4, learning_rate=0.2, n_jobs=1).fit(X, y)
    names = {0: "malignant", 1: "benign"}
    options = Options(classes=tuple(names.values()))
    Registry(tmp_path).register(MODEL, other, X, y.map(names), options=options)
    report = replayed_here(folder, recorded, tmp_path)
    assert not report["equal"]
    assert {"model_digest", "artifact_digest"} <= set(report["differing_digests"])
    for part in ("predictions", "explanation"):
        assert report[part]["largest_gap"]["absolute"] > 1e-6, part


def test_a_chunk_of_estimates_is_equal(folder: Path, tmp_path: Path) -> None:
    family = CALLED[SAMPLED]()
    family.X.iloc[:2].to_parquet(tmp_path / "in.parquet")
    order = Order(SAMPLED, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert explain(folder, order).by_status == {"complete": 2}
    lines = pq.read_table(order.out).to_pandas()
    assert lines.filter(like="standard_error").notna().all(axis=None)
    (request_id,) = lines["request_id"].unique()
    report = replayed_here(folder, recorded_in(folder, request_id))
    assert report["equal"], report
    assert report["explanation"]["equal"]


def test_a_refused_row_has_no_record_to_replay(chunks: pd.DataFrame) -> None:
    (line,) = chunks[chunks["status"] == "refused"].to_dict("records")
    assert (line["row"], pd.isna(line["request_id"])) == (3, True)
