"""The process ends under load: what was acknowledged is there afterwards, without repair."""

import http.client
import os
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers import (
    Client,
    Reply,
    Server,
    assert_becomes_ready,
    running_server,
    start_server,
    wait_until,
)
from tables import breast_cancer, instances_of

from service.settings import Settings
from service.storing import evidence_store

Instance = dict[str, Any]

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
CLIENTS = 8


@dataclass
class Load:
    """Clients that send until their connection breaks; what they got back whole is kept."""

    server: Server
    rows: list[Instance]
    replies: dict[str, Reply] = field(default_factory=dict)
    row_of: dict[str, int] = field(default_factory=dict)
    broken: threading.Event = field(default_factory=threading.Event)

    def send_until_broken(self, number: int) -> None:
        client = Client(self.server.url)
        try:
            while True:
                self._send(client, (number * 7 + len(self.replies)) % len(self.rows))
        except (OSError, http.client.HTTPException):
            self.broken.set()
        finally:
            client.close()

    def _send(self, client: Client, row: int) -> None:
        request_id = f"load-{uuid.uuid4()}"
        headers = {"X-Request-ID": request_id}
        reply = client.predict([self.rows[row]], headers=headers)
        self.row_of[request_id] = row
        self.replies[request_id] = reply


def rows_of_the_model() -> list[Instance]:
    return instances_of(breast_cancer()[0].iloc[:50])


def load_until(server: Server, end: Any, *, replies: int) -> Load:
    """Run the load; once there are that many replies, end the server under it."""
    load = Load(server, rows_of_the_model())
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(CLIENTS):
            pool.submit(load.send_until_broken, number)
        wait_until(lambda: len(load.replies) >= replies or load.broken.is_set(), seconds=60)
        end()
    assert len(load.replies) >= replies
    assert {reply.status for reply in load.replies.values()} == {200}
    return load


def assert_nothing_lost(server: Server, load: Load) -> None:
    client = server.client()
    assert_becomes_ready(client)
    for request_id, reply in load.replies.items():
        record = client.get(f"/explanations/{request_id}")
        assert record.status == 200
        assert record.json()["explanation"] == reply.json()["explanation"]
        row = load.rows[load.row_of[request_id]]
        replay = client.predict([row], headers={"X-Request-ID": request_id})
        assert replay.headers["idempotent-replay"] == "true"
        assert replay.body == reply.body


def kill_repeatedly(data_dir: Path, *, times: int) -> None:
    server = start_server(data_dir)
    try:
        for turn in range(times):
            load = load_until(server, server.kill, replies=100 + 37 * turn % 200)
            server.close()
            server = start_server(data_dir)
            assert_nothing_lost(server, load)
    finally:
        server.close()


@pytest.mark.small_version_of("test_many_kills_under_load_lose_nothing_acknowledged")
def test_a_kill_under_load_loses_nothing_acknowledged(data_dir: Path) -> None:
    kill_repeatedly(data_dir, times=1)


@pytest.mark.drill
def test_many_kills_under_load_lose_nothing_acknowledged(data_dir: Path) -> None:
    kill_repeatedly(data_dir, times=max(2, int(10 * SCALE)))


def test_sigterm_under_load_finishes_what_was_begun_and_ends_with_0(data_dir: Path) -> None:
    with running_server(data_dir) as server:
        load = load_until(server, lambda: server.process.send_signal(signal.SIGTERM), replies=200)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log.read_text()
    with evidence_store(Settings.load({}, data_dir=data_dir)) as store:
        for request_id, reply in load.replies.items():
            stored = store.get("default", request_id)
            assert stored is not None
            assert stored.part("answer") == reply.body


@pytest.mark.drill
def test_sigterm_does_not_wait_for_a_request_that_never_ends(data_dir: Path) -> None:
    with running_server(data_dir) as server:
        client = server.client()
        client.connection.putrequest("POST", "/predict")
        client.connection.putheader("Content-Type", "application/json")
        client.connection.putheader("Content-Length", "100")
        client.connection.endheaders(b"{")
        assert server.client().get("/livez").status == 200
        assert server.stop(timeout_seconds=5.0) == 0
