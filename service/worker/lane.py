"""One child and what it is given to do."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
from service.queue import Claim, JobClaims, QueueAwayError
from service.queue_metrics import JobMetrics
from service.worker.concluding import Backoff, Concluder
from service.worker.work import Absent, Assignment, GivenUp, Work

MOST_DELIVERIES = 3
MOST_JOBS = 32
BATCH_SECONDS = 0.25
"""Jobs taken at once should not take longer together: another worker may be idle."""

RECLAIM_SECONDS = 1.0
_NEWEST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds: see the settings of these names."""

    lease_seconds: float
    job_time_limit_seconds: float
    deadline_seconds: float


@dataclass(slots=True, eq=False)
class _Item:
    claim: Claim
    assignment: Assignment
    has_crashed: bool = False


class Lane:
    """Takes jobs, gives them to its child in turn, and concludes them.

    A job whose child ends under it runs again alone, in a new child; the second time it is given
    up. So are jobs that were delivered too often: whatever held them ended each time.
    """

    def __init__(
        self,
        work: Work,
        claims: JobClaims,
        concluder: Concluder,
        metrics: JobMetrics,
        limits: Limits,
    ) -> None:
        self._work = work
        self._claims = claims
        self._concluder = concluder
        self._metrics = metrics
        self._limits = limits
        self._held: dict[str, Claim] = {}
        self._child: Child | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._reclaim_at = 0.0
        self._mean_seconds = BATCH_SECONDS
        self._backoff = Backoff()

    @property
    def held(self) -> Iterable[Claim]:
        """Leases to be renewed."""
        return self._held.values()

    @property
    def is_idle(self) -> bool:
        """It holds no job."""
        return not self._held

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
                    await self._backoff.pause()
        finally:
            await self._kill_child()

    async def _turn(self) -> None:
        await self._concluder.room()
        if self._child is None:
            self._child = await self._start_child()
        claims = await self._take()
        self._held = {claim.entry: claim for claim in claims}
        try:
            for item in claims:
                self._metrics.waited(item.job.priority, time.time() - item.queued_ms / 1000)
            await self._compute(await self._prepare(claims))
        except ChildStartError:
            await self._claims.hand_back(self._held.values())
            raise
        finally:
            # What is not concluded by now is renewed no longer: its lease runs out.
            self._held = {}

    async def _take(self) -> list[Claim]:
        if time.monotonic() >= self._reclaim_at:
            claim = await self._claims.reclaim()
            if claim is not None:
                return [claim]
            self._reclaim_at = time.monotonic() + RECLAIM_SECONDS
        most = int(BATCH_SECONDS / max(self._mean_seconds, 1e-6))
        return await self._claims.claim(min(MOST_JOBS, max(1, most)))

    async def _prepare(self, claims: Sequence[Claim]) -> list[_Item]:
        """The items to compute, those of one model version together."""
        items = []
        for claim, found in zip(claims, await self._fetch(claims), strict=True):
            if found is Absent.FINAL:
                self._concluder.conclude(claim, None, None)
                del self._held[claim.entry]
            elif found is Absent.UNKNOWN:
                await self._pass_on(claim, None, "the evidence store has no such record")
            elif claim.deliveries > MOST_DELIVERIES:
                reason = f"{claim.deliveries - 1} deliveries ended without a result"
                self._conclude(_Item(claim, found), GivenUp("dead", reason))
            else:
                items.append(_Item(claim, found))
        return sorted(items, key=lambda item: (item.claim.job.model, item.claim.job.version))

    async def _fetch(self, claims: Sequence[Claim]) -> Sequence[Assignment | Absent]:
        backoff = Backoff()
        while True:
            try:
                return await self._work.fetch([claim.job for claim in claims])
            except (StoreUnavailableError, StoreBusyError) as error:
                log.warning("records_not_fetched", jobs=len(claims), reason=str(error))
                await backoff.pause()

    async def _compute(self, items: list[_Item]) -> None:
        is_alone = False
        while items and not self._is_stopping:
            turn = items[:1] if is_alone else items
            ended, lost = await self._run(turn)
            items = items[ended:]
            if lost is None:
                continue
            is_alone = True
            culprit, items = items[0], items[1:]
            log.warning("child_lost", reason=lost, **_facts(culprit.claim))
            if culprit.has_crashed:
                self._conclude(culprit, GivenUp("dead", f"{lost}, twice"))
            else:
                culprit.has_crashed = True
                items.append(culprit)

    async def _run(self, turn: Sequence[_Item]) -> tuple[int, str | None]:
        """How many of them ended, and how the child was lost if it was."""
        if self._child is None:
            self._child = await self._start_child()
        child = self._child
        child.send([item.assignment.task for item in turn])
        for n, item in enumerate(turn):
            try:
                reply = await self._reply(child, item)
            except ChildLostError as error:
                self._child = None
                return n, str(error)
            await self._end(item, reply)
            if self._is_stopping:
                return n + 1, None
        return len(turn), None

    async def _reply(self, child: Child, item: _Item) -> Reply:
        while True:
            reply = await child.receive(self._limits.job_time_limit_seconds)
            if not isinstance(reply, Progress):
                return reply
            if self._announcing is None or self._announcing.done():
                announce = self._announce(item.claim, reply.facts)
                self._announcing = asyncio.create_task(announce)

    async def _announce(self, claim: Claim, facts: Mapping[str, object]) -> None:
        with suppress(QueueAwayError):
            await self._claims.announce_progress(claim.job.key, facts)

    async def _end(self, item: _Item, reply: Reply) -> None:
        match reply:
            case Finished():
                self._metrics.computed(item.claim.job.priority, reply.seconds)
                self._mean_seconds += _NEWEST_SHARE * (reply.seconds - self._mean_seconds)
                self._conclude(item, reply)
            case Raised(kind, place):
                log.error("job_raised", kind=kind, place=place, **_facts(item.claim))
                self._conclude(item, GivenUp("failed", f"the computation failed with {kind}"))
            case NotHere(reason):
                await self._pass_on(item.claim, item.assignment, reason)

    def _conclude(self, item: _Item, ending: Finished | GivenUp) -> None:
        self._concluder.conclude(item.claim, item.assignment, ending)
        del self._held[item.claim.entry]

    async def _pass_on(self, claim: Claim, assignment: Assignment | None, reason: str) -> None:
        """To another worker, or to this one later; given up when nobody could by the deadline."""
        age = time.time() - claim.job.received_us / 1e6
        is_late = age > self._limits.deadline_seconds
        log.warning("job_passed_on", reason=reason, is_late=is_late, **_facts(claim))
        del self._held[claim.entry]
        if is_late:
            ending = None if assignment is None else GivenUp("failed", f"no worker: {reason}")
            self._concluder.conclude(claim, assignment, ending)
        else:
            self._metrics.count(claim.job.priority, "handed_back")
            await self._claims.hand_back([claim], backoff_seconds=self._limits.lease_seconds)

    async def _start_child(self) -> Child:
        limit = self._limits.job_time_limit_seconds
        return await Child.start(
            self._work.function, limit_seconds=limit, environment=self._work.environment
        )

    async def _kill_child(self) -> None:
        if self._child is not None:
            await self._child.kill()
            self._child = None


def _facts(claim: Claim) -> dict[str, object]:
    job = claim.job
    return {
        "tenant": job.tenant,
        "request_id": job.request_id,
        "trace_id": job.trace_id,
        "model": job.model,
        "version": job.version,
        "deliveries": claim.deliveries,
    }
