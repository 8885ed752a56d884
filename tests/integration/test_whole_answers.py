"""How answers of an application leave the process: uvicorn's ends, our `send`, a real socket."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from live_app import read_reply, read_to_end
from servers import wait_until

from service.guards import GUARDS
from service.server import uvicorn_config

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
OWN_POLICY = (b"content-security-policy", b"default-src 'self'")


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(count: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % count


OWN, ABCD = (b"x-own", b"1"), body(b"abcd")
TWO_PARTS = (body(b"ab", more=True), body(b"cd"))
ANSWERS = {
    "/whole": (start(OWN, length(4)), ABCD),
    "/policy": (start(OWN_POLICY, length(4)), ABCD),
    "/policy-parts": (start(OWN_POLICY, length(4)), *TWO_PARTS),
    "/parts": (start(length(4)), *TWO_PARTS),
    "/stream": (start(OWN), *TWO_PARTS),
    "/empty": (start(length(0), status=304), body()),
    "/close": (start(length(4), (b"connection", b"close")), ABCD),
    "/too-short": (start(length(5)), ABCD),
    "/injected": (start((b"x-own", b"1\r\nx-other: 2"), length(4)), ABCD),
    "/control": (start((b"x-own", b"1\x00"), length(4)), ABCD),
    "/twice": (start(length(4)), ABCD, start(length(4)), ABCD),
    "/no-body": (start(length(4)),),
    "/fails": (start(length(4)), RuntimeError()),
}
"""What the application says, by path, or raises."""


ENDS: list[BaseException | None] = []
"""How streams ended."""

HEARD: list[str] = []
"""What was received once the answer had gone."""

LARGE = b"x" * (1 << 20)
MANY = 20
GONE: list[str] = []
"""Large answers that have been handed over."""


async def go_on(send: Send) -> None:
    try:
        await send(start(OWN))
        for _ in range(50):
            await send(body(b"ab", more=True))
            await asyncio.sleep(0.01)
    except BaseException as error:
        ENDS.append(error)
        raise
    ENDS.append(None)


async def answer_before_listening(receive: Receive, send: Send) -> None:
    for said in ANSWERS["/whole"]:
        await send(said)
    HEARD.append((await receive())["type"])


async def answer_while_listening(receive: Receive, send: Send) -> None:
    await receive()
    listening = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    for said in ANSWERS["/whole"]:
        await send(said)
    HEARD.append((await listening)["type"])


async def answer_at_length(_: Receive, send: Send) -> None:
    await send(start(length(len(LARGE))))
    await send(body(LARGE))
    GONE.append("/large")


async def answer_on_and_on(_: Receive, send: Send) -> None:
    await go_on(send)


BEHAVIOURS = {
    "/on-and-on": answer_on_and_on,
    "/before": answer_before_listening,
    "/while": answer_while_listening,
    "/large": answer_at_length,
}


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["path"] in BEHAVIOURS:
        await BEHAVIOURS[scope["path"]](receive, send)
        return
    for said in ANSWERS[scope["path"]]:
        if isinstance(said, Exception):
            raise said
        await send(said)


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    config = uvicorn_config(application)  # type: ignore[arg-type]
    config.lifespan = "off"
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, seconds=30)
            server.config.port = listener.getsockname()[1]
            yield server
        finally:
            server.should_exit = True
            thread.join()


def connected(server: uvicorn.Server) -> closing[socket.socket]:
    address = ("127.0.0.1", server.config.port)
    return closing(socket.create_connection(address, timeout=5))


@pytest.fixture
def connection(server: uvicorn.Server) -> Iterator[socket.socket]:
    with connected(server) as connection:
        yield connection


def ask(connection: socket.socket, path: str, *, method: str = "GET") -> None:
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def test_a_whole_answer_comes_at_once_with_all_guards(connection: socket.socket) -> None:
    for _ in range(3):
        ask(connection, "/whole")
        received = connection.recv(65536)
        head, _, rest = received.partition(b"\r\n\r\n")
        assert rest == b"abcd"
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 200 OK"
        guards = [b"%s: %s" % guard for guard in GUARDS.items()]
        assert sorted(lines[2:]) == sorted([b"x-own: 1", b"content-length: 4", *guards])
        assert lines[1].startswith(b"date: ")


@pytest.mark.parametrize(
    "path", ["/whole", "/policy", "/policy-parts", "/parts", "/stream", "/close"]
)
def test_every_guard_is_there_once_or_the_applications_own(
    connection: socket.socket, path: str
) -> None:
    ask(connection, path)
    reply = read_reply(connection, method="GET")
    assert (reply.status, reply.body) == (200, b"abcd")
    expected = {name.decode(): value.decode() for name, value in GUARDS.items()}
    if path.startswith("/policy"):
        expected["content-security-policy"] = OWN_POLICY[1].decode()
    assert {name: reply.headers.get(name) for name in expected} == expected


@pytest.mark.parametrize("path", ["/whole", "/parts"])
def test_nobody_gets_the_body_of_a_head(connection: socket.socket, path: str) -> None:
    ask(connection, path, method="HEAD")
    ask(connection, "/close", method="HEAD")
    received = read_to_end(connection)
    assert b"abcd" not in received
    assert received.count(b"content-length: 4\r\n") == 2
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_an_answer_without_a_body_leaves_the_connection_open(connection: socket.socket) -> None:
    ask(connection, "/empty")
    ask(connection, "/close")
    received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 304 ")
    assert received.endswith(b"abcd")


def test_requests_sent_ahead_are_answered_in_order(connection: socket.socket) -> None:
    for path in ("/whole", "/stream", "/whole", "/parts", "/close"):
        ask(connection, path)
    received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert b"transfer-encoding: chunked" in received.split(b"HTTP/1.1 200 OK")[2]


def test_the_connection_ends_where_the_application_or_the_client_says_so(
    connection: socket.socket,
) -> None:
    connection.sendall(b"GET /whole HTTP/1.0\r\n\r\n")
    received = read_to_end(connection)
    assert received.endswith(b"\r\n\r\nabcd")
    assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize("path", ["/injected", "/control"])
def test_a_header_that_could_be_two_is_not_sent(connection: socket.socket, path: str) -> None:
    ask(connection, path)
    assert read_to_end(connection) == b""


@pytest.mark.parametrize("path", ["/fails", "/no-body"])
def test_an_application_that_fails_before_the_body_is_an_error_of_ours(
    connection: socket.socket, path: str
) -> None:
    ask(connection, path)
    received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 500 ")
    for name, value in GUARDS.items():
        assert received.count(b"\r\n%s: %s\r\n" % (name, value)) == 1


def test_a_second_answer_is_not_sent(connection: socket.socket) -> None:
    ask(connection, "/twice")
    received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 ") == received.count(b"abcd") == 1


def test_a_stream_whose_reader_left_is_no_error(connection: socket.socket) -> None:
    """Also where the connection holds a later request, the only one that uvicorn tells."""
    ask(connection, "/on-and-on")
    ask(connection, "/whole")
    assert connection.recv(65536)
    connection.close()
    wait_until(lambda: ENDS != [])
    assert ENDS == [None]


@pytest.mark.parametrize("path", ["/before", "/while"])
def test_who_listens_once_the_answer_has_gone_hears_the_end(
    connection: socket.socket, path: str
) -> None:
    lines = "Expect: 100-continue\r\nContent-Length: 1\r\n" if path == "/before" else ""
    HEARD.clear()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
    wait_until(lambda: HEARD != [])
    assert HEARD == ["http.disconnect"]
    connection.shutdown(socket.SHUT_WR)
    assert b" 100 " not in read_to_end(connection)


def test_answers_wait_for_a_client_that_does_not_read(
    server: uvicorn.Server, connection: socket.socket
) -> None:
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * MANY)
    with connected(server) as other:
        for _ in range(4 * MANY):  # so many turns of the loop
            ask(other, "/whole")
            assert other.recv(65536)
    assert len(GONE) < MANY
    ask(connection, "/close")
    assert len(read_to_end(connection)) > MANY * len(LARGE)


def test_a_body_shorter_than_said_is_cut_off(connection: socket.socket) -> None:
    ask(connection, "/too-short")
    received = read_to_end(connection)
    assert received.endswith(b"abcd")  # and the connection is closed, so that the client notices
