"""Which explanations' quality is measured, and the jobs that do it."""

from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic

from service.keyed_hash import keyed_hash
from service.queue import Job, JobQueue, QueueError
from service.secrets import QUALITY_KEYS, Keyring

MINUTE = 60.0
BUSY_JOBS = 16
"""With so many unfinished jobs the queue is for explanations alone."""

_WHOLE = 2**64


@dataclass(slots=True, eq=False)
class QualitySampling:
    """A keyed share of explanations, at most so many a minute from this process and none while the
    queue is busy; for one event loop.

    Clients choose request IDs, so an unkeyed hash would let them choose what is measured. Over the
    limit the first ones of each minute count, so the sample is of times with little traffic too.
    """

    queue: JobQueue
    keyring: Keyring
    share: float
    most_per_minute: int
    _minute_ends: float = 0.0
    _left: int = 0

    def takes(self, tenant: str, request_id: str) -> bool:
        """This explanation is to be measured: then it is one of this minute's. Cost: 2 us, while
        there are any left.
        """
        now = monotonic()
        if now >= self._minute_ends:
            self._minute_ends, self._left = now + MINUTE, self.most_per_minute
        if not self._left or self.queue.depth >= BUSY_JOBS:
            return False
        code = keyed_hash(self.keyring.key(tenant, QUALITY_KEYS), request_id.encode())
        if int.from_bytes(code[:8]) >= self.share * _WHOLE:
            return False
        self._left -= 1
        return True

    async def submit(self, explained: Job) -> None:
        """Queue the measuring of what that job explained, or could have; lost, it is no loss."""
        job = replace(explained, kind="quality", priority="low")
        with suppress(QueueError):
            await self.queue.submit(job)
