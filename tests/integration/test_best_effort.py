"""One model answers only with stored evidence, the other whatever becomes of the store."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from later import jobs_in
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client, Reply, assert_becomes_ready, wait_until
from spools import Lock
from valkey_server import Valkey, running_valkey

Instance = dict[str, Any]

BEST_EFFORT = "/models/breast_cancer/predict"
REQUIRED = "/models/mixed/predict"
POLICY = """
[models.breast_cancer]
evidence = "best_effort"
"""
UNASKED = POLICY + "rules = [{ explain = 'always' }]"
BOUND_SECONDS = 3.0
"""Far below what a locked store takes, far above the quarter of a second on a busy machine."""


@contextmanager
def served(folder: Path, registry: Path, *, policy: str = POLICY, **settings: Any) -> Any:
    (folder / "policy.toml").write_text(policy)
    if not (folder / "registry").exists():
        shutil.copytree(registry, folder / "registry")
    with live_app(folder, policy_file=folder / "policy.toml", **settings) as app:
        yield app


@pytest.fixture
def app(tmp_path: Path, two_models: Path) -> Iterator[LiveApp]:
    with served(tmp_path, two_models) as app:
        yield app


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


def asked(client: Client, rows: list[Instance], request_id: str, path: str = BEST_EFFORT) -> Reply:
    return client.predict(rows, path=path, headers={"X-Request-ID": request_id})


def counted(app: LiveApp, name: str, **labels: str) -> float:
    return app.runtime.metrics.registry.get_sample_value(name, labels) or 0.0


def backlog(client: Client) -> str:
    lines = client.get("/metrics").body.decode().splitlines()
    name = 'explain_audit_backlog_records{backend="spool"} '
    return next(line.removeprefix(name) for line in lines if line.startswith(name))


def until_drained(client: Client) -> None:
    wait_until(lambda: backlog(client) == "0.0", seconds=20)


def test_while_the_store_is_locked_one_model_answers_and_the_other_says_when_to_come_back(
    app: LiveApp, tmp_path: Path, rows: list[Instance], mixed_rows: list[Instance]
) -> None:
    client, other = app.client(), app.client()
    assert asked(client, rows[:1], "before-001").headers["evidence"] == "stored"
    lock = Lock(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(asked, other, mixed_rows[:1], "required-1", REQUIRED)
        started = time.monotonic()
        replies = [asked(client, rows[n : n + 1], f"spooled-{n:02}") for n in range(10)]
        assert time.monotonic() - started < BOUND_SECONDS
        assert client.get("/livez").status == 200
        assert_problem(refused.result(), 503, "store_unavailable")
        assert "retry-after" in refused.result().headers
    assert {(reply.status, reply.headers["evidence"]) for reply in replies} == {(200, "spooled")}
    assert all(reply.json()["explanation"]["status"] == "complete" for reply in replies)
    assert backlog(client) == "10.0"
    ready = client.get("/readyz")
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    lock.release()
    until_drained(client)
    assert_becomes_ready(client)
    assert asked(other, mixed_rows[:1], "required-1", REQUIRED).headers["evidence"] == "stored"
    assert_each_is_stored_once(app, rows, replies)


def assert_each_is_stored_once(app: LiveApp, rows: list[Instance], replies: list[Reply]) -> None:
    client = app.client()
    for n, reply in enumerate(replies):
        found = client.get(f"/explanations/spooled-{n:02}").json()
        assert found["explanation"] == reply.json()["explanation"]
        again = asked(client, rows[n : n + 1], f"spooled-{n:02}")
        assert (again.body, again.headers["evidence"]) == (reply.body, "stored")
        assert again.headers["idempotent-replay"] == "true"
    assert len(client.get("/explanations").json()["items"]) == len(replies) + 2
    writes = "explain_audit_writes_total"
    assert counted(app, writes, backend="spool", outcome="ok") == len(replies)
    assert counted(app, writes, backend="spool", outcome="drained") == len(replies)
    assert counted(app, writes, backend="spool", outcome="none") == 0
    model = {"model": "breast_cancer"}
    assert counted(app, "explain_predictions_total", **model, outcome="ok") == len(replies) + 1
    assert counted(app, "explain_predictions_total", **model, outcome="error") == 0


def test_a_spooled_request_is_repeated_refused_and_not_readable_yet(
    app: LiveApp, tmp_path: Path, rows: list[Instance]
) -> None:
    client = app.client()
    lock = Lock(tmp_path)
    first = asked(client, rows[:1], "spooled-one")
    again = asked(client, rows[:1], "spooled-one")
    assert (again.body, again.headers["evidence"]) == (first.body, "spooled")
    assert again.headers["idempotent-replay"] == "true"
    assert_problem(asked(client, rows[1:2], "spooled-one"), 409, "request_id_conflict")
    reading = client.get("/explanations/spooled-one")
    assert_problem(reading, 503, "record_spooled")
    assert "retry-after" in reading.headers
    assert_problem(client.get("/explanations/spooled-two"), 404, "not_found")
    body = orjson.dumps({"request_id": "spooled-one"})
    assert_problem(client.request("POST", "/explanations", body, JSON), 503, "record_spooled")
    assert counted(app, "explain_predictions_total", model="breast_cancer", outcome="ok") == 1
    lock.release()
    until_drained(client)
    assert client.get("/explanations/spooled-one").status == 200
    assert_problem(asked(client, rows[1:2], "spooled-one"), 409, "request_id_conflict")


def test_without_room_anywhere_the_prediction_says_that_nothing_was_kept(
    tmp_path: Path, two_models: Path, rows: list[Instance]
) -> None:
    (tmp_path / "spool").write_text("in the way")
    with served(tmp_path, two_models) as app:
        client = app.client()
        lock = Lock(tmp_path)
        reply = asked(client, rows[:1], "nowhere-01")
        assert (reply.status, reply.headers["evidence"]) == (200, "none")
        assert reply.json()["explanation"]["status"] == "complete"
        assert client.get("/readyz").status == 503  # neither store nor spool
        assert_problem(client.get("/explanations/nowhere-01"), 404, "not_found")
        none = {"backend": "spool", "outcome": "none"}
        assert counted(app, "explain_audit_writes_total", **none) == 1
        lock.release()
        assert_becomes_ready(client)
        wait_until(lambda: asked(client, rows[:1], "nowhere-01").headers["evidence"] == "stored")
        assert client.get("/explanations/nowhere-01").status == 200


def test_a_queued_explanation_whose_record_is_nowhere_has_failed(
    tmp_path: Path, two_models: Path, rows: list[Instance]
) -> None:
    (tmp_path / "spool").write_text("in the way")
    with served(tmp_path, two_models, inline_budget_seconds=1e-9) as app:
        client = app.client()
        lock = Lock(tmp_path)
        reply = asked(client, rows[:1], "nowhere-02")
        assert (reply.status, reply.headers["evidence"]) == (200, "none")
        explanation = reply.json()["explanation"]
        assert (explanation["status"], explanation["reason"]) == (
            "failed",
            "its record could not be kept",
        )
        assert "location" not in reply.headers
        lane = {"model": "breast_cancer", "role": "serving", "lane": "queued"}
        assert counted(app, "explain_explanations_total", **lane, outcome="failed") == 1
        lock.release()


@pytest.mark.parametrize("policy", [POLICY, UNASKED], ids=["asked", "unasked"])
def test_a_spooled_explanation_is_queued_once_workers_can_read_it(
    tmp_path: Path, two_models: Path, rows: list[Instance], valkey: Valkey, policy: str
) -> None:
    settings = {"inline_budget_seconds": 1e-9, "redis_url": valkey.url, "policy": policy}
    query = "?explain=true" if policy is POLICY else ""
    with served(tmp_path, two_models, **settings) as app, valkey.client() as redis:
        client = app.client()
        wait_until(lambda: not app.runtime.delivery.is_queue_away)
        lock = Lock(tmp_path)
        reply = client.predict(rows[:1], path=BEST_EFFORT, query=query)
        assert reply.headers["evidence"] == "spooled"
        if query:
            assert reply.json()["explanation"]["status"] == "pending"
            assert "location" in reply.headers
        assert jobs_in(redis) == {}
        lock.release()
        wait_until(lambda: len(jobs_in(redis)) == 1, seconds=30)
        lane = {"model": "breast_cancer", "role": "serving", "lane": "queued"}
        assert counted(app, "explain_explanations_wanted_total", **lane) == 1


@pytest.mark.drill
def test_what_is_spooled_when_the_service_ends_is_stored_by_the_next_one(
    tmp_path: Path, two_models: Path, rows: list[Instance]
) -> None:
    with served(tmp_path, two_models) as app:
        lock = Lock(tmp_path)
        first = asked(app.client(), rows[:1], "left-behind")
        assert first.headers["evidence"] == "spooled"
    lock.release()
    with served(tmp_path, two_models) as app:
        client = app.client()
        assert asked(client, rows[:1], "left-behind").body == first.body
        until_drained(client)
        assert client.get("/explanations/left-behind").status == 200
        assert asked(client, rows[:1], "left-behind").body == first.body
