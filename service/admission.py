"""Requests refused from their heads alone while the service is at its limit.

A refusal costs a tenth of an answer: no task is started, no body read, no route looked for, so that
what was admitted is answered in time however much comes.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import OverloadedError
from service.guards import guarded
from service.http import (
    SERVER_METADATA_PATH,
    UNMATCHED,
    is_of_protocol,
    refusal_response,
    wrong_with_id,
)
from service.metrics import METHODS
from service.uuid7 import uuid7

MOST_AT_ONCE = 256
ALWAYS_ANSWERED = (b"/livez", b"/readyz", b"/metrics", b"/v2/health/")
"""Who asks these decides whether the service lives, gets traffic, or is looked after."""

_ASKED_OFTEN = (
    "/predict",
    "/models/{name}/predict",
    "/explanations",
    "/explanations/{request_id}",
    "/v1/models/{name}:predict",
    "/v1/models/{name}:explain",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
_ROUTES = [(re.compile(re.sub(r"{\w+}", "[^/]+", name).encode()), name) for name in _ASKED_OFTEN]

_PLACE = "0" * 36


def _ready_made(path: str) -> tuple[bytes, list[bytes]]:
    """Head, but for what differs, and body, split where the request ID belongs."""
    error = OverloadedError()
    response = refusal_response(error, _PLACE, path)
    lines = b"".join(
        b"%s: %s\r\n" % (name, value)
        for name, value in response.raw_headers
        if name != b"content-length"
    )
    head = guarded(b"HTTP/1.1 %d \r\n%s\r\n" % (error.status, lines)).removesuffix(b"\r\n")
    return head, bytes(response.body).split(_PLACE.encode())


_PROBLEM = _ready_made("/")
_OF_PROTOCOL = _ready_made(SERVER_METADATA_PATH)
_CLOSE = b"connection: close\r\n"


@dataclass(slots=True, eq=False)
class Admission:
    """How many requests may be answered at a time; on_refusal is told method, route and status of
    each one that nobody but the protocol sees. Used on the event loop only.
    """

    most: int = MOST_AT_ONCE
    on_refusal: Callable[[str, str, int], None] = lambda _method, _route, _status: None
    resting: int = 0
    """Requests under way that only wait: for a worker, for news, for their own bodies."""

    def refuses(self, url: bytes, under_way: int) -> bool:
        """Whether one more, with that many tasks under way, is one too many."""
        return under_way - self.resting >= self.most and not url.startswith(ALWAYS_ANSWERED)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Meanwhile the request takes nobody's place."""
        self.resting += 1
        try:
            yield
        finally:
            self.resting -= 1

    def count_unread(self, status: int) -> None:
        """Count a request that was refused before its head was whole, or was none at all."""
        self.on_refusal("OTHER", UNMATCHED, status)

    def refusal(
        self, method: str, url: bytes, headers: list[tuple[bytes, bytes]], *, closes: bool
    ) -> bytes:
        """The whole answer to a request that is not admitted, counted. Cost: 4 us."""
        path = url.partition(b"?")[0]
        known = method if method in METHODS else "OTHER"
        self.on_refusal(known, _route(path), OverloadedError.status)
        request_id = _request_id(headers)
        head, parts = _OF_PROTOCOL if is_of_protocol(path.decode("latin-1")) else _PROBLEM
        body = request_id.join(parts)
        return b"%scontent-length: %d\r\nx-request-id: %s\r\n%s\r\n%s" % (
            head,
            len(body),
            request_id,
            _CLOSE if closes else b"",
            b"" if method == "HEAD" else body,
        )


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The client's own where it gave one that can be used."""
    for name, value in headers:
        if name == b"x-request-id" and wrong_with_id(value.decode("latin-1")) is None:
            return value
    return uuid7().encode()


def _route(path: bytes) -> str:
    """Its name in metrics; of what is asked under load, the rest is unmatched."""
    return next((name for pattern, name in _ROUTES if pattern.fullmatch(path)), UNMATCHED)
