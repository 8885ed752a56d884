"""Polling for tests that run on an event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from service.queue import JobQueue


async def until(condition: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Poll until the condition holds; TimeoutError after that long."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)


async def answering(url: str, **options: Any) -> JobQueue:
    """An open queue whose server has answered: on a busy machine its first probe may be late."""
    queue = await JobQueue.open(url, **options)
    await until(lambda: queue.is_available)
    return queue
