"""A service and a worker beside it, over a real queue: what is too heavy for the answer."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import COMMAND, JSON, Client, explaind, running_server, wait_until
from tables import breast_cancer, instances_of
from valkey_server import Valkey

PENDING = "?explain=true"


@pytest.fixture
def settings(valkey: Valkey, data_dir: Path) -> dict[str, str]:
    """Every explanation costs more than this budget."""
    return {
        "EXPLAIND_REDIS_URL": valkey.url,
        "EXPLAIND_DATA_DIR": str(data_dir),
        "EXPLAIND_INLINE_BUDGET_SECONDS": "1e-9",
        "EXPLAIND_WAIT_SECONDS": "0",
    }


@contextmanager
def running_worker(settings: dict[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    log = Path(settings["EXPLAIND_DATA_DIR"]) / "worker.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*COMMAND, "worker", *options], stderr=output, env={**os.environ, **settings}
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()


def asked(client: Client, name: str, row: dict[str, Any], query: str = PENDING) -> dict[str, Any]:
    reply = client.predict([row], query=query, headers={**JSON, "X-Request-ID": name})
    assert reply.status in {200, 202}, reply.body
    found: dict[str, Any] = reply.json()["explanation"]
    return found


def status_of(client: Client, name: str) -> str:
    found: str = client.get(f"/explanations/{name}").json()["explanation"]["status"]
    return found


def test_a_queued_explanation_is_the_inline_one_made_by_a_worker(
    data_dir: Path, settings: dict[str, str]
) -> None:
    rows = instances_of(breast_cancer()[0].iloc[:8])
    with running_server(data_dir) as server:
        client = server.client()
        inline = [asked(client, f"inline-{n}", row) for n, row in enumerate(rows)]
    with running_server(data_dir, env=settings) as server:
        client = server.client()
        for n, row in enumerate(rows):
            assert asked(client, f"queued-{n}", row)["status"] == "pending"
        with running_worker(settings):
            for n, wanted in enumerate(inline):
                name = f"queued-{n}"
                wait_until(lambda name=name: status_of(client, name) == "complete", seconds=30)
                found = client.get(f"/explanations/{name}").json()["explanation"]
                assert found["values"] == wanted["values"]
                assert found["base_values"] == wanted["base_values"]


@pytest.mark.drill
def test_a_worker_counts_what_it_stored(
    data_dir: Path, settings: dict[str, str], unused_tcp_port: int
) -> None:
    row = instances_of(breast_cancer()[0].iloc[:1])[0]
    with (
        running_server(data_dir, env=settings) as server,
        running_worker(settings, "--metrics-port", str(unused_tcp_port)),
    ):
        client = server.client()
        asked(client, "request-1", row)
        wait_until(lambda: status_of(client, "request-1") == "complete", seconds=30)
        page = Client(f"http://127.0.0.1:{unused_tcp_port}")
        series = 'explain_explanations_total{lane="queued",model="breast_cancer",outcome="stored"'
        wait_until(lambda: f'{series},role="serving"}} 1.0' in text(page))
        assert 'explain_jobs_total{outcome="finished",queue="high"} 1.0' in text(page)
        assert "explain_worker_last_heartbeat_timestamp_seconds" in text(page)
        page.close()


def text(page: Client) -> str:
    return page.get("/metrics").body.decode()


@pytest.mark.drill
def test_a_record_called_off_is_not_computed(data_dir: Path, settings: dict[str, str]) -> None:
    row = instances_of(breast_cancer()[0].iloc[:1])[0]
    with running_server(data_dir, env=settings) as server:
        client = server.client()
        asked(client, "called-off", row)
        assert client.request("POST", "/explanations/called-off/cancel").status == 202
        asked(client, "carried-on", row)
        with running_worker(settings):
            wait_until(lambda: status_of(client, "carried-on") == "complete", seconds=30)
        assert status_of(client, "called-off") == "failed"


def test_a_worker_without_a_queue_says_what_to_do(data_dir: Path) -> None:
    done = explaind("worker", "--data-dir", str(data_dir))
    assert done.returncode == 2
    assert "EXPLAIND_REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr
