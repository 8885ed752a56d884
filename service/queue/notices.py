"""What workers announce: progress, and that a final explanation is stored."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from service.logs import log, place_of
from service.queue.errors import QueueAwayError
from service.queue.jobs import JobKey
from service.queue.server import CHANNEL, end, translated

IDLE_SECONDS = 5.0
RETRY_SECONDS = 0.5
MOST_KEPT = 64

Kind = Literal["final", "progress", "gap"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One announcement.

    kind: `final` when the explanation is stored, `progress` with the worker's facts, `gap` when
    announcements may have been missed: look in the evidence store.
    """

    kind: Kind
    facts: Mapping[str, object] = field(default_factory=dict)


GAP = Notice("gap")


def encode_notices(kind: Kind, notices: Iterable[tuple[JobKey, Mapping[str, object]]]) -> bytes:
    """One message for any number of jobs."""
    return orjson.dumps([kind, [[*key, facts] for key, facts in notices]])


class Waiting:
    """The announcements about one job, from the moment it was made."""

    def __init__(self) -> None:
        self._arrived: deque[Notice] = deque(maxlen=MOST_KEPT)
        self._has_arrived = asyncio.Event()

    def tell(self, notice: Notice) -> None:
        """Called by the subscription."""
        self._arrived.append(notice)
        self._has_arrived.set()

    async def wait(self, seconds: float) -> bool:
        """True as soon as it is worth looking in the evidence store: the final explanation was
        announced, or announcements may have been missed. False after that many seconds.
        """
        deadline = monotonic() + seconds
        while (notice := await self.next(deadline - monotonic())) is not None:
            if notice.kind != "progress":
                return True
        return False

    async def next(self, seconds: float) -> Notice | None:
        """The next announcement; None when there is none for so long."""
        if not self._arrived:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await self._next()
            return None
        return self._arrived.popleft()

    async def _next(self) -> Notice:
        while not self._arrived:
            self._has_arrived.clear()
            await self._has_arrived.wait()
        return self._arrived.popleft()


class Notices:
    """The one subscription of a process. It survives the server: whoever waits is told of a gap
    once it is back.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: dict[JobKey, list[Waiting]] = defaultdict(list)
        self._subscribed = asyncio.Event()
        self._listener = asyncio.create_task(self._listen())

    @asynccontextmanager
    async def waiting(self, tenant: str, request_id: str) -> AsyncIterator[Waiting]:
        """To be entered before the job is submitted, or before the store is looked at."""
        key, waiting = (tenant, request_id), Waiting()
        self._waiting[key].append(waiting)
        try:
            yield waiting
        finally:
            self._waiting[key].remove(waiting)
            if not self._waiting[key]:
                del self._waiting[key]

    async def subscribed(self) -> None:
        """Return once announcements arrive."""
        await self._subscribed.wait()

    async def close(self) -> None:
        """End the subscription."""
        await end(self._listener)

    async def _listen(self) -> None:
        while True:
            try:
                with translated():
                    async with self._client.pubsub() as subscription:
                        await subscription.subscribe(CHANNEL)
                        await self._relay(subscription)
            except QueueAwayError as error:
                if self._subscribed.is_set():
                    log.warning("notices_lost", reason=str(error))
                self._subscribed.clear()
            except Exception as error:  # noqa: BLE001 - without it nobody hears of a result again
                log.error("notices_failed", place=place_of(error))
                self._subscribed.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _relay(self, subscription: PubSub) -> None:
        """Until the server is silent for two turns; a frozen one keeps its connections."""
        is_silent = False
        while True:
            message = await subscription.get_message(timeout=IDLE_SECONDS)
            if message is None:
                if is_silent:
                    raise QueueAwayError("no answer to PING")
                is_silent = True
                await subscription.ping()
                continue
            is_silent = False
            if message["type"] == "subscribe":
                self._subscribed.set()
                self._tell_all(GAP)
            elif message["type"] == "message":
                self._dispatch(message["data"])

    def _tell_all(self, notice: Notice) -> None:
        for group in self._waiting.values():
            for waiting in group:
                waiting.tell(notice)

    def _dispatch(self, data: bytes) -> None:
        if not self._waiting:
            return
        try:
            kind, notices = orjson.loads(data)
            for tenant, request_id, facts in notices:
                for waiting in self._waiting.get((tenant, request_id), ()):
                    waiting.tell(Notice(kind, facts))
        except (ValueError, TypeError):
            log.warning("notice_not_understood", bytes=len(data))
