"""A worker process: lanes, leases, heartbeat, and an end that hands back what it holds."""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.errors import UsageError
from service.logs import log
from service.queue import JobClaims, QueueAwayError, end
from service.queue_metrics import JobMetrics
from service.settings import Settings
from service.worker.concluding import Concluder
from service.worker.exposing import exposed
from service.worker.intake import Limits, Shared
from service.worker.lane import Lane
from service.worker.work import Work

RENEWALS_PER_LEASE = 4
HEARTBEAT_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""What a job may still take after SIGTERM; then its child is killed and the lease handed back."""


def worker_name() -> str:
    """A name no other process has: host, process, and what sets this start apart."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Worker:
    """Everything of one worker process; for one event loop."""

    def __init__(
        self,
        work: Work,
        claims: JobClaims,
        metrics: JobMetrics,
        limits: Limits,
        *,
        concurrency: int,
        niceness: int,
    ) -> None:
        self._claims = claims
        self._metrics = metrics
        self._limits = limits
        self._concluder = Concluder(claims, metrics)
        shared = Shared(work, claims, self._concluder, metrics, limits, niceness)
        self._lanes = [Lane(shared) for _ in range(concurrency)]
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Have `run` end in order."""
        self._stopping.set()
        for lane in self._lanes:
            lane.stop()

    async def run(self) -> None:
        """Until `stop`, or until something here fails that should not: then it raises."""
        background = _started(self._renew(), self._beat(), self._concluder.run())
        lanes = _started(*(lane.run() for lane in self._lanes))
        stopping = asyncio.create_task(_until(self._stopping))
        watched = [*background, *lanes, stopping]
        in_order = False
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            await self._end(lanes)
            for task in done:
                task.result()
            in_order = True
        finally:
            await end(*watched)
            with suppress(QueueAwayError):
                await self._claims.leave(in_order=in_order)

    async def _end(self, lanes: list[asyncio.Task[None]]) -> None:
        for lane, task in zip(self._lanes, lanes, strict=True):
            lane.stop()
            if lane.is_idle:
                task.cancel()
        await asyncio.wait(lanes, timeout=GRACE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._concluder.idle()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease_seconds / RENEWALS_PER_LEASE)
            held = [*self._concluder.held, *(claim for lane in self._lanes for claim in lane.held)]
            try:
                await self._claims.renew(held)
            except QueueAwayError as error:
                log.warning("leases_not_renewed", jobs=len(held), reason=str(error))

    async def _beat(self) -> None:
        while True:
            self._metrics.beat()
            await asyncio.sleep(HEARTBEAT_SECONDS)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _started(*coroutines: Coroutine[object, object, None]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(coroutine) for coroutine in coroutines]


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker process is run, beside the settings it shares with `serve`.

    metrics_socket: where the API that started this worker asks for its series.
    """

    concurrency: int = 1
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    metrics_socket: Path | None = None


OpenWork = Callable[[Settings, CollectorRegistry, str], Awaitable[Work]]
"""From the settings, where metrics go and the worker's name."""


def run_worker(settings: Settings, open_work: OpenWork, options: Options) -> None:
    """Work until SIGTERM or Ctrl-C. CommandError says in one line why it cannot."""
    if settings.redis_url is None:
        raise UsageError(
            "a worker needs EXPLAIND_REDIS_URL, the queue it works for "
            "(`explaind serve` without it starts its own queue and worker)"
        )
    os.environ.update(settings.environment())  # computing children read the same settings
    with asyncio.Runner() as runner:
        runner.run(_run(settings, settings.redis_url, open_work, options))


async def _run(settings: Settings, url: str, open_work: OpenWork, options: Options) -> None:
    name, registry = worker_name(), CollectorRegistry()
    limits = Limits(
        settings.lease_seconds,
        settings.job_time_limit_seconds,
        settings.explanation_deadline_seconds,
    )
    claims = JobClaims(url, consumer=name, lease_seconds=settings.lease_seconds)
    work = await open_work(settings, registry, name)
    worker = Worker(
        work,
        claims,
        JobMetrics(registry),
        limits,
        concurrency=options.concurrency,
        niceness=settings.job_niceness,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        async with exposed(
            registry,
            name,
            host=options.metrics_host,
            port=options.metrics_port,
            socket=options.metrics_socket,
        ):
            log.info("worker_started", worker=name, concurrency=options.concurrency)
            await worker.run()
    finally:
        await work.close()
        await claims.close()
        log.info("worker_ended", worker=name)
