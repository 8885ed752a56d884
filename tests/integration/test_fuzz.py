"""Hostile bytes: every answer below 500 and within a second, and the service healthy after."""

import json
import os
import random
import re
import time
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from live_app import LiveApp
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from servers import JSON

Instance = dict[str, Any]

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) ")
SPLICES = [
    b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", b"%00", b"%", b"0\r\n\r\n", b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"HTTP/1.0", b"CONNECT ", b"*", b"GET http://evil.example/ HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"{" * 40, b"1e999", b"NaN", b'"\\ud800"', b"\xef\xbb\xbf",
]  # fmt: skip


def mutated(rng: random.Random, seed: bytes) -> bytes:
    """The seed after one to four cuts, flips, doublings and splices."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.randint(0, 20))
        kind = rng.randrange(5)
        if kind == 0:
            del data[start:end]
        elif kind == 1:
            data[start:end] = rng.randbytes(end - start)
        elif kind == 2:
            data[start:start] = data[start:end]
        elif kind == 3:
            data[start:start] = rng.choice(SPLICES)
        else:
            del data[start:]
    return bytes(data)


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
    assert live.client().get("/readyz").json() == {"status": "ready"}
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


CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.allow_header_conformance,
]


def explore(live: LiveApp, *, examples: int) -> int:
    """Send generated cases to every operation of the live document; how many were sent."""
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    schema.config.base_url = live.url
    sent = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        sent += explore_operation(operation, GenerationMode.POSITIVE, examples)
        if {"parameters", "requestBody"} & operation.definition.raw.keys():
            sent += explore_operation(operation, GenerationMode.NEGATIVE, examples)
    return sent


def _acceptance(case: schemathesis.Case) -> list[Any]:
    """Schemas cannot say that subjects and labels are as many as instances, or which cursors we
    made.
    """
    names = set(case.body) if isinstance(case.body, dict) else set()
    is_exempt = bool(names & {"subjects", "labels"}) or "cursor" in case.query
    return [] if is_exempt else [checks.positive_data_acceptance]


def explore_operation(operation: Any, mode: GenerationMode, examples: int) -> int:
    sent = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        nonlocal sent
        sent += 1
        case.call_and_validate(checks=[*CHECKS, *_acceptance(case)])

    send()
    return sent


def test_generated_requests_agree_with_the_openapi_document(
    live: LiveApp, rows: list[Instance]
) -> None:
    assert explore(live, examples=40) > 200
    assert_healthy(live, rows)


@pytest.mark.drill
def test_many_generated_requests_agree_with_the_openapi_document(
    live: LiveApp, rows: list[Instance]
) -> None:
    assert explore(live, examples=max(20, int(300 * SCALE))) > 100
    assert_healthy(live, rows)
