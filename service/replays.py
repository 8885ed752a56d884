"""Replays of stored decisions, each in a process of its own that can be killed."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    limit = settings.job_time_limit_seconds
    try:
        child = await Child.start(
            FUNCTION,
            limit_seconds=limit,
            niceness=min(NICENESS, settings.job_niceness),
            environment=settings.environment(),
        )
    except ChildStartError as error:
        raise ReplayLostError(str(error)) from None
    try:
        child.send([recorded.to_bytes()])
        while True:
            match await child.receive(limit):
                case Progress(facts) if on_progress is not None:
                    on_progress(facts)
                case Finished(body):
                    return body
                case NotHere(reason):
                    raise NotHereError(reason)
                case Raised(kind, place):
                    log.error("replay_raised", request_id=recorded.request_id, place=place)
                    raise ReplayLostError(f"the replay failed with {kind}")
    except ChildLostError as error:
        raise ReplayLostError(str(error)) from None
    finally:
        await child.kill()


@dataclass(slots=True, eq=False)
class Replays:
    """Replays over HTTP; one per process."""

    watch: Watch
    views: Views
    settings: Settings
    _running: int = 0

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
                report = await replay_apart(Recorded.of(record), self.settings)
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
