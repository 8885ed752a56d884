"""Replays of stored decisions, in processes that can be killed and share no memory with ours."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from service.auth import Caller
from service.compute import (
    Child,
    ChildLostError,
    ChildStartError,
    Finished,
    NotHere,
    NotHereError,
    Progress,
    Raised,
)
from service.errors import ForbiddenError, OverloadedError, ReplayFailedError, VersionGoneError
from service.evidence import Record
from service.logs import log
from service.replaying import Recorded
from service.settings import Settings
from service.views import Views
from service.watching import Watch

FUNCTION = "service.replaying:replay_task"
MOST_AT_ONCE = 2
"""In one process of the service: each loads a model of its own."""

NICENESS = 5
"""Above workers': somebody waits."""

REST_SECONDS = 60.0
"""How long a child waits for another replay before it gives its memory back."""

OnProgress = Callable[[Mapping[str, object]], None]


class ReplayLostError(Exception):
    """The process that replayed ended, or what it ran raised; the message says how."""


async def replay_apart(
    recorded: Recorded, settings: Settings, on_progress: OnProgress | None = None
) -> bytes:
    """The report as JSON, computed in a child like those of workers, with their libraries' threads
    and their limit of time without progress.

    Raises NotHereError where the registry lacks the version, ReplayLostError. Cost: 2 to 3 s for
    the child and its model, and what the explanation took.
    """
    child = await _started(settings)
    try:
        return await _replayed(child, recorded, settings, on_progress)
    finally:
        await child.kill()


async def _started(settings: Settings) -> Child:
    try:
        return await Child.start(
            FUNCTION,
            limit_seconds=settings.job_time_limit_seconds,
            niceness=min(NICENESS, settings.job_niceness),
            environment=settings.environment(),
        )
    except ChildStartError as error:
        raise ReplayLostError(str(error)) from None


async def _replayed(
    child: Child, recorded: Recorded, settings: Settings, on_progress: OnProgress | None = None
) -> bytes:
    """Raises as `replay_apart`."""
    child.send([recorded.to_bytes()])
    while True:
        try:
            reply = await child.receive(settings.job_time_limit_seconds)
        except ChildLostError as error:
            raise ReplayLostError(str(error)) from None
        match reply:
            case Progress(facts) if on_progress is not None:
                on_progress(facts)
            case Finished(body):
                return body
            case NotHere(reason):
                raise NotHereError(reason)
            case Raised(kind, place):
                log.error("replay_raised", request_id=recorded.request_id, place=place)
                raise ReplayLostError(f"the replay failed with {kind}")


class Resting:
    """Children between two replays, which need not start one then: an auditor looks at more than
    one record. They keep libraries; each replay reads everything else anew. For one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: dict[Child, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[int]] = set()
        self._is_closed = False

    async def replay(self, recorded: Recorded) -> bytes:
        """As `replay_apart`; the child stays for the next one unless this one failed in it."""
        child = self._taken() or await _started(self._settings)
        try:
            report = await _replayed(child, recorded, self._settings)
        except NotHereError:
            await self._rest(child)
            raise
        except BaseException:
            await child.kill()
            raise
        await self._rest(child)
        return report

    async def close(self) -> None:
        """End those that rest; from now on none does."""
        self._is_closed = True
        for child in list(self._idle):
            self._end(child)
        await asyncio.gather(*self._ending)

    async def _rest(self, child: Child) -> None:
        if self._is_closed:
            await child.kill()
            return
        loop = asyncio.get_running_loop()
        self._idle[child] = loop.call_later(REST_SECONDS, self._end, child)

    def _taken(self) -> Child | None:
        """One that is still there: the kernel ends what takes too much memory."""
        while self._idle:
            child, end = self._idle.popitem()
            end.cancel()
            if child.is_alive:
                return child
            self._kill(child)
        return None

    def _end(self, child: Child) -> None:
        self._idle.pop(child).cancel()
        self._kill(child)

    def _kill(self, child: Child) -> None:
        killing = asyncio.ensure_future(child.kill())
        self._ending.add(killing)
        killing.add_done_callback(self._ending.discard)


@dataclass(slots=True, eq=False)
class Replays:
    """Replays over HTTP; one per process."""

    watch: Watch
    views: Views
    settings: Settings
    children: Resting = field(init=False)
    _running: int = 0

    def __post_init__(self) -> None:
        self.children = Resting(self.settings)

    async def replay(self, caller: Caller, request_id: str) -> bytes:
        """The report about a record the caller may read, as JSON.

        Raises NotFoundError, StoreAwayError, OverloadedError beyond MOST_AT_ONCE, VersionGoneError,
        ForbiddenError for a role with masked columns, ReplayFailedError, also when it takes longer
        than an explanation may.
        """
        record = await self.watch.find(caller, request_id, what="replay")
        if not self.views.sees_all(caller, record):
            raise ForbiddenError("gaps tell of values, some of which this role may not see")
        if self._running >= MOST_AT_ONCE:
            raise OverloadedError
        self._running += 1
        try:
            async with asyncio.timeout(self.settings.explanation_deadline_seconds):
                report = await self.children.replay(Recorded.of(record))
        except NotHereError:
            raise VersionGoneError from None
        except (ReplayLostError, TimeoutError) as error:
            log.error("replay_failed", request_id=request_id, reason=str(error))
            raise ReplayFailedError from None
        finally:
            self._running -= 1
        self._count(record, orjson.loads(report))
        return report

    def _count(self, record: Record, report: Mapping[str, object]) -> None:
        outcome = "different" if report["reason"] is None else "not_compared"
        outcome = "equal" if report["equal"] else outcome
        method = orjson.loads(record.decision.header)["method"] or "none"
        self.watch.metrics.replays.labels(record.decision.model, method, outcome).inc()
