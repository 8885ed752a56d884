"""Records whose explanation comes later: read, waited for, followed, made again, called off."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from later import NO_INLINE, Stream, Worker, jobs_in, read_events
from live_app import LiveApp, live_app
from problems import assert_problem
from second_version import register_second_version
from servers import JSON, Client, Reply, wait_until
from valkey_server import running_valkey

from service.registry import Registry

Instance = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """An application that queues every explanation, and its worker."""

    app: LiveApp
    worker: Worker
    has_queue: bool

    def pending(self, rows: list[Instance], request_id: str) -> str:
        reply = self.app.client().predict(rows, headers={"X-Request-ID": request_id})
        assert reply.json()["explanation"]["status"] == "pending"
        return f"/explanations/{request_id}"


@pytest.fixture(scope="module", params=["queue", "queue away"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, demo_registry: Path
) -> Iterator[Site]:
    data_dir = tmp_path_factory.mktemp("later")
    if request.param == "queue away":
        settings = {"redis_url": f"unix://{data_dir / 'nobody'}", **NO_INLINE}
        with live_app(data_dir, registry=demo_registry, **settings) as app:
            yield Site(app, Worker(app), has_queue=False)
        return
    with running_valkey() as valkey:
        settings = {"redis_url": valkey.url, **NO_INLINE}
        with valkey.client() as redis, live_app(data_dir, registry=demo_registry, **settings) as a:
            queue = a.runtime.delivery.queue
            assert queue is not None
            wait_until(queue.notices._subscribed.is_set)
            yield Site(a, Worker(a, redis), has_queue=True)


def post(client: Client, path: str, body: Any = None, **headers: str) -> Reply:
    content = b"" if body is None else json.dumps(body).encode()
    return client.request("POST", path, content, {**JSON, **headers})


def later(call: Any, *arguments: Any) -> threading.Thread:
    """Do it once somebody waits."""
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    return thread


def test_a_record_is_pending_and_then_final_for_good(site: Site, rows: list[Instance]) -> None:
    client, path = site.app.client(), site.pending(rows[:2], "pending-0001")
    for headers in ({}, {"If-None-Match": "*"}):
        pending = client.get(path, **headers)
        assert pending.status == 200
        assert pending.json()["explanation"]["status"] == "pending"
        assert int(pending.headers["retry-after"]) >= 1
        assert pending.headers["cache-control"] == "no-store"
        assert "etag" not in pending.headers
    site.worker.complete("pending-0001")
    final, again = client.get(path), client.get(path)
    assert final.body == again.body
    assert final.headers["etag"] == again.headers["etag"]
    assert final.headers["vary"] == "Accept, Authorization"
    assert "retry-after" not in final.headers
    document = final.json()
    assert set(document) == set(pending.json())
    assert document["explanation"]["status"] == "complete"
    assert len(document["explanation"]["values"]) == 2
    assert document["provenance"]["worker"] == "w1"
    assert document["instances"] == pending.json()["instances"]
    head = client.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == final.headers["etag"]
    (item,) = [
        item
        for item in client.get("/explanations?status=complete").json()["items"]
        if item["request_id"] == "pending-0001"
    ]
    assert item["lane"] == "queued"


def test_a_read_waits_until_the_record_is_final(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "awaited-0001")
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        reading = pool.submit(site.app.client().get, path, Prefer="wait=20")
        wait_until(lambda: site.app.runtime.metrics.http_active_now["GET"] == 1)
        site.worker.complete("awaited-0001")
        reply = reading.result()
    assert time.monotonic() - started < 4
    assert reply.json()["explanation"]["status"] == "complete"
    assert reply.headers["preference-applied"] == "wait=20"
    assert "etag" in reply.headers
    assert "preference-applied" not in site.app.client().get(path, Prefer="wait=20").headers


def test_a_wait_ends_with_a_pending_record(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "too-slow-001")
    started = time.monotonic()
    reply = site.app.client().get(path, Prefer="wait=1")
    assert 0.9 < time.monotonic() - started < 8
    assert reply.json()["explanation"]["status"] == "pending"
    assert reply.headers["preference-applied"] == "wait=1"
    assert "retry-after" in reply.headers
    assert "preference-applied" not in site.app.client().get(path).headers


def test_the_events_end_with_the_explanation(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "followed-001")
    with Stream(site.app, path) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        site.worker.announce("progress", "followed-001", {"done": 1, "of": 3})
        site.worker.complete("followed-001")
        events = read_events(stream.response)
    explanation = site.app.client().get(path).json()["explanation"]
    progress = [("progress", {"done": 1, "of": 3})] if site.has_queue else []
    assert events == [*progress, ("complete", explanation)]


def test_an_announcement_ahead_of_the_store_is_no_end(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "too-early-01")
    with Stream(site.app, path) as stream:
        site.worker.announce("final", "too-early-01", {})
        site.worker.announce("progress", "too-early-01", {"done": 1})
        site.worker.complete("too-early-01")
        names = [name for name, _ in read_events(stream.response)]
    # A follower who looks late finds it complete already.
    assert names in (["progress", "complete"], ["complete"])


def test_a_finished_record_sends_its_last_event_at_once(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "finished-001")
    site.worker.complete("finished-001")
    started = time.monotonic()
    with Stream(site.app, path) as stream:
        ((name, explanation),) = read_events(stream.response)
    assert time.monotonic() - started < 4
    assert (name, explanation["status"]) == ("complete", "complete")
    unasked = site.app.client().predict(rows[:1], query="").headers["x-request-id"]
    with Stream(site.app, f"/explanations/{unasked}") as stream:
        assert read_events(stream.response) == [("skipped", None)]


def test_the_head_of_a_stream_does_not_wait(site: Site, rows: list[Instance]) -> None:
    path = site.pending(rows[:1], "head-only-01")
    started = time.monotonic()
    reply = site.app.client().request("HEAD", path + "/events")
    assert (reply.status, reply.body) == (200, b"")
    assert time.monotonic() - started < 4


def test_many_followers_hold_no_thread_and_leave_nothing_behind(
    site: Site, rows: list[Instance]
) -> None:
    runtime, path = site.app.runtime, site.pending(rows[:1], "crowded-0001")
    threads = threading.active_count()
    streams = [Stream(site.app, path) for _ in range(100)]
    started = time.monotonic()
    assert site.app.client().predict(rows[:1]).status == 200
    assert time.monotonic() - started < 1
    assert threading.active_count() <= threads + 4  # the evidence log's readers
    for stream in streams[:50]:
        stream.__exit__()
    wait_until(lambda: runtime.metrics.http_active_now["GET"] == 50)
    site.worker.complete("crowded-0001")
    for stream in streams[50:]:
        with stream:
            assert [name for name, _ in read_events(stream.response)] == ["complete"]
    wait_until(lambda: runtime.metrics.http_active_now["GET"] == 0)
    if runtime.delivery.queue is not None:
        assert not runtime.delivery.queue.notices._waiting


def test_more_followers_than_a_process_holds_are_refused(
    site: Site, rows: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.watching.MOST_FOLLOWED", 2)
    path = site.pending(rows[:1], "crowd-cap-01")
    with Stream(site.app, path) as first, Stream(site.app, path) as second:
        for stream in (first, second):
            assert stream.response.readline() == b"retry: 2000\n"
        wait_until(lambda: site.app.runtime.watch.is_crowded)
        refused = site.app.client().get(path + "/events")
        assert_problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
    site.worker.complete("crowd-cap-01")
    wait_until(lambda: site.app.runtime.watch.followed == 0)


def test_a_prediction_is_explained_again_as_a_record_of_its_own(
    site: Site, rows: list[Instance]
) -> None:
    client, path = site.app.client(), site.pending(rows[:2], "parent-00001")
    reply = post(client, "/explanations", {"request_id": "parent-00001"})
    made = reply.headers["x-request-id"]
    assert reply.status == 202
    assert reply.headers["location"] == f"/explanations/{made}"
    assert reply.json() == {
        "request_id": made,
        "parent_request_id": "parent-00001",
        "status": "pending",
        "links": {"self": f"/explanations/{made}"},
    }
    related = client.get(path + "/related").json()
    assert [item["request_id"] for item in related["items"]] == [made]
    assert client.get(f"/explanations/{made}/related").json()["items"] == []
    for request_id in (made, "parent-00001"):
        site.worker.complete(request_id)
    parent, child = client.get(path).json(), client.get(f"/explanations/{made}").json()
    assert child["parent_request_id"] == "parent-00001"
    assert "parent_request_id" not in parent
    for same in ("model", "instances", "predictions"):
        assert child[same] == parent[same]
    assert child["explanation"]["status"] == "complete"
    assert child["explanation"]["values"] == parent["explanation"]["values"]
    assert child["explanation"]["links"] == {"self": f"/explanations/{made}"}


def test_the_method_asked_for_is_recorded_and_queued(site: Site, rows: list[Instance]) -> None:
    client = site.app.client()
    site.pending(rows[:1], "by-method-01")
    again = {"request_id": "by-method-01", "method": "permutation"}
    headers = {"X-Request-ID": "by-method-02", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    assert post(client, "/explanations", again, **headers).status == 202
    record = site.worker.record("by-method-02")
    assert json.loads(record.decision.part("ask"))["method"] == "permutation"
    assert client.get("/explanations/by-method-02").json()["explanation"]["method"] == "permutation"
    if site.worker.redis is not None:
        jobs = jobs_in(site.worker.redis)
        methods = [jobs[name]["method"] for name in ("by-method-01", "by-method-02")]
        assert methods == [None, "permutation"]
        assert jobs["by-method-02"]["trace_id"] == "ab" * 16


def test_what_was_queued_before_a_promotion_is_explained_by_the_version_that_answered(
    data_dir: Path, rows: list[Instance]
) -> None:
    registry = Registry(data_dir / "registry")
    with live_app(data_dir, redis_url=f"unix://{data_dir / 'nobody'}", **NO_INLINE) as app:
        client = app.client()
        answered = client.predict(rows[:1], headers={"X-Request-ID": "swapped-01"}).json()
        register_second_version(registry)
        registry.promote("breast_cancer", 2)
        wait_until(lambda: client.get("/models/breast_cancer").json()["serving_version"] == 2)
        Worker(app).complete("swapped-01")
        record = client.get("/explanations/swapped-01").json()
        other = client.predict(rows[:1]).json()["predictions"]
    assert record["explanation"]["status"] == "complete"
    assert record["model"] == answered["model"]
    assert record["predictions"] == answered["predictions"] != other
    first = registry.load("breast_cancer", 1)
    assert first.explainer is not None
    body = json.dumps({"instances": rows[:1]}).encode()
    codes = np.array(first.codec.decode(body, max_instances=1).codes, np.float64)
    assert record["explanation"]["values"] == first.explainer.explain(codes).values.tolist()


def test_the_same_id_explains_once(site: Site, rows: list[Instance]) -> None:
    client = site.app.client()
    site.pending(rows[:1], "again-00001")
    again, headers = {"request_id": "again-00001"}, {"X-Request-ID": "again-00002"}
    first = post(client, "/explanations", again, **headers)
    site.worker.complete("again-00002")
    metrics = [
        line for line in client.get("/metrics").body.splitlines() if line.startswith(b"explain_exp")
    ]
    replay = post(client, "/explanations", again, **headers)
    assert (replay.status, replay.body) == (202, first.body)
    assert replay.headers["idempotent-replay"] == "true"
    assert "idempotent-replay" not in first.headers
    assert metrics == [
        line for line in client.get("/metrics").body.splitlines() if line.startswith(b"explain_exp")
    ]
    other = {**again, "method": "kernel"}
    assert_problem(post(client, "/explanations", other, **headers), 409, "request_id_conflict")
    taken = {"X-Request-ID": "again-00001"}
    assert_problem(post(client, "/explanations", again, **taken), 409, "request_id_conflict")


BAD_BODIES = [
    (b"[]", 422, ""),
    (b"{", 400, None),
    (b'{"request_id":"bad-body-01","request_id":"bad-body-02"}', 400, None),
    (b"{}", 422, "/request_id"),
    (b'{"request_id":7}', 422, "/request_id"),
    (b'{"request_id":"short"}', 422, "/request_id"),
    (b'{"request_id":"bad-body-01","method":"PLANTED-7f3a"}', 422, "/method"),
    (b'{"request_id":"bad-body-01","PLANTED-7f3a":1}', 422, ""),
]


@pytest.mark.parametrize(("body", "status", "pointer"), BAD_BODIES)
def test_what_asks_for_nothing_sensible_is_refused(
    site: Site, body: bytes, status: int, pointer: str | None
) -> None:
    reply = site.app.client().request("POST", "/explanations", body, JSON)
    problem = assert_problem(reply, status)
    assert [error["pointer"] for error in problem["errors"]] == ([] if status == 400 else [pointer])


def test_naming_the_versions_own_method_explains_by_it(site: Site, rows: list[Instance]) -> None:
    client = site.app.client()
    site.pending(rows[:1], "own-method-1")
    body = {"request_id": "own-method-1", "method": "tree_interventional"}
    assert post(client, "/explanations", body, **{"X-Request-ID": "own-method-2"}).status == 202
    for request_id in ("own-method-1", "own-method-2"):
        site.worker.complete(request_id)
    first, again = (
        client.get(f"/explanations/own-method-{number}").json()["explanation"] for number in (1, 2)
    )
    assert again["status"] == "complete"
    for name in ("method", "engine", "exact", "values"):
        assert again[name] == first[name], name


@pytest.mark.parametrize("method", ["exact", "integrated_gradients", "linear"])
def test_a_method_that_cannot_explain_the_model_is_refused_with_the_reason(
    site: Site, rows: list[Instance], method: str
) -> None:
    site.pending(rows[:1], f"no-{method}")
    body = {"request_id": f"no-{method}", "method": method}
    problem = assert_problem(post(site.app.client(), "/explanations", body), 422)
    (error,) = problem["errors"]
    assert (error["pointer"], error["code"]) == ("/method", "method_not_possible")
    said = {"exact": "30", "integrated_gradients": "xgboost", "linear": "tree_interventional"}
    assert said[method] in error["detail"]


def test_what_is_called_off_ends_as_failed_and_wakes_who_waits(
    site: Site, rows: list[Instance]
) -> None:
    client, path = site.app.client(), site.pending(rows[:1], "called-off-1")
    with Stream(site.app, path) as stream:
        started = time.monotonic()
        reply = post(client, path + "/cancel")
        assert [name for name, _ in read_events(stream.response)] == ["failed"]
        assert time.monotonic() - started < 2
    assert (reply.status, reply.json()["status"]) == (202, "failed")
    explanation = client.get(path).json()["explanation"]
    assert (explanation["status"], explanation["reason"]) == ("failed", "cancelled by local")
    assert explanation["values"] is None
    assert_problem(post(client, path + "/cancel"), 409, "already_final")
    assert not site.worker.complete("called-off-1").stored
    labels = 'lane="queued",model="breast_cancer",outcome="rejected",role="serving"'
    counter = f"explain_explanations_total{{{labels}}} 1.0"
    assert counter in client.get("/metrics").body.decode()


def test_what_is_final_cannot_be_called_off(site: Site, rows: list[Instance]) -> None:
    client, path = site.app.client(), site.pending(rows[:1], "final-000001")
    site.worker.complete("final-000001")
    assert_problem(post(client, path + "/cancel"), 409, "already_final")
    assert client.get(path).json()["explanation"]["status"] == "complete"


def test_unknown_requests_are_404_everywhere(site: Site) -> None:
    client = site.app.client()
    for path in ("/related", "/events"):
        assert_problem(client.get("/explanations/never-made-01" + path), 404, "not_found")
    assert_problem(post(client, "/explanations/never-made-01/cancel"), 404, "not_found")
    body = {"request_id": "never-made-01"}
    assert_problem(post(client, "/explanations", body), 404, "not_found")


def test_another_method_is_405_and_told_all_that_are_allowed(site: Site) -> None:
    reply = site.app.client().request("DELETE", "/explanations")
    assert_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, POST"
