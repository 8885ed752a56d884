"""Headers that keep a browser from doing more with an answer than reading it, on every answer."""

from typing import Any

import pytest
from access_table import ACCESS_OF_ALL, Route, send
from live_app import read_to_end

from service.guards import GUARDS, PAGE_POLICY, guarded

EXPECTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
PERSONAL = {"no-store", "private, no-cache"}


@pytest.fixture(scope="module")
def record_of_alice(keyed: Any, rows: list[dict[str, Any]]) -> str:
    return str(keyed.client("alice").predict(rows[:1]).headers["x-request-id"])


@pytest.mark.parametrize("route", ACCESS_OF_ALL, ids=" ".join)
@pytest.mark.parametrize("name", ["not-admin", "not-predict", None])
def test_every_answer_carries_them_once(
    keyed: Any, rows: list[dict[str, Any]], record_of_alice: str, route: Route, name: str | None
) -> None:
    reply = send(keyed.client(name), route, record_of_alice, rows[0])
    expected = EXPECTED
    if route == ("GET", "/docs") and reply.status == 200:
        expected = {**EXPECTED, "content-security-policy": PAGE_POLICY}
    assert {header: reply.headers.get(header) for header in EXPECTED} == expected


@pytest.mark.parametrize("route", ACCESS_OF_ALL, ids=" ".join)
def test_what_is_about_people_is_kept_by_no_cache(
    keyed: Any, rows: list[dict[str, Any]], record_of_alice: str, route: Route
) -> None:
    access = ACCESS_OF_ALL[route]
    reply = send(keyed.client("not-admin"), route, record_of_alice, rows[0])
    if access.is_of_a_record or access.sends is not None or access.needs == "audit":
        assert reply.headers["cache-control"] in PERSONAL
    assert send(keyed.client(None), route, record_of_alice, rows[0]).status in {200, 401}


def test_bytes_that_are_no_request_are_answered_with_them_too(keyed: Any) -> None:
    answer = keyed.live.exchange(b"no request at all\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    for name, value in GUARDS.items():
        assert answer.count(b"\r\n%s: %s\r\n" % (name, value)) == 1


def test_a_body_that_looks_like_a_head_stays_as_it_is() -> None:
    head, body = b"HTTP/1.1 200 OK\r\ndate: now\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    sent = guarded(head + body)
    assert sent.startswith(head[:-2] + b"content-security-policy: ")
    assert sent.endswith(b"\r\n\r\n" + body)
    assert guarded(head).endswith(b"\r\n\r\n")


def test_a_client_that_waits_for_leave_to_send_gets_it_bare(keyed: Any) -> None:
    body = b'{"instances": []}'
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n"
        b"Connection: close\r\n\r\n"
    ) % (len(body), keyed.keys["predict"].encode())
    with keyed.live.connect() as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_to_end(connection).startswith(b"HTTP/1.1 422")


def test_paths_that_are_none_are_answered_with_them_too(keyed: Any) -> None:
    reply = keyed.client("predict").get("/no/such/path")
    assert reply.status == 404
    assert EXPECTED.items() <= dict(reply.headers).items()


def test_the_page_needs_nothing_its_policy_forbids(keyed: Any) -> None:
    page = keyed.client("predict").get("/docs").body.decode()
    for forbidden in ("<script", "<img", "<link", "<iframe", "<form", "javascript:", "@import"):
        assert forbidden not in page


def test_transport_security_is_left_to_the_proxy_that_speaks_tls(keyed: Any) -> None:
    assert "strict-transport-security" not in keyed.client(None).get("/livez").headers
