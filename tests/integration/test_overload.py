"""More requests at a time than the service admits."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import Gate
from live_app import LiveApp, live_app, read_reply
from problems import assert_problem
from raw_requests import Impatient
from servers import JSON, Reply, wait_until

from service.protocol import CLOSE, GuardedProtocol

Instance = dict[str, Any]
MOST = 2


@contextmanager
def full_app(
    folder: Path,
    registry: Path,
    rows: list[Instance],
    protocol: type[GuardedProtocol] = GuardedProtocol,
) -> Iterator[tuple[LiveApp, Gate, list[Future[Reply]]]]:
    """A service whose places are all taken by requests that wait for the store."""
    gate = Gate()
    options: dict[str, Any] = {"registry": registry, "max_at_once": MOST, "protocol": protocol}
    with (
        live_app(folder, customise=gate.before_append, **options) as app,
        ThreadPoolExecutor(MOST) as pool,
    ):
        sent = [pool.submit(app.client().predict, rows[:1]) for _ in range(MOST)]
        wait_until(lambda: app.runtime.metrics.http_active_now["POST"] == MOST)
        wait_until(lambda: app.runtime.delivery.admission.resting == 0)  # their bodies are here
        try:
            yield app, gate, sent
        finally:
            gate.open()


@pytest.fixture
def full(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> Iterator[tuple[LiveApp, Gate, list[Future[Reply]]]]:
    with full_app(tmp_path, demo_registry, rows) as found:
        yield found


Full = tuple[LiveApp, Gate, list[Future[Reply]]]


def assert_refused(reply: Reply) -> None:
    assert_problem(reply, 503, "overloaded")
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_one_too_many_is_refused_and_its_connection_stays_usable(
    full: Full, rows: list[Instance]
) -> None:
    app, gate, sent = full
    client = app.client()
    for _ in range(2):
        assert_refused(client.predict(rows[:1]))
    connection = client.connection.sock
    assert_refused(client.get("/explanations"))
    gate.open()
    assert [one.result(30).status for one in sent] == [200] * MOST
    # Whoever has been answered gives its place back in the next turn of the server's loop.
    wait_until(lambda: client.predict(rows[:1]).status == 200)
    assert client.connection.sock is connection
    assert app.runtime.delivery.admission.resting == 0


def test_probes_and_metrics_are_answered_all_the_same(full: Full, rows: list[Instance]) -> None:
    app, _, _ = full
    client = app.client()
    assert_refused(client.predict(rows[:1]))
    assert client.get("/livez").status == 200
    assert client.get("/readyz").status == 200
    counted = client.get("/metrics").body.decode()
    labels = '{http_request_method="POST",http_response_status_code="503",http_route="/predict"}'
    assert f"http_server_request_duration_seconds_count{labels} 1.0" in counted


def test_a_request_id_comes_back_and_leaves_no_record(full: Full, rows: list[Instance]) -> None:
    app, gate, _ = full
    client = app.client()
    headers = {"X-Request-ID": "refused-at-first"}
    refused = client.predict(rows[:1], headers=headers)
    assert_refused(refused)
    assert refused.headers["x-request-id"] == "refused-at-first"
    gate.open()
    wait_until(lambda: not app.runtime.predicting._in_flight)
    wait_until(lambda: client.get("/explanations/refused-at-first").status == 404)
    assert "idempotent-replay" not in client.predict(rows[:1], headers=headers).headers


def test_a_body_in_chunks_is_read_before_it_is_refused(full: Full, rows: list[Instance]) -> None:
    app, _, _ = full
    body = json.dumps({"instances": rows[:1]}).encode()
    with app.connect() as connection:
        lines = "POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            connection.sendall(lines.encode())
            connection.sendall(b"%x\r\n%s\r\n" % (len(body), body))
            connection.sendall(b"0\r\n\r\n")
            assert_refused(read_reply(connection))


def test_who_waits_for_100_continue_is_refused_without_his_body(full: Full) -> None:
    app, _, _ = full
    with app.connect() as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        reply = read_reply(connection)
        assert_refused(reply)
        assert reply.headers["connection"] == "close"


def test_a_connection_that_is_to_end_does(full: Full) -> None:
    app, _, _ = full
    for version, line in (("1.1", "Connection: close\r\n"), ("1.0", "")):
        sent = f"GET /models HTTP/{version}\r\nHost: localhost\r\n{line}\r\n"
        with app.connect() as connection:
            connection.sendall(sent.encode())
            assert_refused(read_reply(connection, method="GET"))
            assert connection.recv(1) == b""


class Draining(GuardedProtocol):
    """As on a server that goes on for a while after SIGTERM."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.server_state.default_headers = [CLOSE]
        super().connection_made(transport)


