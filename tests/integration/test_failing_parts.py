"""Parts fail: nothing is answered that is not stored, nothing inner is said, and it recovers."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from faulty_parts import (
    BrokenLog,
    BuggyLog,
    break_store,
    lose_later_events,
    put_bug_in_store,
    with_fragile_model,
)
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import Reply

from service.server import _Server, uvicorn_config

Instance = dict[str, Any]


def assert_store_away(reply: Reply) -> None:
    assert_problem(reply, 503, "store_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    assert "evidence" not in reply.headers
    assert b"secret" not in reply.body


def sample(app: LiveApp, name: str, **labels: str) -> float | None:
    return app.runtime.metrics.registry.get_sample_value(name, labels)


def test_a_store_that_is_away_is_503_until_it_is_back(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry, customise=break_store) as app:
        client = app.client()
        assert_store_away(client.predict(rows[:1]))
        assert_store_away(client.predict(rows[:1], query=""))
        assert_store_away(client.predict(rows[:1], headers={"X-Request-ID": "store-away-1"}))
        assert_store_away(client.get("/explanations/store-away-1"))
        assert_store_away(client.get("/explanations"))
        assert client.get("/readyz").status == 503
        assert client.get("/livez").status == 200
        model = "breast_cancer"
        assert sample(app, "explain_predictions_total", model=model, outcome="error") == 3
        assert sample(app, "explain_predictions_total", model=model, outcome="ok") == 0
        lane = {"model": model, "role": "serving", "lane": "inline"}
        assert sample(app, "explain_explanations_wanted_total", **lane) == 2
        assert sample(app, "explain_explanations_total", **lane, outcome="failed") == 2
        assert sample(app, "explain_explanations_total", **lane, outcome="served") == 0
        failed = {"model": model, "stage": "store", "type": "StoreUnavailableError"}
        assert sample(app, "explain_errors_total", **failed) == 3
        assert sample(app, "explain_audit_reads_total", backend="sql", outcome="error") == 2
        assert not app.runtime.predicting._in_flight

        cast("BrokenLog", app.runtime.evidence).is_away = False
        assert client.get("/readyz").status == 200
        again = client.predict(rows[:1], headers={"X-Request-ID": "store-away-1"})
        assert again.status == 200
        assert again.headers["evidence"] == "stored"


def test_what_policy_wants_explained_and_is_not_stored_is_a_failed_explanation(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[default.rules]]\nname = "all"\nexplain = "always"\n')
    with live_app(
        tmp_path, registry=demo_registry, customise=lose_later_events, policy_file=policy
    ) as app:
        assert app.client().predict(rows[:1], query="").status == 200
        model = "breast_cancer"
        assert sample(app, "explain_predictions_total", model=model, outcome="ok") == 1
        lane = {"model": model, "role": "serving", "lane": "queued"}
        assert sample(app, "explain_explanations_wanted_total", **lane) == 1
        assert sample(app, "explain_explanations_total", **lane, outcome="failed") == 1
        failed = {"model": model, "stage": "store", "type": "StoreUnavailableError"}
        assert sample(app, "explain_errors_total", **failed) == 1


def test_an_unforeseen_error_is_a_problem_that_says_nothing(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry, customise=put_bug_in_store) as app:
        client = app.client()
        headers = {"X-Request-ID": "unforeseen-01"}
        assert_problem(client.predict(rows[:1], headers=headers), 500, "internal")
        assert_problem(client.get("/explanations/unforeseen-01"), 500, "internal")
        failed = {"model": "", "stage": "predict", "type": "ZeroDivisionError"}
        assert sample(app, "explain_errors_total", **failed) == 2
        assert not app.runtime.predicting._in_flight

        cast("BuggyLog", app.runtime.evidence).is_away = False
        assert client.predict(rows[:1], headers=headers).status == 200


def test_a_row_that_breaks_the_model_fails_its_own_request_only(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry, customise=with_fragile_model) as app:
        bad = [{**rows[0], "mean radius": 13.0}]
        clients = [app.client() for _ in range(8)]
        barrier = threading.Barrier(8)

        def send(number: int) -> Reply:
            barrier.wait()
            return clients[number].predict(bad if number == 3 else rows[:1])

        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(send, range(8)))
        assert_problem(replies.pop(3), 500, "prediction_failed")
        assert [reply.status for reply in replies] == [200] * 7
        model = "breast_cancer"
        assert sample(app, "explain_predictions_total", model=model, outcome="error") == 1
        lane = {"model": model, "role": "serving", "lane": "inline"}
        assert sample(app, "explain_explanations_wanted_total", **lane) == 8
        assert sample(app, "explain_explanations_total", **lane, outcome="failed") == 1
        assert sample(app, "explain_explanations_total", **lane, outcome="served") == 7


def test_a_signal_makes_the_service_unready_while_it_still_answers(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        asgi = FastAPI()
        asgi.state.runtime = app.runtime
        server = _Server(uvicorn_config(asgi))
        assert app.client().get("/readyz").status == 200
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit
        ready = app.client().get("/readyz")
        assert (ready.status, ready.json()["reason"]) == (503, "stopping")
        assert app.client().get("/livez").status == 200
        assert app.client().predict(rows[:1]).status == 200
