"""One child and what it is given to do."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from service.compute import (
    Child,
    ChildLostError,
    ChildStartError,
    Finished,
    NotHere,
    Progress,
    Raised,
    Reply,
)
from service.evidence import StoreBusyError, StoreUnavailableError
from service.logs import log
from service.queue import Claim, QueueAwayError
from service.worker.concluding import Backoff
from service.worker.intake import Intake, Item, Shared, facts_of
from service.worker.work import Absent, GivenUp

LOOK_SECONDS = 2.0
"""Between two looks at the record of a job that takes long."""


class _CalledOffError(Exception):
    """Nobody wants the result of the current job any more."""


class Lane:
    """Takes jobs, gives them to its child in turn, and concludes them.

    A job whose child ends under it runs again alone, in a new child; the second time it is given
    up. So are jobs that were delivered too often: whatever held them ended each time.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._intake = Intake(shared)
        self._child: Child | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._backoff = Backoff()

    @property
    def held(self) -> Iterable[Claim]:
        """Leases to be renewed."""
        return self._intake.held.values()

    @property
    def is_idle(self) -> bool:
        """It holds no job."""
        return not self._intake.held

    def stop(self) -> None:
        """Let the current job end and begin no other."""
        self._is_stopping = True

    async def run(self) -> None:
        """Until stopped. The jobs it then holds are for JobClaims.leave to hand back."""
        try:
            while not self._is_stopping:
                try:
                    await self._turn()
                    self._backoff.reset()
                except (QueueAwayError, ChildStartError) as error:
                    log.warning("worker_waits", reason=str(error))
                    if isinstance(error, QueueAwayError):
                        self._intake.let_others_renew()
                    # What is not concluded by now is renewed no longer: its lease runs out.
                    await self._intake.drop()
                    await self._backoff.pause()
        finally:
            await self._intake.drop()
            await self._kill_child()

    async def _turn(self) -> None:
        await self._shared.concluder.room()
        if self._child is None:
            self._child = await self._start_child()
        try:
            await self._compute(await self._intake.take())
        except ChildStartError:
            await self._intake.hand_back()
            raise

    async def _compute(self, items: list[Item]) -> None:
        is_alone = False
        while items and not self._is_stopping:
            turn = items[:1] if is_alone else items
            ended, lost = await self._run(turn)
            items = items[ended:]
            if lost is None:
                continue
            is_alone = True
            culprit, items = items[0], items[1:]
            log.warning("child_lost", reason=lost, **facts_of(culprit.claim))
            if culprit.has_crashed:
                self._intake.conclude(culprit, GivenUp("dead", f"{lost}, twice"))
            else:
                culprit.has_crashed = True
                self._intake.suspect(culprit)
                items.append(culprit)

    async def _run(self, turn: Sequence[Item]) -> tuple[int, str | None]:
        """How many of them ended, and how the child was lost if it was."""
        if self._child is None:
            self._child = await self._start_child()
        child = self._child
        child.send([item.assignment.task for item in turn])
        try:
            for n, item in enumerate(turn):
                await self._end(item, await self._reply(child, item))
                if self._is_stopping:
                    return n + 1, None
        except ChildLostError as error:
            self._child = None
            return n, str(error)
        except _CalledOffError:
            log.info("job_called_off", **facts_of(item.claim))
            await self._kill_child()
            self._intake.conclude(item, None)
            return n + 1, None
        except BaseException:
            await self._kill_child()  # the next turn must not hear of what it has yet to do
            raise
        return len(turn), None

    async def _reply(self, child: Child, item: Item) -> Reply:
        look_at = time.monotonic() + LOOK_SECONDS
        while True:
            reply = await child.receive(self._shared.limits.job_time_limit_seconds)
            if not isinstance(reply, Progress):
                return reply
            if time.monotonic() >= look_at:
                if await self._is_called_off(item):
                    raise _CalledOffError
                look_at = time.monotonic() + LOOK_SECONDS
            if self._announcing is None or self._announcing.done():
                announce = self._announce(item.claim, reply.facts)
                self._announcing = asyncio.create_task(announce)

    async def _is_called_off(self, item: Item) -> bool:
        """Whether the record became final meanwhile: cancelled, given up, or done elsewhere."""
        with suppress(StoreUnavailableError, StoreBusyError):
            return await self._shared.work.fetch([item.claim]) == [Absent.FINAL]
        return False

    async def _announce(self, claim: Claim, facts: Mapping[str, object]) -> None:
        with suppress(QueueAwayError):
            await self._shared.claims.announce_progress(claim.job.key, facts)

    async def _end(self, item: Item, reply: Reply) -> None:
        match reply:
            case Finished():
                self._shared.metrics.computed(item.claim.job.priority, reply.seconds)
                self._intake.computed(reply.seconds)
                self._intake.conclude(item, reply)
            case Raised(kind, place):
                log.error("job_raised", kind=kind, place=place, **facts_of(item.claim))
                reason = f"the computation failed with {kind}"
                self._intake.conclude(item, GivenUp("failed", reason))
            case NotHere(reason, kind):
                if kind is not None:
                    item.assignment.refused(kind)
                await self._intake.pass_on(item.claim, item.assignment, reason)

    async def _start_child(self) -> Child:
        limit = self._shared.limits.job_time_limit_seconds
        return await Child.start(
            self._shared.work.function,
            limit_seconds=limit,
            niceness=self._shared.niceness,
            environment=self._shared.work.environment,
        )

    async def _kill_child(self) -> None:
        if self._child is not None:
            await self._child.kill()
            self._child = None
