"""A pause of the event loop is not held against the queue's server; its silence is."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from jobs import job
from valkey_server import Valkey

from service.queue import JobQueue
from service.queue.patience import answered_within

PAUSE_SECONDS = 0.3
"""Three times what a job is waited for."""

runners = pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])


def run(main: Callable[[], Awaitable[None]], loop_factory: Callable[..., object]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())  # type: ignore[arg-type]


@runners
def test_an_answer_that_came_while_the_loop_stood_still_counts(
    valkey: Valkey, loop_factory: Callable[..., object]
) -> None:
    async def main() -> None:
        queue = await JobQueue.open(valkey.url)
        try:
            for n in range(5):
                submitted = asyncio.create_task(queue.submit(job(f"r-{n}")))
                for _ in range(n + 1):  # the pause begins at another point of the call each time
                    await asyncio.sleep(0)
                time.sleep(PAUSE_SECONDS)  # noqa: ASYNC251 - the pause itself
                assert await submitted
                assert queue.is_available
        finally:
            await queue.close()

    run(main, loop_factory)


@runners
def test_a_slow_machine_still_finds_the_queue_at_the_start(
    valkey: Valkey, loop_factory: Callable[..., object]
) -> None:
    async def main() -> None:
        valkey.freeze()
        thaw = threading.Timer(PAUSE_SECONDS, valkey.thaw)
        thaw.start()
        queue = await JobQueue.open(valkey.url)
        thaw.join()
        assert queue.is_available
        await queue.close()

    run(main, loop_factory)


@runners
def test_silence_ends_the_wait_in_time(loop_factory: Callable[..., object]) -> None:
    async def main() -> None:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with answered_within(0.1):
                await asyncio.Event().wait()
        assert 0.1 <= time.monotonic() - started < 1

    run(main, loop_factory)


@runners
def test_what_ended_in_time_is_left_alone(loop_factory: Callable[..., object]) -> None:
    async def main() -> None:
        async with answered_within(0.02):
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="its own"):
            async with answered_within(0.02):
                raise ValueError("its own")
        await asyncio.sleep(0.1)

    run(main, loop_factory)
