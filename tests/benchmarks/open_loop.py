"""Requests sent at a fixed rate, whatever the server does; latency counts from their due time."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

CONNECTIONS = 512


@dataclass(frozen=True)
class Sent:
    """One request: of which kind, its status, and seconds from when it was due to its answer."""

    kind: str
    status: int
    seconds: float


@dataclass(frozen=True)
class Planned:
    """One request to be sent; kind: what it is called in the results."""

    kind: str
    path: str
    body: bytes
    headers: tuple[str, ...] = ()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, planned: Planned) -> int:
        lines = (
            f"POST {planned.path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(planned.body)}",
            *planned.headers,
        )
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + planned.body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        await self._reader.readexactly(length)
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


async def send_at(url: str, requests: Sequence[Planned], *, per_second: float) -> list[Sent]:
    """Send them in order, each when its time has come, over as many connections as it takes.

    Raises RuntimeError when more than CONNECTIONS wait at once: the rate is beyond the server.
    """
    address = urlsplit(url)
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    connections = [
        _Connection(*await asyncio.open_connection(address.hostname, address.port))
        for _ in range(CONNECTIONS)
    ]
    for connection in connections:
        free.put_nowait(connection)
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.1

    async def send(number: int, planned: Planned) -> Sent:
        due = start + number / per_second
        connection = await free.get()
        status = await connection.ask(planned)
        free.put_nowait(connection)
        return Sent(planned.kind, status, loop.time() - due)

    running: list[asyncio.Task[Sent]] = []
    for number, planned in enumerate(requests):
        wait = start + number / per_second - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        if free.empty():
            raise RuntimeError(f"{CONNECTIONS} requests wait at once: the rate is too high")
        running.append(asyncio.create_task(send(number, planned)))
    sent = await asyncio.gather(*running)
    for connection in connections:
        connection.close()
    return sent


def percentile(sent: Sequence[Sent], kind: str, share: float) -> float:
    """Milliseconds within which that share of the requests of a kind were answered."""
    ordered = sorted(one.seconds for one in sent if one.kind == kind)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def timed(url: str, requests: Sequence[Planned], *, per_second: float) -> tuple[list[Sent], float]:
    """`send_at`, and how long it took in all."""
    started = time.perf_counter()
    sent = asyncio.run(send_at(url, requests, per_second=per_second))
    return sent, time.perf_counter() - started
