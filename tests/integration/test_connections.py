"""Connections that misbehave: no request, bodies without end, peers that are slow or gone."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import Gate, lag
from live_app import LiveApp, live_app, read_reply, read_to_end
from problems import MARKER, assert_problem
from prometheus_client.parser import text_string_to_metric_families
from raw_requests import (
    HOST,
    MALFORMED_REQUESTS,
    UNFINISHED_REQUESTS,
    Impatient,
    request_head,
    statuses_in,
    whole_request,
)
from servers import JSON, wait_until

Instance = dict[str, Any]


@pytest.mark.parametrize("name", ["Host", "X-Request-ID", "Content-Type", "Authorization"])
def test_a_header_given_twice_is_400(live: LiveApp, name: str) -> None:
    values = {"Host": "localhost", "X-Request-ID": "0123456789", "Content-Type": "text/plain"}
    line = f"{name}: {values.get(name, MARKER)}\r\n".encode()
    host = b"" if name == "Host" else HOST
    with live.connect() as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n" + host + line + line + b"\r\n")
        assert_problem(read_reply(connection, method="GET"), 400, "bad_header")


def test_a_list_given_in_several_headers_is_one_list(live: LiveApp, rows: list[Instance]) -> None:
    """As RFC 9110 has it, of If-None-Match as of Prefer."""
    path = live.client().predict(rows[:1]).json()["explanation"]["links"]["self"]
    tag = live.client().get(path).headers["etag"]
    lines = f'If-None-Match: {tag}\r\nIf-None-Match: "another"\r\n'
    with live.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n".encode() + HOST + lines.encode() + b"\r\n")
        assert read_reply(connection, method="GET").status == 304


def test_header_bytes_that_are_not_latin_are_harmless(live: LiveApp) -> None:
    line = b"Accept: \xff\xfe\xe2\x82\xac\r\nIf-None-Match: \xf0\x9f\r\nAuthorization: \xff\r\n"
    with live.connect() as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n" + HOST + line + b"\r\n")
        assert read_reply(connection, method="GET").status == 200


@pytest.mark.parametrize("name", MALFORMED_REQUESTS)
def test_bytes_that_are_no_request_are_a_problem_too(live: LiveApp, name: str) -> None:
    with live.connect() as connection:
        connection.sendall(MALFORMED_REQUESTS[name])
        connection.shutdown(socket.SHUT_WR)
        reply = read_reply(connection)
    assert_problem(reply, 400, "malformed_request")
    assert reply.headers["connection"] == "close"


def test_a_head_without_end_is_431(live: LiveApp) -> None:
    with live.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HOST)
        sender = threading.Thread(target=send_until_refused, args=(connection, b"A: b\r\n" * 4096))
        sender.start()
        assert_problem(read_reply(connection, method="GET"), 431, "head_too_large")
        sender.join()


def send_until_refused(connection: socket.socket, piece: bytes, times: int = 1 << 20) -> None:
    try:
        for _ in range(times):
            connection.sendall(piece)
    except OSError:
        return


@pytest.mark.parametrize(
    ("content_type", "framing", "status"),
    [
        ("application/json", "Content-Length: 67108864", 413),
        ("application/json", "Transfer-Encoding: chunked", 413),
        ("text/plain", "Content-Length: 67108864", 415),
        ("text/plain", "Transfer-Encoding: chunked", 415),
    ],
)
def test_a_64_mib_body_is_answered_within_a_second(
    live: LiveApp, content_type: str, framing: str, status: int
) -> None:
    piece = b"x" * 65536
    if "chunked" in framing:
        piece = b"%x\r\n%s\r\n" % (len(piece), piece)
    started = time.monotonic()
    with live.connect() as connection:
        connection.sendall(request_head("/predict", f"Content-Type: {content_type}", framing))
        sender = threading.Thread(target=send_until_refused, args=(connection, piece, 1024))
        sender.start()
        reply = read_reply(connection)
        seconds = time.monotonic() - started
        sender.join()
    assert_problem(reply, status)
    assert seconds < 1.0


@pytest.mark.parametrize("claimed", ["1048577", str(10**19), str(10**30)])
def test_a_length_over_the_limit_is_refused_before_any_byte(live: LiveApp, claimed: str) -> None:
    with live.connect() as connection:
        lines = ("Content-Type: application/json", f"Content-Length: {claimed}")
        connection.sendall(request_head("/predict", *lines, "Expect: 100-continue"))
        reply = read_reply(connection)
    assert reply.status in {400, 413}  # beyond 64 bit it is no length at all
    assert_problem(reply, reply.status)


def test_chunks_over_the_limit_are_413_before_the_end(live: LiveApp) -> None:
    with live.connect() as connection:
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        connection.sendall(request_head("/predict", *lines))
        for _ in range(17):
            connection.sendall(b"%x\r\n%s\r\n" % (65536, b" " * 65536))
        assert_problem(read_reply(connection), 413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_read(live: LiveApp, rows: list[Instance]) -> None:
    body = json.dumps({"instances": rows[:1]}).encode()
    limit = live.runtime.settings.max_body_bytes
    client = live.client()
    assert client.request("POST", "/predict", body.ljust(limit), JSON).status == 200
    reply = client.request("POST", "/predict", body.ljust(limit + 1), JSON)
    assert_problem(reply, 413, "body_too_large")


def test_expect_100_continue_gets_its_continue(live: LiveApp, rows: list[Instance]) -> None:
    body = json.dumps({"instances": rows[:1]}).encode()
    with live.connect() as connection:
        lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        connection.sendall(request_head("/predict", *lines, "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_reply(connection).status == 200


def test_a_get_with_a_body_is_answered_and_the_connection_stays_usable(live: LiveApp) -> None:
    client = live.client()
    for _ in range(2):
        assert client.request("GET", "/models", MARKER.encode() * 1000).status == 200


def test_an_upgrade_is_not_taken_up(live: LiveApp) -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with live.connect() as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n" + HOST + lines + b"\r\n")
        assert read_reply(connection, method="GET").status == 200


def test_a_body_cut_off_by_the_client_is_not_taken_for_a_whole_one(
    live: LiveApp, rows: list[Instance]
) -> None:
    body = json.dumps({"instances": rows[:1]}).encode()
    request_id = "cut-off-0001"
    lines = ("Content-Type: application/json", f"X-Request-ID: {request_id}")
    head = request_head("/predict", *lines, f"Content-Length: {len(body) + 1}")
    with live.connect() as connection:
        connection.sendall(head + body)
    assert live.client().get("/models").status == 200
    assert live.client().get(f"/explanations/{request_id}").status == 404
    reply = live.client().predict(rows[:1], query="", headers={"X-Request-ID": request_id})
    assert reply.status == 200
    assert "idempotent-replay" not in reply.headers


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("impatient")
    with live_app(data_dir, registry=demo_registry, protocol=Impatient) as app:
        yield app


@pytest.mark.parametrize("name", ["half a head", "half a body", "half a chunk"])
def test_a_request_that_does_not_arrive_in_time_is_408(impatient: LiveApp, name: str) -> None:
    with impatient.connect() as connection:
        connection.sendall(UNFINISHED_REQUESTS[name])
        reply = read_reply(connection)
        assert connection.recv(1) == b""
    assert_problem(reply, 408, "request_timeout")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("half a head", ("OTHER", "unmatched", "408")),
        ("half a body", ("POST", "/predict", "499")),
        ("half a body that nobody reads", ("POST", "unmatched", "404")),
    ],
)
def test_what_does_not_arrive_in_time_is_counted_once(
    tmp_path: Path, demo_registry: Path, name: str, expected: tuple[str, str, str]
) -> None:
    with live_app(tmp_path, registry=demo_registry, protocol=Impatient) as app:
        before = answered(app)
        with app.connect() as connection:
            connection.sendall(UNFINISHED_REQUESTS[name])
            read_to_end(connection)
        wait_until(lambda: answered(app) - before == Counter({expected: 1}))


def answered(app: LiveApp) -> Counter[tuple[str, str, str]]:
    """Requests in the metrics, by method, route and status, but for those that ask for these."""
    families = text_string_to_metric_families(app.client().get("/metrics").body.decode())
    (family,) = (each for each in families if each.name == "http_server_request_duration_seconds")
    of_request = itemgetter("http_request_method", "http_route", "http_response_status_code")
    return Counter(
        {
            of_request(sample.labels): int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_count") and sample.labels["http_route"] != "/metrics"
        }
    )


def test_dripping_bytes_do_not_extend_the_time(impatient: LiveApp) -> None:
    started = time.monotonic()
    with impatient.connect(timeout_seconds=0.02) as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n")
        while time.monotonic() < started + 3:
            try:
                connection.sendall(b"A: b\r\n")
                if connection.recv(4096).startswith(b"HTTP/1.1 408"):
                    break
            except TimeoutError:
                continue
    assert time.monotonic() - started < 2.5


def test_a_connection_without_a_request_is_closed(impatient: LiveApp) -> None:
    with impatient.connect() as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 408")


def test_a_body_nobody_reads_is_not_waited_for_either(impatient: LiveApp) -> None:
    with impatient.connect() as connection:
        connection.sendall(UNFINISHED_REQUESTS["half a body that nobody reads"])
        started = time.monotonic()
        received = read_to_end(connection)
    assert statuses_in(received) == [404]
    assert time.monotonic() - started < 1.0


def test_a_slow_answer_is_not_cut_off(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry, protocol=Impatient, customise=lag(0.5)) as app:
        assert app.client().predict(rows[:1]).status == 200


def test_a_client_that_leaves_is_forgotten_and_its_record_kept(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    with live_app(tmp_path, registry=demo_registry, customise=gate.before_append) as app:
        with app.connect() as connection:
            connection.sendall(whole_request(rows, "X-Request-ID: gone-client-1"))
            wait_until(lambda: gate.waiting)
        gate.open()
        wait_until(lambda: not app.runtime.predicting._in_flight)
        assert app.client().get("/explanations/gone-client-1").status == 200
        reply = app.client().predict(rows[:1], query="", headers={"X-Request-ID": "gone-client-1"})
    assert reply.headers["idempotent-replay"] == "true"
    assert "Traceback" not in "".join(capfd.readouterr())
