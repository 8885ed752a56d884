"""Mixed traffic sent on schedule, whether answers come or not; latency counts from the due time."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

UNSENT, UNANSWERED = -1, 0
"""Statuses of requests that found no connection, and of those that got no answer."""

MOST_CONNECTIONS = 3000
PATIENCE_SECONDS = 10.0
TICK_SECONDS = 0.001
REMEMBERED = 512
PREDICT, EXPLAIN, QUEUED = "predict", "explain", "queued"
READ, LIST, METRICS = "read", "list", "metrics"
DECIDING = frozenset({PREDICT, EXPLAIN, QUEUED})
"""Kinds whose 200 acknowledges a record."""

WEIGHTS = {PREDICT: 500, EXPLAIN: 395, QUEUED: 5, READ: 80, LIST: 20}
"""Of a thousand requests; scrapes come at their own pace, however much else does."""

SCRAPE_PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class Sent:
    """One request: when it was due (by the monotonic clock), how late it left and was answered."""

    phase: str
    kind: str
    due: float
    late_seconds: float = 0.0
    seconds: float = 0.0
    status: int = UNANSWERED
    retry_after: bool = False
    is_problem: bool = False
    request_id: str = ""


@dataclass(frozen=True)
class Mix:
    """What can be sent: whole requests by kind, but reads, which name a record made before."""

    requests: dict[str, Sequence[bytes]]

    def kinds(self) -> list[str]:
        """All kinds by their weights, in a random order that is the same each time."""
        listed = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
        random.Random(0).shuffle(listed)
        return listed


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, traffic: "Traffic") -> None:
        self._traffic = traffic
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent: Sent | None = None
        self._waiting = b""

    def send(self, sent: Sent, request: bytes) -> None:
        self._sent = sent
        if self._transport is None:
            self._waiting = request
        else:
            self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._transport.write(self._waiting)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r")[0] or 0)
        if len(self._received) >= end + 4 + length:
            self._received = b""
            self._finish(head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        self._traffic.lose(self, self._sent)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _finish(self, head: bytes) -> None:
        sent, self._sent = self._sent, None
        if sent is None:
            return
        sent.status = int(head[9:12])
        sent.retry_after = b"\r\nretry-after: " in head
        sent.is_problem = b"\r\ncontent-type: application/problem+json" in head
        if sent.kind in DECIDING:
            sent.request_id = head.partition(b"\r\nx-request-id: ")[2].partition(b"\r")[0].decode()
        self._traffic.answered(self, sent)


@dataclass
class Traffic:
    """Requests sent so far, over connections that are opened when they are needed."""

    url: str
    mix: Mix
    sent: list[Sent] = field(default_factory=list)
    _free: list[_Connection] = field(default_factory=list)
    _open: set[_Connection] = field(default_factory=set)
    _known: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _opening: set[asyncio.Task[None]] = field(default_factory=set)
    _under_way: int = 0
    _turn: int = 0
    _scrape_due: float = 0.0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kinds = self.mix.kinds()

    async def send(self, phase: str, *, per_second: float, seconds: float) -> list[Sent]:
        """Send at that rate for so long; what it sent, some of it still without an answer."""
        first, start = len(self.sent), monotonic()
        count = int(per_second * seconds)
        done = 0
        while done < count:
            owed = min(count, int((monotonic() - start) * per_second) + 1)
            while done < owed:
                self._send(phase, start + done / per_second)
                done += 1
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.sleep(max(0.0, start + seconds - monotonic()))
        return self.sent[first:]

    async def settle(self) -> None:
        """Wait until everything is answered, for a bounded time."""
        deadline = monotonic() + PATIENCE_SECONDS
        while self._under_way and monotonic() < deadline:  # noqa: ASYNC110 - many ends, one look
            await asyncio.sleep(TICK_SECONDS)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._open:
            connection.close()

    def answered(self, connection: _Connection, sent: Sent) -> None:
        """An answer is complete."""
        sent.seconds = monotonic() - sent.due
        self._under_way -= 1
        self._free.append(connection)
        if sent.request_id and sent.status == 200:
            self._known.append(sent.request_id)

    def lose(self, connection: _Connection, sent: Sent | None) -> None:
        """A connection is gone, with the request that was under way on it."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if sent is not None:
            sent.seconds = monotonic() - sent.due
            self._under_way -= 1

    def _send(self, phase: str, due: float) -> None:
        self._turn += 1
        if due >= self._scrape_due:
            self._scrape_due = due + SCRAPE_PERIOD_SECONDS
            self._send_one(phase, METRICS, due)
        kind = self._kinds[self._turn % len(self._kinds)]
        if kind == READ and not self._known:
            kind = PREDICT
        self._send_one(phase, kind, due)

    def _send_one(self, phase: str, kind: str, due: float) -> None:
        sent = Sent(phase, kind, due, monotonic() - due)
        self.sent.append(sent)
        connection = self._connection()
        if connection is None:
            sent.status = UNSENT
            return
        self._under_way += 1
        connection.send(sent, self._request(kind))

    def _request(self, kind: str) -> bytes:
        if kind == READ:
            return get(f"/explanations/{self._known[self._turn % len(self._known)]}")
        choices = self.mix.requests[kind]
        return choices[self._turn % len(choices)]

    def _connection(self) -> _Connection | None:
        if self._free:
            return self._free.pop()
        if len(self._open) >= MOST_CONNECTIONS:
            return None
        connection = _Connection(self)
        self._open.add(connection)
        task = self._loop.create_task(self._connect(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return connection

    async def _connect(self, connection: _Connection) -> None:
        address = urlsplit(self.url)
        try:
            await self._loop.create_connection(lambda: connection, address.hostname, address.port)
        except OSError:
            connection.connection_lost(None)
