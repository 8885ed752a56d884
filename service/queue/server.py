"""The connection to the queue's server: names of its keys, short timeouts, translated errors."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError

from service.errors import UsageError
from service.queue.errors import QueueAwayError
from service.queue.jobs import PRIORITIES

STREAMS = {priority: f"explaind:jobs:{priority}" for priority in PRIORITIES}
"""One stream a priority. The names are fixed so that autoscalers can watch them."""

GROUP = "explaind"
"""The one consumer group of each stream."""

PARKED = "parked"
"""The consumer that holds what was handed back until it may be claimed."""

INDEX = "explaind:jobs:index"
"""Hash: a job's field to its stream and entry. Its size is the number of unfinished jobs."""

FACTS = "explaind:jobs:facts"
"""Hash: `dead STREAM`, how many jobs were given up since the server was last empty; `kept STREAM`,
the finished entry that is yet to be deleted."""

CHANNEL = "explaind:notices"

CANCEL_AGAIN_SECONDS = 0.05


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A client that connects at its first command and never tries twice.

    redis-py's own defaults would hold a request up to a minute on a frozen server. Raises
    UsageError for a URL that is none.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # it would cost every new connection two commands
        )
    except ValueError as error:
        raise UsageError(f"EXPLAIND_REDIS_URL: {error}") from None


@contextmanager
def translated() -> Iterator[None]:
    """Whatever redis-py or the socket raises inside becomes a QueueAwayError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise QueueMemoryError("the queue's server is out of memory") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise QueueAwayError(f"the queue's server: {type(error).__name__}: {error}") from error


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks that use the server until they have ended: redis-py loses a cancellation that
    meets one of its timeouts.
    """
    left: set[asyncio.Task[Any]] = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


class QueueMemoryError(QueueAwayError):
    """The server answers, and has no memory for another job."""
