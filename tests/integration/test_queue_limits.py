"""A queue that is full, away or late: what is answered, counted and made up for."""

import json
import time
from pathlib import Path
from typing import Any

from later import NO_INLINE, Worker, jobs_in
from live_app import live_app
from problems import assert_problem
from servers import JSON, wait_until
from valkey_server import running_valkey, stopped_valkey

Instance = dict[str, Any]


def test_a_full_queue_takes_no_more(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with running_valkey() as valkey:
        settings = {"redis_url": valkey.url, "max_queue": 1, **NO_INLINE}
        with live_app(tmp_path, registry=demo_registry, **settings) as app:
            client = app.client()
            assert client.predict(rows[:1], headers={"X-Request-ID": "fills-it-01"}).status == 200
            wait_until(lambda: app.runtime.delivery.is_full)
            body = {"request_id": "fills-it-01"}
            reply = client.request(
                "POST", "/explanations", json.dumps(body), {**JSON, "X-Request-ID": "shed-000001"}
            )
            assert_problem(reply, 503, "queue_full")
            assert int(reply.headers["retry-after"]) >= 1
            assert client.get("/explanations/shed-000001").status == 404
            metrics = client.get("/metrics").body.decode()
            labels = 'lane="queued",model="breast_cancer",outcome="rejected",role="serving"'
            assert f"explain_explanations_total{{{labels}}} 1.0" in metrics
            assert 'wanted_total{lane="queued",model="breast_cancer",role="serving"} 2.0' in metrics


def test_what_was_asked_while_the_queue_was_away_is_queued_once_it_is_there(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with stopped_valkey() as valkey:
        settings = {"redis_url": valkey.url, **NO_INLINE, "wait_seconds": 4}
        with live_app(tmp_path, registry=demo_registry, **settings) as app:
            started = time.monotonic()
            reply = app.client().predict(rows[:1], headers={"X-Request-ID": "outboxed-001"})
            assert reply.json()["explanation"]["status"] == "pending"
            assert time.monotonic() - started < 2  # nothing can come, so it is not waited for
            valkey.start()
            with valkey.client() as redis:
                wait_until(lambda: "outboxed-001" in jobs_in(redis), seconds=15)


def test_a_late_explanation_is_counted_and_may_still_come(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    settings = {"explanation_deadline_seconds": 0.5, **NO_INLINE}
    labels = 'lane="queued",model="breast_cancer",outcome="{}",role="serving"'
    with live_app(tmp_path, registry=demo_registry, **settings) as app:
        client = app.client()
        client.predict(rows[:1], headers={"X-Request-ID": "too-late-001"})
        late = f"explain_explanations_total{{{labels.format('timeout')}}} 1.0"
        wait_until(lambda: late in client.get("/metrics").body.decode(), seconds=15)
        outcome = Worker(app).complete("too-late-001")
        assert (outcome.stored, outcome.counted) == (True, False)
        explanation = client.get("/explanations/too-late-001").json()["explanation"]
        assert explanation["status"] == "complete"
