"""Requests that are sent ahead on one connection: in their order, whatever comes behind them."""

import contextlib
import socket
from pathlib import Path
from typing import Any

from faulty_parts import lag
from live_app import LiveApp, live_app, read_to_end
from raw_requests import (
    HOST,
    MALFORMED_REQUESTS,
    UNFINISHED_REQUESTS,
    Impatient,
    read_status,
    statuses_in,
    whole_request,
)

Instance = dict[str, Any]
MOST_BUFFERED_BYTES = 1 << 25
"""More than the buffers of two sockets hold."""


def test_pipelined_requests_are_answered_in_order(live: LiveApp) -> None:
    paths = ["/livez", "/nowhere", "/models", "/livez"]
    sent = b"".join(b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), HOST) for path in paths)
    with live.connect() as connection:
        connection.sendall(sent)
        statuses = [read_status(connection) for _ in paths]
    assert statuses == [200, 404, 200, 200]


def test_nothing_is_said_in_the_place_of_an_earlier_answer(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    """Those before it are answered; the time of one that was sent ahead begins with its turn."""
    first = whole_request(rows)
    behind = {
        UNFINISHED_REQUESTS["half a body"]: [200, 408],
        UNFINISHED_REQUESTS["half a head"]: [200],
        MALFORMED_REQUESTS["bad chunk"]: [200],
        MALFORMED_REQUESTS["no HTTP"]: [200],
        first + MALFORMED_REQUESTS["bad chunk"] + first: [200, 200],
        first + MALFORMED_REQUESTS["no HTTP"] + first: [200, 200],
        first + UNFINISHED_REQUESTS["half a head"]: [200, 200],
    }
    with live_app(tmp_path, registry=demo_registry, protocol=Impatient, customise=lag(0.4)) as app:
        for second, statuses in behind.items():
            with app.connect() as connection:
                connection.sendall(first + second)
                assert statuses_in(read_to_end(connection)) == statuses
            with app.connect() as connection:
                connection.sendall(first + second)
                connection.shutdown(socket.SHUT_WR)
                answered_ones = [status for status in statuses if status == 200]
                assert statuses_in(read_to_end(connection)) == answered_ones


def test_what_comes_behind_the_end_is_not_all_read(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    sent, piece = 0, bytes(1 << 16)
    with (
        live_app(tmp_path, registry=demo_registry, customise=lag(0.4)) as app,
        app.connect() as connection,
    ):
        connection.sendall(whole_request(rows) + MALFORMED_REQUESTS["no HTTP"])
        with contextlib.suppress(OSError):
            while sent < MOST_BUFFERED_BYTES:
                sent += connection.send(piece)
    assert sent < MOST_BUFFERED_BYTES


def test_a_request_that_will_never_be_whole_is_not_waited_for(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    first = whole_request(rows)
    with (
        live_app(tmp_path, registry=demo_registry, customise=lag(0.4)) as app,
        app.connect() as connection,
    ):
        connection.sendall(first + first + MALFORMED_REQUESTS["bad chunk"])
        assert read_status(connection) == 200
        connection.sendall(b"more, which is dropped")
        assert app.runtime.delivery.admission.resting == 0  # while the second is computed
        assert statuses_in(read_to_end(connection)) == [200]


def test_what_is_no_request_is_a_problem_behind_an_answer_too(live: LiveApp) -> None:
    with live.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert read_status(connection) == 200
        connection.sendall(MALFORMED_REQUESTS["no HTTP"])
        assert read_status(connection) == 400
