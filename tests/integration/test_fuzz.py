"""Hostile bytes: every answer below 500 and within a second, and the service healthy after."""

import json
import os
import random
import re
import time
from typing import Any

import pytest
from exploring import explore
from live_app import LiveApp
from mutations import mutated
from servers import JSON, assert_becomes_ready

Instance = dict[str, Any]

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
PROTOCOLS = ("/v1", "/v2")
"""test_facades_fuzz.py sends to these."""

STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def requests_to_mutate(rows: list[Instance]) -> list[bytes]:
    body = json.dumps({"instances": rows[:1], "subjects": ["a"]}).encode()
    head = b"Host: localhost\r\nContent-Type: application/json\r\nX-Request-ID: fuzz-%d-0001\r\n"
    sized = b"POST /predict?explain=true&top=3 HTTP/1.1\r\n" + head % 1
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return [
        sized + b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        sized + b"Transfer-Encoding: chunked\r\n\r\n" + chunk,
        b"GET /explanations?limit=1&status=complete HTTP/1.1\r\n" + head % 2 + b"\r\n",
        b"GET /explanations/0123456789 HTTP/1.1\r\nIf-None-Match: *\r\n" + head % 3 + b"\r\n",
        b"HEAD /models/mixed HTTP/1.0\r\n" + head % 4 + b"\r\nGET /livez HTTP/1.1\r\n\r\n",
    ]


def exchange(live: LiveApp, sent: bytes) -> list[int]:
    """Statuses of the answers; asserts that each came in time."""
    started = time.monotonic()
    received = live.exchange(sent)
    assert time.monotonic() - started < 1.0, sent
    return [int(status) for status in STATUS_LINE.findall(received)]


def assert_healthy(live: LiveApp, rows: list[Instance]) -> None:
    assert_becomes_ready(live.client())
    answer = live.client().predict(rows[:1])
    assert answer.json()["explanation"]["status"] == "complete"
    assert not live.runtime.predicting._in_flight


def test_mutated_requests_never_make_a_server_error(live: LiveApp, rows: list[Instance]) -> None:
    rng, seeds = random.Random(20260101), requests_to_mutate(rows)
    answered = 0
    for _ in range(1500):
        sent = mutated(rng, rng.choice(seeds))
        statuses = exchange(live, sent)
        assert all(status < 500 for status in statuses), (sent, statuses)
        answered += bool(statuses)
    assert answered > 1200  # a whole request may get none: its peer half-closed before the answer
    assert_healthy(live, rows)


def test_random_bytes_are_refused(live: LiveApp, rows: list[Instance]) -> None:
    rng = random.Random(7)
    for size in [*range(1, 200), *(rng.randint(200, 100_000) for _ in range(50))]:
        statuses = exchange(live, rng.randbytes(size) + b"\r\n\r\n")
        assert statuses[:1] in ([400], [431]), size
    assert_healthy(live, rows)


def test_mutated_bodies_are_answered_or_refused_with_a_problem(
    live: LiveApp, rows: list[Instance], mixed_rows: list[Instance]
) -> None:
    rng, client = random.Random(11), live.client()
    seeds = {
        "/models/breast_cancer/predict": json.dumps({"instances": rows[:2]}).encode(),
        "/models/mixed/predict": json.dumps({"instances": mixed_rows[:2]}).encode(),
    }
    refused = 0
    for _ in range(1500):
        path = rng.choice(list(seeds))
        reply = client.request("POST", path, mutated(rng, seeds[path]), JSON)
        assert reply.status in {200, 400, 422}, reply.body
        if reply.status != 200:
            refused += 1
            assert reply.headers["content-type"] == "application/problem+json"
    assert refused > 1000
    assert_healthy(live, rows)


@pytest.mark.drill
def test_generated_requests_agree_with_the_openapi_document(
    live: LiveApp, rows: list[Instance]
) -> None:
    assert explore(live.url, examples=max(20, int(300 * SCALE)), skip=PROTOCOLS) > 100
    assert_healthy(live, rows)
