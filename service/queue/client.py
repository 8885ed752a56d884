"""The side that submits jobs. It costs a request at most its short timeout, then nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self, cast

from service.logs import log, place_of
from service.queue import scripts
from service.queue.errors import QueueAwayError, QueueFullError
from service.queue.jobs import PRIORITIES, Job, Priority
from service.queue.notices import Notices, encode_notices
from service.queue.patience import answered_within
from service.queue.server import (
    CHANNEL,
    FACTS,
    GROUP,
    INDEX,
    PARKED,
    STREAMS,
    QueueMemoryError,
    connect,
    end,
    translated,
)

MOST_AT_ONCE = 64
PROBE_SECONDS = 1.0
PATIENT_SECONDS = 1.0
"""For a probe of a server that was there, and for the first: nobody waits for its answer, and a
busy machine takes its time. One that was away has to be as quick as a request needs it.
"""

BACKSTOP_SECONDS = 10.0
"""redis-py's own limit, which counts pauses of the event loop as silence: never the one that ends
a call.
"""

SERVERS_SHARE = 0.8
"""Of the request's timeout: the server's silence must be known before the request gives up."""

LOW_SHARE = 0.8
"""Of the queue, for jobs of low priority: what nobody waits for leaves room for what is."""

_SUBMIT_KEYS = [INDEX, *STREAMS.values()]
_STATE_KEYS = [INDEX, FACTS, *STREAMS.values()]
_PLACE = {priority: str(2 + n) for n, priority in enumerate(PRIORITIES)}
_STATE_NUMBERS = 5


@dataclass(frozen=True, slots=True)
class StreamState:
    """Jobs of one stream by state; oldest_seconds: age of its oldest unfinished one, 0 for none."""

    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the server last said. depth: all unfinished jobs, running ones too."""

    depth: int
    streams: Mapping[Priority, StreamState]


