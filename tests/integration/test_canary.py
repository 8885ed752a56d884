"""A share of inline explanations is checked by a worker's second engine, unseen by clients."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import values_swapped, with_explainer
from later import jobs_in
from live_app import LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import wait_until
from valkey_server import running_valkey

Instance = dict[str, Any]


def policy_file(folder: Path, share: float) -> Path:
    path = folder / "policy.toml"
    path.write_text(f"[default]\ncanary = {share}\n")
    return path


def scraped(app: LiveApp) -> dict[str, float]:
    page = app.client().get("/metrics").body.decode()
    return {
        sample.name + sample.labels.get("invariant", ""): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("model") == "breast_cancer" and "le" not in sample.labels
    }


def events_of(app: LiveApp, request_id: str) -> list[str]:
    file = app.runtime.settings.data_dir / "evidence.db"
    query = "SELECT event_type FROM events WHERE request_id = ?"
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute(query, (request_id,))]


@pytest.mark.parametrize("is_wrong", [False, True])
def test_every_canary_is_checked_and_only_what_is_wrong_is_counted(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], *, is_wrong: bool
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    customise = with_explainer(values_swapped) if is_wrong else None
    settings = {
        "policy_file": policy_file(tmp_path, 1.0),
        "embedded_workers": 1,
        "job_time_limit_seconds": 100,  # it may have kernels to compile
    }
    with live_app(tmp_path, customise=customise, **settings) as app:
        client = app.client()
        answer = client.predict(rows[:3]).json()
        assert answer["explanation"]["status"] == "complete"
        client.predict(rows[:3], query="")
        wait_until(lambda: scraped(app)["explain_canary_gap_ratio_count"] >= 1, seconds=110)
        found = scraped(app)
        assert found["explain_canary_gap_ratio_count"] == 1
        assert found["explain_invariant_failures_totalcanary"] == float(is_wrong)
        gap = found["explain_canary_gap_ratio_sum"]
        assert gap > 1e-2 if is_wrong else gap < 1e-6
        assert events_of(app, answer["request_id"]) == ["decision"]
        assert (
            client.get(answer["explanation"]["links"]["self"]).json()["explanation"]
            == (answer["explanation"])
        )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_job_names_the_record_and_nothing_of_it(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], share: float
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    policy = policy_file(tmp_path, share)
    with running_valkey() as valkey, valkey.client() as redis:
        settings = {"policy_file": policy, "redis_url": valkey.url}
        with live_app(tmp_path, **settings) as app:
            for i in range(8):
                app.client().predict(rows[:1], headers={"X-Request-ID": f"canary-{i:04}"})
            if not share:
                assert jobs_in(redis) == {}
                return
            wait_until(lambda: len(jobs_in(redis)) == 8)
            job = jobs_in(redis)["canary-0000"]
            assert (job["kind"], job["priority"]) == ("canary", "low")
            assert set(job) == {
                "tenant", "request_id", "model", "version", "digest", "priority", "received_us",
                "method", "trace_id", "kind",
            }  # fmt: skip


@pytest.mark.drill
def test_canaries_leave_half_of_the_queue_to_explanations(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    policy = policy_file(tmp_path, 1.0)
    with running_valkey() as valkey, valkey.client() as redis:
        settings = {"policy_file": policy, "redis_url": valkey.url, "max_queue": 16}
        with live_app(tmp_path, **settings) as app:
            queue, client = app.runtime.delivery.queue, app.client()
            assert queue is not None
            for _ in range(9):
                depth = queue.depth
                client.predict(rows[:1])
                wait_until(lambda depth=depth: queue.depth > depth)  # type: ignore[misc]
            for _ in range(5):
                client.predict(rows[:1])
            assert len(jobs_in(redis)) == 9