def test_a_refusal_while_draining_ends_its_connection(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with (
        full_app(tmp_path, demo_registry, rows, Draining) as (app, _, _),
        app.connect() as connection,
    ):
        connection.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reply = read_reply(connection, method="GET")
        assert_refused(reply)
        assert reply.headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_a_protocols_path_is_refused_in_its_own_words(full: Full) -> None:
    app, _, _ = full
    reply = app.client().request("POST", "/v2/models/credit/infer", b"{}", JSON)
    assert reply.status == 503
    assert list(reply.json()) == ["error"]
    assert int(reply.headers["retry-after"]) >= 1


def deaf(app: LiveApp) -> socket.socket:
    """A connection whose peer reads nothing."""
    connection = app.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return connection


def test_refusals_nobody_reads_are_not_kept(full: Full) -> None:
    app, _, _ = full
    asked = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
    with deaf(app) as connection:

        def is_cut_off() -> bool:
            try:
                connection.sendall(asked)
            except ConnectionError:
                return True
            return False

        wait_until(is_cut_off)


def test_a_request_behind_another_one_makes_no_place(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    """It has no task yet, so it does not rest either."""
    gate = Gate()
    body = json.dumps({"instances": rows[:1]}).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    options: dict[str, Any] = {"registry": demo_registry, "max_at_once": MOST}
    with live_app(tmp_path, customise=gate.before_append, **options) as app:
        taking = [app.connect() for _ in range(MOST)]
        try:
            for connection in taking:
                connection.sendall(whole + head + b"Content-Length: 100\r\n\r\n")
            wait_until(lambda: app.runtime.metrics.http_active_now["POST"] == MOST)
            assert_refused(app.client().get("/models"))
            gate.open()
            admission = app.runtime.delivery.admission
            wait_until(lambda: admission.resting == MOST)  # their turn: bodies are waited for
            assert app.client().get("/models").status == 200
        finally:
            gate.open()
            for connection in taking:
                connection.close()
        wait_until(lambda: admission.resting == 0)


class Hasty(GuardedProtocol):
    request_seconds = 0.5


def test_who_reads_no_answers_gives_its_place_back(tmp_path: Path, demo_registry: Path) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    with live_app(tmp_path, protocol=Hasty, registry=demo_registry, max_at_once=MOST) as app:
        taking = [deaf(app) for _ in range(MOST)]
        try:
            for connection in taking:
                connection.sendall(asked)

            def status() -> int:
                return app.client().get("/models").status

            wait_until(lambda: status() == 503)
            wait_until(lambda: status() == 200, seconds=20)
        finally:
            for connection in taking:
                connection.close()


def test_a_refused_connection_may_stay_idle(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    """The clock of requests that do not arrive does not run for one that has been refused."""
    gate = Gate()
    options: dict[str, Any] = {"registry": demo_registry, "max_at_once": 1}
    protocol, put_in = Impatient, gate.before_append
    with (
        live_app(tmp_path, customise=put_in, protocol=protocol, **options) as app,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(app.client().predict, rows[:1])
        wait_until(lambda: app.runtime.metrics.http_active_now["POST"] == 1)
        wait_until(lambda: app.runtime.delivery.admission.resting == 0)
        try:
            with app.connect(timeout_seconds=1.0) as connection:
                connection.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert_refused(read_reply(connection, method="GET"))
                with pytest.raises(TimeoutError):
                    connection.recv(1)
        finally:
            gate.open()


def test_slow_bodies_take_no_place(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with live_app(tmp_path, registry=demo_registry, max_at_once=MOST) as app:
        admission = app.runtime.delivery.admission
        slow = [app.connect() for _ in range(2 * MOST)]
        for connection in slow:
            connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
        wait_until(lambda: admission.resting == 2 * MOST)
        assert app.client().predict(rows[:1]).status == 200
        for connection in slow:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        wait_until(lambda: admission.resting == 0)


def test_nothing_admitted_is_lost_and_all_refused_come_back(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    """Many clients at once: each answer is a 200 that is stored or a refusal that says when."""
    clients = 32
    barrier = threading.Barrier(clients)
    body = json.dumps({"instances": rows[:1]}).encode()

    def work(app: LiveApp) -> list[Reply]:
        client = app.client()
        barrier.wait()
        return [client.request("POST", "/predict?explain=true", body, JSON) for _ in range(20)]

    with live_app(tmp_path, registry=demo_registry, max_at_once=4) as app:
        with ThreadPoolExecutor(clients) as pool:
            replies = [r for found in pool.map(work, [app] * clients) for r in found]
        answered = [reply for reply in replies if reply.status == 200]
        for reply in replies:
            if reply.status != 200:
                assert_refused(reply)
        assert answered
        client = app.client()
        for reply in answered:
            path = f"/explanations/{reply.headers['x-request-id']}"
            assert client.get(path).status == 200
        assert app.runtime.evidence.backlog() == 0
        assert app.runtime.delivery.admission.resting == 0