class JobQueue:
    """Jobs for workers, through any single Redis or Valkey >= 7; for one event loop.

    Jobs that arrive in one turn of the loop, and while the server answers, go in one call. After a
    failure nothing more is tried (`is_available` is False) until a probe in the background, one a
    second, has had an answer.
    """

    def __init__(self, url: str, *, max_queue: int, request_timeout_seconds: float) -> None:
        self._patient_seconds = max(PATIENT_SECONDS, request_timeout_seconds)
        self._servers_seconds = SERVERS_SHARE * request_timeout_seconds
        self._client = connect(url, timeout_seconds=BACKSTOP_SECONDS)
        self._submit = self._client.register_script(scripts.SUBMIT)
        self._ask_held = self._client.register_script(scripts.HELD)
        self._ask_state = self._client.register_script(scripts.STATE)
        self._max_queue = max_queue
        self._timeout = request_timeout_seconds
        self._waiting: list[tuple[Job, asyncio.Future[bool]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._is_available = False
        self._state = QueueState(0, {priority: StreamState() for priority in PRIORITIES})
        self.notices = Notices(self._client)
        self._prober: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, url: str, *, max_queue: int = 10_000, request_timeout_seconds: float = 0.1
    ) -> Self:
        """Never fails because the server is away. Raises UsageError for a URL that is none."""
        queue = cls(url, max_queue=max_queue, request_timeout_seconds=request_timeout_seconds)
        await queue._probe(queue._patient_seconds)
        queue._prober = asyncio.create_task(queue._keep_probing())
        return queue

    async def close(self) -> None:
        """Let go of the server; jobs not yet sent are refused."""
        await end(*(task for task in (self._prober, self._flusher) if task is not None))
        _refuse(self._waiting, QueueAwayError("the queue is closed"))
        self._is_available = False
        await self.notices.close()
        with suppress(QueueAwayError), translated():
            await self._client.aclose()

    @property
    def is_available(self) -> bool:
        """The server answered last time; False: `submit` refuses at once."""
        return self._is_available

    @property
    def depth(self) -> int:
        """Unfinished jobs, as of at most about a second ago."""
        return self._state.depth

    @property
    def state(self) -> QueueState:
        """Jobs by stream and state, as of at most about a second ago."""
        return self._state

    def number(self, priority: str, name: str) -> float:
        """One field of a stream's state by its name, for gauges."""
        return float(getattr(self._state.streams[cast("Priority", priority)], name))

    async def submit(self, job: Job) -> bool:
        """Queue a job; False when it is queued or running already. Cost: about 0.2 ms.

        Raises within the request timeout QueueAwayError (the job may be queued all the same) or
        QueueFullError. To be called once the decision's record is committed.
        """
        if not self._is_available:
            raise QueueAwayError("the queue's server did not answer lately")
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        try:
            async with answered_within(self._timeout):
                return await answer
        except TimeoutError:
            raise QueueAwayError("the queue's server did not answer in time") from None

    async def lacking(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of these jobs (up to some hundreds) that are neither queued nor running.

        One call, for who looks after many jobs: submitting them all would say as much, at thirty
        times the cost. Raises QueueAwayError.
        """
        if not jobs:
            return []
        async with self._asking():
            held = await self._ask_held(_SUBMIT_KEYS, [job.field for job in jobs])
        return [job for job, is_held in zip(jobs, held, strict=True) if not is_held]

    async def announce_final(self, tenant: str, request_id: str) -> None:
        """Tell whoever waits that a final explanation is stored (a cancellation, say).

        Raises QueueAwayError; nothing is lost then but time.
        """
        notice = encode_notices("final", [((tenant, request_id), {})])
        async with self._asking():
            await self._client.publish(CHANNEL, notice)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """A call that somebody waits for: short, and none while the server is away."""
        if not self._is_available:
            raise QueueAwayError("the queue's server did not answer lately")
        try:
            with translated():
                async with answered_within(self._servers_seconds):
                    yield
        except QueueAwayError as error:
            self._open_breaker(error)
            raise

    async def _flush(self) -> None:
        while self._waiting:
            # Whoever gave up meanwhile has been answered: its record waits for the outbox.
            batch = [pair for pair in self._waiting[:MOST_AT_ONCE] if not pair[1].done()]
            del self._waiting[:MOST_AT_ONCE]
            try:
                await self._send(batch)
            except QueueAwayError as error:
                if not isinstance(error, QueueMemoryError):
                    self._open_breaker(error)
                _refuse(batch, error)

    async def _send(self, batch: Sequence[tuple[Job, asyncio.Future[bool]]]) -> None:
        low = max(1, int(LOW_SHARE * self._max_queue))
        arguments: list[str | bytes | int] = [self._max_queue, low]
        for job, _ in batch:
            arguments += (_PLACE[job.priority], job.field, job.encode())
        with translated():
            async with answered_within(self._servers_seconds):
                answers = await self._submit(_SUBMIT_KEYS, arguments)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if answer < 0:
                future.set_exception(QueueFullError(f"{self._max_queue} jobs at most"))
            else:
                future.set_result(answer == 1)

    async def _keep_probing(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                seconds = self._patient_seconds if self._is_available else self._servers_seconds
                await self._probe(seconds)
            except Exception as error:  # noqa: BLE001 - without it the breaker stays as it is
                log.error("queue_probe_failed", place=place_of(error))

    async def _probe(self, seconds: float) -> None:
        """Ask for the state; the answer closes the breaker, its absence opens it.

        An answer that took so long that a request gave up meanwhile closes nothing.
        """
        was_available = self._is_available
        try:
            with translated():
                async with answered_within(seconds):
                    if not self._is_available:  # connections that lie idle may be dead as well
                        await self._client.connection_pool.disconnect(inuse_connections=False)
                    numbers = await self._ask_state(_STATE_KEYS, [GROUP, PARKED])
        except QueueAwayError as error:
            self._open_breaker(error)
            return
        self._state = _state_of(numbers)
        if not was_available:
            log.info("queue_available", depth=self._state.depth)
            self._is_available = True

    def _open_breaker(self, error: QueueAwayError) -> None:
        if self._is_available:
            log.warning("queue_away", reason=str(error))
        self._is_available = False
        waiting, self._waiting = self._waiting, []
        _refuse(waiting, error)


def _refuse(pairs: Sequence[tuple[Job, asyncio.Future[bool]]], error: QueueAwayError) -> None:
    for _, future in pairs:
        if not future.done():
            future.set_exception(QueueAwayError(str(error)))


def _state_of(numbers: Sequence[int]) -> QueueState:
    streams = {}
    for n, priority in enumerate(PRIORITIES):
        start = 1 + n * _STATE_NUMBERS
        ready, running, delayed, dead, age = numbers[start : start + _STATE_NUMBERS]
        streams[priority] = StreamState(ready, running, delayed, dead, age / 1000)
    return QueueState(numbers[0], streams)
