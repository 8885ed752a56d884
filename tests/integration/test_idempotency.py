"""One request ID, one decision: replays, twins and conflicts."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import Gate
from live_app import LiveApp, live_app
from problems import assert_problem
from second_version import register_second_version
from servers import JSON, Client, Reply, wait_until

from service.registry import Registry

Instance = dict[str, Any]


def with_id(request_id: str) -> dict[str, str]:
    return {"X-Request-ID": request_id}


def business_metrics(client: Client) -> list[str]:
    """Every sample but those of HTTP itself."""
    lines = client.get("/metrics").body.decode().splitlines()
    return [line for line in lines if line.startswith("explain_")]


def assert_replay(reply: Reply, first: Reply) -> None:
    assert reply.status == 200
    assert reply.headers["idempotent-replay"] == "true"
    assert reply.headers["evidence"] == "stored"
    assert reply.headers["x-request-id"] == first.headers["x-request-id"]
    assert reply.body == first.body


def test_the_same_id_replays_the_same_bytes_and_moves_no_counter(
    live: LiveApp, rows: list[Instance]
) -> None:
    client = live.client()
    first = client.predict(rows[:2], headers=with_id("replayed-0001"))
    assert "idempotent-replay" not in first.headers
    before = business_metrics(client)
    assert_replay(client.predict(rows[:2], headers=with_id("replayed-0001")), first)
    assert business_metrics(client) == before


def test_a_new_request_does_move_counters(live: LiveApp, rows: list[Instance]) -> None:
    client = live.client()
    before = business_metrics(client)
    client.predict(rows[:2], headers=with_id("moves-counters-1"))
    assert business_metrics(client) != before


def test_the_order_of_keys_is_irrelevant(live: LiveApp, rows: list[Instance]) -> None:
    client = live.client()
    first = client.predict(rows[:1], headers=with_id("key-order-0001"))
    turned = dict(reversed(rows[0].items()))
    body = json.dumps({"subjects": [None], "instances": [turned]}, indent=3).encode()
    other = client.request("POST", "/predict?explain=true", body, {**JSON, **with_id("key-o-0002")})
    assert other.json()["explanation"]["values"] == first.json()["explanation"]["values"]
    assert_replay(client.predict([turned], headers=with_id("key-order-0001")), first)


def test_the_default_top_and_the_same_number_are_the_same_request(
    live: LiveApp, rows: list[Instance]
) -> None:
    client = live.client()
    first = client.predict(rows[:1], headers=with_id("default-top-1"))
    same = client.predict(rows[:1], query="?top=5&explain=true", headers=with_id("default-top-1"))
    assert_replay(same, first)


CHANGES: dict[str, Callable[[Client, list[Instance], dict[str, str]], Reply]] = {
    "rows": lambda c, rows, h: c.predict(rows[1:2], headers=h),
    "more rows": lambda c, rows, h: c.predict(rows[:2], headers=h),
    "explain": lambda c, rows, h: c.predict(rows[:1], query="", headers=h),
    "top": lambda c, rows, h: c.predict(rows[:1], query="?explain=true&top=4", headers=h),
    "subjects": lambda c, rows, h: c.request(
        "POST",
        "/predict?explain=true",
        json.dumps({"instances": rows[:1], "subjects": ["x"]}).encode(),
        {**JSON, **h},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_id_for_another_request_is_409(
    live: LiveApp, rows: list[Instance], change: str
) -> None:
    client, headers = live.client(), with_id(f"conflict.{change.replace(' ', '-')}")
    assert client.predict(rows[:1], headers=headers).status == 200
    reply = CHANGES[change](client, rows, headers)
    assert_problem(reply, 409, "request_id_conflict")
    assert "evidence" not in reply.headers


def test_the_same_id_for_another_model_is_409(
    live: LiveApp, rows: list[Instance], mixed_rows: list[Instance]
) -> None:
    client, headers = live.client(), with_id("two-models-01")
    assert client.predict(rows[:1], headers=headers).status == 200
    reply = client.predict(mixed_rows[:1], path="/models/mixed/predict", headers=headers)
    assert_problem(reply, 409, "request_id_conflict")


def test_another_principal_is_409_and_another_tenant_is_free(
    keyed: Any, rows: list[Instance]
) -> None:
    headers = with_id("principals-01")
    first = keyed.client("alice").predict(rows[:1], headers=headers)
    reply = keyed.client("bob").predict(rows[:1], headers=headers)
    assert_problem(reply, 409, "request_id_conflict")
    elsewhere = keyed.client("eve").predict(rows[:1], headers=headers)
    assert elsewhere.status == 200
    assert "idempotent-replay" not in elsewhere.headers
    assert_replay(keyed.client("alice").predict(rows[:1], headers=headers), first)


def test_five_at_once_give_one_record_and_five_equal_bodies(
    live: LiveApp, rows: list[Instance]
) -> None:
    barrier = threading.Barrier(5)

    def send(client: Client) -> Reply:
        barrier.wait()
        return client.predict(rows[:1], headers=with_id("five-at-once"))

    clients = [live.client() for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(send, clients))
    assert [reply.status for reply in replies] == [200] * 5
    assert len({reply.body for reply in replies}) == 1
    assert sum("idempotent-replay" in reply.headers for reply in replies) == 4
    items = clients[0].get("/explanations?limit=200").json()["items"]
    assert [item["request_id"] for item in items].count("five-at-once") == 1


def test_a_twin_in_flight_for_long_is_409_in_progress(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    gate = Gate()
    with live_app(tmp_path, registry=demo_registry, customise=gate.before_append) as app:
        with ThreadPoolExecutor(1) as pool:
            headers = with_id("slow-twin-001")
            slow = pool.submit(app.client().predict, rows[:1], headers=headers)
            wait_until(lambda: gate.waiting)
            started = time.monotonic()
            twin = app.client().predict(rows[:1], headers=headers)
            seconds = time.monotonic() - started
            gate.open()
            first = slow.result()
        assert_problem(twin, 409, "in_progress")
        assert int(twin.headers["retry-after"]) >= 1
        assert 1.9 < seconds < 3.0
        assert_replay(app.client().predict(rows[:1], headers=headers), first)


def test_a_twin_waits_for_the_first_answer(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    gate = Gate()
    with live_app(tmp_path, registry=demo_registry, customise=gate.before_append) as app:
        headers = with_id("short-twin-01")
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(app.client().predict, rows[:1], headers=headers)
            wait_until(lambda: gate.waiting)
            twin = pool.submit(app.client().predict, rows[:1], headers=headers)
            wait_until(lambda: app.runtime.metrics.http_active_now["POST"] == 2)
            gate.open()
            assert_replay(twin.result(), first.result())


def test_a_replay_survives_a_restart(data_dir: Path, rows: list[Instance]) -> None:
    headers = with_id("restarted-001")
    with live_app(data_dir) as app:
        first = app.client().predict(rows[:1], headers=headers)
    with live_app(data_dir) as app:
        assert_replay(app.client().predict(rows[:1], headers=headers), first)
        other = app.client().predict(rows[1:2], headers=headers)
        assert_problem(other, 409, "request_id_conflict")


def test_a_replay_survives_the_promotion_of_a_new_version(
    data_dir: Path, rows: list[Instance]
) -> None:
    registry = Registry(data_dir / "registry")
    headers = with_id("promoted-0001")
    with live_app(data_dir) as app:
        client = app.client()
        first = client.predict(rows[:1], headers=headers)
        register_second_version(registry)
        assert client.get("/models/breast_cancer").json()["serving_version"] == 1
        registry.promote("breast_cancer", 2)
        wait_until(lambda: client.get("/models/breast_cancer").json()["serving_version"] == 2)
        assert_replay(client.predict(rows[:1], headers=headers), first)
        fresh = client.predict(rows[:1], headers=with_id("promoted-0002")).json()
    assert fresh["model"]["version"] == 2
    assert fresh["predictions"] != first.json()["predictions"]


def test_a_copied_database_with_another_secret_does_not_replay(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        app.client().predict(rows[:1], headers=with_id("other-secret-1"))
    (data_dir / "secret").unlink()
    with live_app(data_dir) as app:
        reply = app.client().predict(rows[:1], headers=with_id("other-secret-1"))
    assert_problem(reply, 409, "request_id_conflict")
