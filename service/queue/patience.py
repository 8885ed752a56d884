"""How long a server's answer is waited for, in time that could have shown it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STEPS = 4
LAST_LOOK_SECONDS = 0.001


@asynccontextmanager
async def answered_within(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but an event loop that stood still is not held against the server.

    After a pause (a busy machine, a thread that keeps the interpreter) uvloop looks at its timers
    before its sockets: an answer that arrived long ago would count as missing, the server as away
    and every job of the next second be left pending. So the time is counted in steps, of which a
    pause takes one at most, and sockets are looked at once more at the end. A loop that pauses at
    every turn waits for a turn or two a step, however long they are. Raises TimeoutError. Cost of
    what ends in time: one timer, as `asyncio.timeout`.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle
    pauses = [LAST_LOOK_SECONDS] + [seconds / STEPS] * STEPS

    def step() -> None:
        nonlocal timer
        if pauses:
            timer = loop.call_later(pauses.pop(), step)
        else:
            bound.reschedule(loop.time())

    async with asyncio.timeout(None) as bound:
        timer = loop.call_later(pauses.pop(), step)
        try:
            yield
        finally:
            timer.cancel()
