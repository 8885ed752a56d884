"""The side that takes jobs: leases on stream entries, kept by renewing them."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from redis.exceptions import ResponseError

from service.logs import log
from service.queue import scripts
from service.queue.errors import QueueAwayError
from service.queue.jobs import PRIORITIES, Job, JobKey, Priority
from service.queue.notices import encode_notices
from service.queue.server import (
    CHANNEL,
    FACTS,
    GROUP,
    INDEX,
    PARKED,
    STREAMS,
    connect,
    translated,
)

BLOCK_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
FORGOTTEN_SECONDS = 3600.0
MOST_UNREADABLE = 3

_Entry = tuple[bytes, Mapping[bytes, bytes], int]


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A job this worker holds the lease of. deliveries: how often it was handed out, 1 for once."""

    job: Job
    entry: str
    deliveries: int

    @property
    def queued_ms(self) -> int:
        """Milliseconds since 1970 at which it was queued, by the server's clock."""
        return int(self.entry.partition("-")[0])


class JobClaims:
    """The leases of one worker process; for one event loop.

    consumer: a name no other process has. A lease not renewed for lease_seconds may be reclaimed
    by any worker. Every call may raise QueueAwayError; a server that was emptied meanwhile is set
    up again.
    """

    def __init__(self, url: str, *, consumer: str, lease_seconds: float) -> None:
        self._client = connect(url, timeout_seconds=TIMEOUT_SECONDS)
        self._consumer = consumer
        self._lease_ms = int(1000 * lease_seconds)
        register = self._client.register_script
        self._reclaim = register(scripts.RECLAIM)
        self._renew = register(scripts.RENEW)
        self._finish = register(scripts.FINISH)
        self._hand_back = register(scripts.HAND_BACK)
        self._leave = register(scripts.LEAVE)

    async def claim(self, most: int, *, block_seconds: float | None = BLOCK_SECONDS) -> list[Claim]:
        """Up to so many new jobs, of high priority if there are any; waits for the first one.

        block_seconds None: does not wait.
        """
        claims = await self._read(most, {STREAMS["high"]: ">"}, block_ms=None)
        if not claims:
            both = dict.fromkeys(STREAMS.values(), ">")
            block_ms = None if block_seconds is None else int(1000 * block_seconds)
            claims = await self._read(most, both, block_ms=block_ms)
        return claims

    async def reclaim(self) -> Claim | None:
        """One job whose worker gave no sign for a lease, or that was handed back.

        One at a time: had it ended its last worker, nothing else ends with it a second time.
        """
        for priority in PRIORITIES:
            arguments = [GROUP, self._consumer, self._lease_ms, 1]
            found = await self._in_group(self._reclaim, [STREAMS[priority]], arguments)
            entries = [
                (entry, dict(zip(flat[::2], flat[1::2], strict=True)), deliveries)
                for entry, flat, deliveries in found
            ]
            for claim in await self._decoded(priority, entries):
                return claim
        return None

    async def renew(self, claims: Iterable[Claim]) -> None:
        """Start the leases anew of those that are still this worker's."""
        for stream, group in _by_stream(claims):
            arguments = [GROUP, self._consumer, *(claim.entry for claim in group)]
            await self._in_group(self._renew, [stream], arguments)

    async def finish(self, claims: Iterable[Claim], *, dead: Collection[JobKey] = ()) -> None:
        """Take jobs off the queue whose results are stored, and tell whoever waits.

        dead: those of them that were given up.
        """
        for stream, group in _by_stream(claims):
            message = encode_notices("final", [(claim.job.key, {}) for claim in group])
            arguments: list[str | bytes | int] = [GROUP, CHANNEL, message]
            for claim in group:
                job = claim.job
                arguments += (claim.entry, job.field, int(job.key in dead))
            with translated():
                await self._finish([stream, INDEX, FACTS], arguments)

    async def hand_back(self, claims: Iterable[Claim], *, backoff_seconds: float = 0.0) -> None:
        """Let any worker reclaim these after the backoff (at most a lease); this delivery does not
        count.
        """
        idle_ms = max(0, self._lease_ms - int(1000 * backoff_seconds))
        for stream, group in _by_stream(claims):
            entries = [(claim.entry, claim.deliveries - 1) for claim in group]
            await self._park(stream, entries, idle_ms=idle_ms)

    async def announce_progress(self, key: JobKey, facts: Mapping[str, object]) -> None:
        """Tell whoever waits how far it is."""
        with translated():
            await self._client.publish(CHANNEL, encode_notices("progress", [(key, facts)]))

    async def leave(self, *, in_order: bool) -> None:
        """Hand back whatever the server says this worker holds, and be forgotten by it, with
        consumers that held nothing for an hour.

        in_order: these deliveries do not count; otherwise one of the jobs may be why it leaves.
        """
        times = [self._lease_ms, int(1000 * FORGOTTEN_SECONDS)]
        arguments = [GROUP, self._consumer, PARKED, *times, int(in_order)]
        await self._in_group(self._leave, list(STREAMS.values()), arguments)

    async def close(self) -> None:
        """Let go of the server."""
        with suppress(QueueAwayError), translated():
            await self._client.aclose()

    async def _read(
        self, most: int, streams: Mapping[str, str], *, block_ms: int | None
    ) -> list[Claim]:
        read = partial(self._client.xreadgroup, GROUP, self._consumer, count=most, block=block_ms)
        answer = await self._in_group(read, dict(streams))
        claims = []
        for stream, entries in answer or ():
            delivered = [(entry, fields, 1) for entry, fields in entries]
            claims += await self._decoded(_PRIORITY[stream.decode()], delivered)
        return claims

    async def _decoded(self, priority: Priority, entries: Sequence[_Entry]) -> list[Claim]:
        """Entries of another release are left to its workers, and dropped if it has none: the
        record is still pending, so the job is queued again.
        """
        claims = []
        for entry, fields, deliveries in entries:
            name = entry.decode()
            try:
                claims.append(Claim(Job.decode(fields[b"job"]), name, deliveries))
            except (ValueError, KeyError):
                log.error("job_not_understood", entry=name, deliveries=deliveries)
                if deliveries < MOST_UNREADABLE:
                    await self._park(STREAMS[priority], [(name, deliveries)], idle_ms=0)
                else:
                    await self._drop(STREAMS[priority], name, fields.get(b"field", b""))
        return claims

    async def _drop(self, stream: str, entry: str, field: bytes) -> None:
        with translated():
            await self._finish([stream, INDEX, FACTS], [GROUP, CHANNEL, "", entry, field, 0])

    async def _park(self, stream: str, entries: Sequence[tuple[str, int]], *, idle_ms: int) -> None:
        arguments: list[str | int] = [GROUP, self._consumer, PARKED, idle_ms]
        for pair in entries:
            arguments += pair
        await self._in_group(self._hand_back, [stream], arguments)

    async def _in_group(self, call: Callable[..., Awaitable[Any]], *arguments: object) -> Any:  # noqa: ANN401 - redis-py's
        with translated():
            try:
                return await call(*arguments)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            await self._make_groups()
            return await call(*arguments)

    async def _make_groups(self) -> None:
        """From the first entry: what is finished is deleted, the rest is to be done."""
        for stream in STREAMS.values():
            try:
                await self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise


_PRIORITY = {stream: priority for priority, stream in STREAMS.items()}


def _by_stream(claims: Iterable[Claim]) -> list[tuple[str, list[Claim]]]:
    priority = attrgetter("job.priority")
    ordered = sorted(claims, key=priority)
    return [(STREAMS[name], list(group)) for name, group in groupby(ordered, key=priority)]
