"""Results: into the evidence store first, then off the queue, then told to whoever waits."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from service.evidence import StoreBusyError, StoreUnavailableError
from service.logs import log, place_of
from service.queue import Claim, JobClaims, QueueAwayError
from service.queue_metrics import JobMetrics
from service.worker.work import Assignment, Ending, GivenUp

MOST_WAITING = 64


class Backoff:
    """Growing pauses."""

    def __init__(self, *, first_seconds: float = 0.1, most_seconds: float = 3.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._next = first_seconds

    async def pause(self) -> None:
        """Wait, the next time twice as long."""
        seconds, self._next = self._next, min(self._most, 2 * self._next)
        await asyncio.sleep(seconds)

    def reset(self) -> None:
        """It went well."""
        self._next = self._first


@dataclass(frozen=True, slots=True, eq=False)
class Conclusion:
    """A job's end. assignment None: the store has it already."""

    claim: Claim
    assignment: Assignment | None
    ending: Ending | None

    @property
    def is_dead(self) -> bool:
        """It was given up on the queue's own account."""
        return isinstance(self.ending, GivenUp) and self.ending.outcome == "dead"


class Concluder:
    """Stores and finishes whatever has ended since the last round, for all lanes of a worker.

    While the evidence store or the queue is away it keeps what it has and tries again.
    """

    def __init__(self, claims: JobClaims, metrics: JobMetrics) -> None:
        self._claims = claims
        self._metrics = metrics
        self._ended: list[Conclusion] = []
        self._stored: list[Conclusion] = []
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def held(self) -> Iterable[Claim]:
        """Leases to be renewed meanwhile."""
        return [conclusion.claim for conclusion in (*self._ended, *self._stored)]

    def conclude(self, claim: Claim, assignment: Assignment | None, ending: Ending | None) -> None:
        """Take over a job that has ended."""
        self._ended.append(Conclusion(claim, assignment, ending))
        self._has_work.set()
        self._is_idle.clear()
        if len(self._ended) >= MOST_WAITING:
            self._has_room.clear()

    async def room(self) -> None:
        """Return once there are not too many ends waiting: no new jobs before that."""
        await self._has_room.wait()

    async def idle(self) -> None:
        """Return once everything is concluded."""
        await self._is_idle.wait()

    async def run(self) -> None:
        """For ever."""
        backoff = Backoff()
        while True:
            await self._has_work.wait()
            if await self._round():
                backoff.reset()
            else:
                await backoff.pause()
            if not self._ended and not self._stored:
                self._has_work.clear()
                self._is_idle.set()

    async def _round(self) -> bool:
        """One attempt for everything there is; False when something must be tried again."""
        taken = list(self._ended)
        outcomes = await asyncio.gather(*map(self._store, taken))
        self._ended = [c for c, done in zip(taken, outcomes, strict=True) if done is False] + (
            self._ended[len(taken) :]
        )
        self._stored += [c for c, done in zip(taken, outcomes, strict=True) if done]
        if len(self._ended) < MOST_WAITING:
            self._has_room.set()
        return await self._finish() and all(outcomes)

    async def _store(self, conclusion: Conclusion) -> bool | None:
        """Whether it is stored; None for one that cannot be."""
        if conclusion.assignment is None or conclusion.ending is None:
            return True
        try:
            await conclusion.assignment.store(conclusion.ending)
        except (StoreUnavailableError, StoreBusyError) as error:
            log.warning("result_not_stored", reason=str(error), **_facts(conclusion.claim))
            return False
        except Exception as error:  # noqa: BLE001 - one result must not hold up the others
            # Its lease runs out: it is delivered again, and counted.
            log.error("result_unstorable", place=place_of(error), **_facts(conclusion.claim))
            return None
        return True

    async def _finish(self) -> bool:
        finished = self._stored
        try:
            await self._claims.finish(
                [conclusion.claim for conclusion in finished],
                dead={c.claim.job.key for c in finished if c.is_dead},
            )
        except QueueAwayError as error:
            log.warning("jobs_not_finished", jobs=len(finished), reason=str(error))
            return False
        self._stored = []
        for conclusion in finished:
            self._metrics.count(conclusion.claim.job.priority, _outcome(conclusion.ending))
        return True


def _outcome(ending: Ending | None) -> str:
    if ending is None:
        return "skipped"
    return ending.outcome if isinstance(ending, GivenUp) else "finished"


def _facts(claim: Claim) -> dict[str, object]:
    job = claim.job
    return {"tenant": job.tenant, "request_id": job.request_id, "trace_id": job.trace_id}
