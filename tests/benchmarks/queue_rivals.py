"""Ours, rq and taskiq-redis behind one face: enqueue, how many are done, wait for one."""

import os
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

PROGRAM = str(Path(__file__).with_name("queue_noop.py"))


OWN_KEYS = ("explaind:jobs:high", "explaind:jobs:low", "explaind:jobs:facts")


class Contender(Protocol):
    """One queue and its workers. enqueue returns what `visible_seconds` and `done` need."""

    name: str

    def worker(self) -> list[str]: ...
    async def open(self) -> None: ...
    async def enqueue(self, number: int) -> Any: ...
    async def visible_seconds(self, number: int) -> float: ...
    async def close(self) -> None: ...
    def done(self, client: Redis) -> int: ...  # O(1): counting must cost the server nothing


class Ours:
    def __init__(self, url: str) -> None:
        self.name = "explaind"
        self._url = url

    def worker(self) -> list[str]:
        return [sys.executable, PROGRAM, "ours"]

    async def open(self) -> None:
        from service.queue import JobQueue

        self._client = AsyncRedis.from_url(self._url)
        # Patient as the others: a busy machine must not end the filling of the queue.
        self._queue = await JobQueue.open(
            self._url, max_queue=1_000_000, request_timeout_seconds=2.0
        )
        await self._queue.notices.subscribed()

    async def enqueue(self, number: int) -> Any:
        from service.queue import Job

        name = f"request-{number}"
        job = Job(
            tenant="default",
            request_id=name,
            model="credit",
            version=1,
            digest="sha256:" + "0" * 64,
            priority="high",
            received_us=time.time_ns() // 1000,
        )
        await self._queue.submit(job)
        return name

    async def visible_seconds(self, number: int) -> float:
        async with self._queue.notices.waiting("default", f"request-{number}") as waiting:
            name = await self.enqueue(number)
            while not await waiting.wait(10):
                pass
        found = float(await self._client.get(f"result:{name}") or "nan")
        return time.time() - found

    async def close(self) -> None:
        await self._queue.close()
        await self._client.aclose()

    def done(self, client: Redis) -> int:
        return int(client.dbsize()) - len(OWN_KEYS)  # type: ignore[arg-type]


class Rq:
    def __init__(self, url: str, kind: str) -> None:
        self.name = f"rq {version('rq')}, {kind}"
        self._url = url
        self._kind = kind

    def worker(self) -> list[str]:
        return [sys.executable, PROGRAM, self._kind]

    async def open(self) -> None:
        from rq import Queue

        self._connection = Redis.from_url(self._url)
        self._queue = Queue("noop", connection=self._connection)

    async def enqueue(self, number: int) -> Any:
        return self._queue.enqueue("queue_noop.moment", job_id=f"r{number}", result_ttl=600)

    async def visible_seconds(self, number: int) -> float:
        job = await self.enqueue(number)
        result = job.latest_result(timeout=10)  # blocks on the result's own stream
        return time.time() - float(result.return_value)

    async def close(self) -> None:
        self._connection.close()

    def done(self, client: Redis) -> int:
        return int(client.zcard("rq:finished:noop"))  # type: ignore[arg-type]


class Taskiq:
    def __init__(self, url: str, kind: str) -> None:
        self.name = f"taskiq-redis {version('taskiq-redis')}, {kind}"
        self._kind = kind
        os.environ.update(EXPLAIND_REDIS_URL=url)

    def worker(self) -> list[str]:
        os.environ["BENCHMARK_BROKER"] = self._kind
        options = ["--workers", "1", "--log-level", "ERROR"]
        return [sys.executable, "-m", "taskiq", "worker", "queue_taskiq:broker", *options]

    async def open(self) -> None:
        os.environ["BENCHMARK_BROKER"] = self._kind
        sys.modules.pop("queue_taskiq", None)
        self._module = import_module("queue_taskiq")
        await self._module.broker.startup()

    async def enqueue(self, number: int) -> Any:
        return await self._module.moment.kicker().with_task_id(f"t{number}").kiq()

    async def visible_seconds(self, number: int) -> float:
        task = await self.enqueue(number)
        result = await task.wait_result(check_interval=0.0005, timeout=10)
        return time.time() - float(result.return_value)

    async def close(self) -> None:
        await self._module.broker.shutdown()

    def done(self, client: Redis) -> int:
        return int(client.dbsize()) - int(client.exists("taskiq"))  # type: ignore[arg-type]
