"""What the workers of the queue benchmark run: nothing, and the time at which it was done."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis


def moment() -> float:
    return time.time()


def compute(_: bytes, __: Any) -> bytes:
    """Our child's function."""
    return repr(time.time()).encode()


class Results:
    """Results beside the queue, where the others keep theirs; what ends together goes together,
    as it does into the evidence store.
    """

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url)
        self._waiting: list[tuple[str, bytes]] = []
        self._flush: asyncio.Task[None] | None = None

    def refused(self, kind: str) -> None: ...

    async def store(self, name: str, body: bytes) -> None:
        self._waiting.append((name, body))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._write())
        await asyncio.shield(self._flush)

    async def _write(self) -> None:
        await asyncio.sleep(0)
        while self._waiting:
            taken, self._waiting = self._waiting, []
            await self._client.mset({f"result:{name}": body for name, body in taken})


@dataclass(frozen=True)
class NoOpAssignment:
    results: Results
    name: str
    task: bytes = b"{}"

    async def store(self, ending: Any) -> None:
        await self.results.store(self.name, ending.body)


@dataclass(frozen=True)
class NoOpWork:
    results: Results
    function: str = "queue_noop:compute"
    environment: Mapping[str, str] = field(default_factory=dict)

    async def fetch(self, claims: Sequence[Any]) -> list[Any]:
        return [NoOpAssignment(self.results, claim.job.request_id) for claim in claims]

    async def close(self) -> None:
        pass


async def open_work(settings: Any, _: CollectorRegistry, __: str) -> NoOpWork:
    return NoOpWork(Results(settings.redis_url))


def run_ours() -> None:
    from service import compute
    from service.logs import configure_logs
    from service.settings import Settings
    from service.worker.running import Options, run_worker

    compute.NICENESS = 0  # as the others: on a busy machine it would decide
    configure_logs("ERROR")
    run_worker(Settings.load(), open_work, Options())


def run_rq(kind: str) -> None:
    from redis import Redis as BlockingRedis
    from rq import Queue, SimpleWorker, Worker

    connection = BlockingRedis.from_url(os.environ["EXPLAIND_REDIS_URL"])
    chosen = {"simple": SimpleWorker, "forking": Worker}[kind]
    queue = Queue("noop", connection=connection)
    chosen([queue], connection=connection).work(logging_level="ERROR")


if __name__ == "__main__":
    run_ours() if sys.argv[1] == "ours" else run_rq(sys.argv[1])
