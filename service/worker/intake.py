"""What a lane is to do next: jobs claimed, and fetched from the evidence store."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.compute import NICENESS, Finished
from service.evidence import StoreBusyError, StoreUnavailableError
from service.logs import log
from service.queue import Claim, JobClaims, end
from service.queue_metrics import JobMetrics
from service.worker.concluding import Backoff, Concluder
from service.worker.work import Absent, Assignment, Fetched, GivenUp, Uncomputable, Work

MOST_DELIVERIES = 3
MOST_JOBS = 64
BATCH_SECONDS = 0.25
"""Jobs held at once should not take longer together: another worker may be idle."""

LIGHT_SECONDS = 0.01
"""Jobs that take longer on average are not taken ahead: waiting for a claim is little beside them,
and a worker that is idle should have them.
"""

LONGEST_KEPT_SECONDS = 2 * BATCH_SECONDS
"""What was taken ahead is handed back then."""

RECLAIM_SECONDS = 1.0
_NEWEST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds: see the settings of these names."""

    lease_seconds: float
    job_time_limit_seconds: float
    deadline_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What all lanes of a worker work with."""

    work: Work
    claims: JobClaims
    concluder: Concluder
    metrics: JobMetrics
    limits: Limits
    niceness: int = NICENESS


@dataclass(slots=True, eq=False)
class Item:
    """A job to compute. has_crashed: its child ended under it."""

    claim: Claim
    assignment: Assignment
    has_crashed: bool = False


class Intake:
    """Claims jobs for one lane, and takes the next ones ahead while light ones are computed.

    What is taken ahead is handed back when the lane does not come for it in time: behind a job
    that turns out heavy, nothing waits that another worker could do.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.held: dict[str, Claim] = {}
        self._ahead: asyncio.Task[list[Item]] | None = None
        self._is_wanted = asyncio.Event()
        self._may_go_ahead = False
        self._reclaim_at = 0.0
        self._mean_seconds = BATCH_SECONDS
        self._suspects: set[str] = set()

    async def take(self) -> list[Item]:
        """The next jobs to compute, none after a while without any. Raises QueueAwayError."""
        items: list[Item] = []
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._is_wanted.set()
            items = await ahead
        if not items:
            items = await self._prepared(await self._claimed())
        if self._may_go_ahead and time.monotonic() < self._reclaim_at:
            self._is_wanted.clear()
            self._ahead = asyncio.create_task(self._keep_ahead())
        return items

    def computed(self, seconds: float) -> None:
        """How long a job took: what a batch is made by."""
        self._mean_seconds += _NEWEST_SHARE * (seconds - self._mean_seconds)

    def conclude(self, item: Item, ending: Finished | GivenUp | None) -> None:
        """A job has ended; its lease is the concluder's from now on. None: its record is final."""
        self._shared.concluder.conclude(item.claim, item.assignment, ending)
        del self.held[item.claim.entry]
        self._suspects.discard(item.claim.entry)

    async def pass_on(self, claim: Claim, assignment: Assignment | None, reason: str) -> None:
        """To another worker, or to this one later; given up when nobody could by the deadline."""
        age = time.time() - claim.job.received_us / 1e6
        is_late = age > self._shared.limits.deadline_seconds
        log.warning("job_passed_on", reason=reason, is_late=is_late, **facts_of(claim))
        del self.held[claim.entry]
        if is_late:
            ending = None if assignment is None else GivenUp("failed", f"no worker: {reason}")
            self._shared.concluder.conclude(claim, assignment, ending)
        else:
            self._shared.metrics.count(claim.job.priority, "handed_back")
            await self._shared.claims.hand_back(
                [claim], backoff_seconds=self._shared.limits.lease_seconds
            )

    def suspect(self, item: Item) -> None:
        """A child ended under it: this delivery counts, whatever becomes of it."""
        self._suspects.add(item.claim.entry)

    def let_others_renew(self) -> None:
        """The queue was away: who holds a lease that ran out meanwhile may renew it first."""
        self._reclaim_at = time.monotonic() + self._shared.limits.lease_seconds

    async def hand_back(self) -> None:
        """Everything held that was not begun. Raises QueueAwayError."""
        await self._end_ahead()
        unbegun = [claim for entry, claim in self.held.items() if entry not in self._suspects]
        await self._shared.claims.hand_back(unbegun)

    async def drop(self) -> None:
        """Everything held is renewed no longer: its leases run out."""
        await self._end_ahead()
        self.held.clear()
        self._suspects.clear()

    async def _end_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await end(ahead)
            if not ahead.cancelled() and (error := ahead.exception()) is not None:
                log.warning("nothing_taken_ahead", reason=str(error))

    async def _keep_ahead(self) -> list[Item]:
        claims = await self._shared.claims.claim(self._most, block_seconds=None)
        items = await self._prepared(claims)
        try:
            async with asyncio.timeout(LONGEST_KEPT_SECONDS):
                await self._is_wanted.wait()
        except TimeoutError:
            await self._return([item.claim for item in items])
            return []
        return items

    async def _return(self, claims: Sequence[Claim]) -> None:
        self._may_go_ahead = False
        try:
            await self._shared.claims.hand_back(claims)
        finally:
            self._let_go(claims)

    async def _claimed(self) -> list[Claim]:
        if time.monotonic() >= self._reclaim_at:
            claim = await self._shared.claims.reclaim()
            if claim is not None:
                return [claim]
            self._reclaim_at = time.monotonic() + RECLAIM_SECONDS
        return await self._shared.claims.claim(self._most)

    @property
    def _most(self) -> int:
        """Half of what may be held: as much again is computed meanwhile."""
        return min(MOST_JOBS, max(1, int(BATCH_SECONDS / 2 / max(self._mean_seconds, 1e-6))))

    async def _prepared(self, claims: Sequence[Claim]) -> list[Item]:
        """The items to compute, those of one model version together."""
        # One reclaimed job is no full batch: nothing is ahead of it that could end with it.
        is_full = len(claims) >= self._most
        self._may_go_ahead = is_full and self._mean_seconds <= LIGHT_SECONDS
        self.held |= {claim.entry: claim for claim in claims}
        now = time.time()
        for claim in claims:
            self._shared.metrics.waited(claim.job.priority, now - claim.queued_ms / 1000)
        try:
            items = await self._items(claims)
        except BaseException:
            self._let_go(claims)
            raise
        return sorted(items, key=lambda item: (item.claim.job.model, item.claim.job.version))

    async def _items(self, claims: Sequence[Claim]) -> list[Item]:
        items = []
        for claim, found in zip(claims, await self._fetch(claims), strict=True):
            if found is Absent.FINAL:
                self._shared.concluder.conclude(claim, None, None)
                del self.held[claim.entry]
            elif found is Absent.UNKNOWN:
                await self.pass_on(claim, None, "the evidence store has no such record")
            elif isinstance(found, Uncomputable):
                self.conclude(Item(claim, found.assignment), GivenUp("failed", found.reason))
            elif claim.deliveries > MOST_DELIVERIES:
                reason = f"{claim.deliveries - 1} deliveries ended without a result"
                self.conclude(Item(claim, found), GivenUp("dead", reason))
            else:
                items.append(Item(claim, found))
        return items

    async def _fetch(self, claims: Sequence[Claim]) -> Sequence[Fetched]:
        if not claims:
            return []
        backoff = Backoff()
        while True:
            try:
                return await self._shared.work.fetch(claims)
            except (StoreUnavailableError, StoreBusyError) as error:
                log.warning("records_not_fetched", jobs=len(claims), reason=str(error))
                await backoff.pause()

    def _let_go(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.held.pop(claim.entry, None)


def facts_of(claim: Claim) -> dict[str, object]:
    """What the log says of a job."""
    job = claim.job
    return {
        "tenant": job.tenant,
        "request_id": job.request_id,
        "trace_id": job.trace_id,
        "model": job.model,
        "version": job.version,
        "deliveries": claim.deliveries,
    }
