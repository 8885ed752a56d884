"""The whole service as its users meet it: processes, HTTP, signals."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import WITH_WORKER, explaind, running_server, start_server, wait_until
from tables import breast_cancer, instances_of


def test_explained_prediction_is_stored_and_fetched_again_after_a_restart(data_dir: Path) -> None:
    instances = instances_of(breast_cancer()[0].iloc[:3])
    with running_server(data_dir, env=WITH_WORKER) as server:
        answer = server.client().predict(instances)
        assert answer.status == 200
        assert answer.headers["evidence"] == "stored"
        explanation = answer.json()["explanation"]
        assert explanation["status"] == "complete"
        for values, base, output in zip(
            explanation["values"], explanation["base_values"], explanation["outputs"], strict=True
        ):
            assert abs(sum(v[0] for v in values) + base[0] - output[0]) < 1e-4
        first = server.client().get(explanation["links"]["self"])
    with running_server(data_dir) as server:
        again = server.client().get(explanation["links"]["self"])
    assert again.status == 200
    assert again.body == first.body
    assert again.headers["etag"] == first.headers["etag"]
    assert again.json()["explanation"] == explanation
    assert again.json()["instances"] == instances


@pytest.mark.drill
def test_who_follows_or_awaits_an_explanation_does_not_hold_up_the_end(data_dir: Path) -> None:
    settings = {"EXPLAIND_INLINE_BUDGET_SECONDS": "1e-9"}
    row = instances_of(breast_cancer()[0].iloc[:1])
    with running_server(data_dir, env=settings) as server, ThreadPoolExecutor(2) as pool:
        client = server.client()
        explanation = client.predict(row).json()["explanation"]
        assert explanation["status"] == "pending"
        path = explanation["links"]["self"]
        following = pool.submit(server.client().get, path + "/events")
        awaiting = pool.submit(server.client().get, path, Prefer="wait=30")
        active = 'http_server_active_requests{http_request_method="GET"} 3.0'
        wait_until(lambda: active in client.get("/metrics").body.decode())
        assert server.stop(12) == 0
        assert following.result().body.startswith(b"retry: ")
        assert awaiting.result().json()["explanation"]["status"] == "pending"


def test_a_draining_service_is_not_ready_and_answers_on_until_asked_again(data_dir: Path) -> None:
    row = instances_of(breast_cancer()[0].iloc[:1])
    with running_server(data_dir, env={"EXPLAIND_DRAIN_SECONDS": "60"}) as server:
        kept = server.client()
        assert "connection" not in kept.predict(row).headers
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.client().get("/readyz").status == 503)
        assert server.client().get("/readyz").json()["reason"] == "stopping"
        assert server.client().get("/livez").status == 200
        for client in (kept, server.client()):
            answer = client.predict(row)
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
        assert server.stop(12) == 0


@pytest.mark.drill
def test_a_draining_service_ends_by_itself_and_one_that_is_interrupted_at_once(
    data_dir: Path,
) -> None:
    assert start_server(data_dir, env={"EXPLAIND_DRAIN_SECONDS": "0.5"}).stop(12) == 0
    interrupted = start_server(data_dir, env={"EXPLAIND_DRAIN_SECONDS": "60"})
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(12) == 0


def test_a_taken_port_is_one_clear_line_and_exit_code_5(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = explaind("serve", "--port", str(port), "--data-dir", str(data_dir))
    assert refused.returncode == 5
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_foreign_address_without_keys_is_refused(data_dir: Path) -> None:
    refused = explaind("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(data_dir))
    assert refused.returncode == 2
    assert "API keys" in refused.stderr


def test_demo_shows_an_explained_prediction_and_stops(tmp_path: Path) -> None:
    demo = explaind("demo", "--once", "--port", "0", "--data-dir", str(tmp_path))
    assert demo.returncode == 0, demo.stderr
    assert "prediction  benign" in demo.stdout
    assert "fetch it again:" in demo.stdout
