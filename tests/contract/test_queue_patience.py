"""A pause of the event loop is not held against the queue's server; its silence is."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from jobs import job
from polling import until
from valkey_server import Valkey

from service.queue import JobQueue, QueueAwayError
from service.queue.patience import answered_within

PAUSE_SECONDS = 0.3
"""Three times what a job is waited for."""

LATE_SECONDS = 0.7
"""For an answer: less than a probe waits for it, much more than a request."""

PROBE_SECONDS = 1.0
"""As in production: the next probe is far from the one that is looked at."""

runners = pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])


def run(main: Callable[[], Awaitable[None]], loop_factory: Callable[..., object]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())  # type: ignore[arg-type]


@asynccontextmanager
async def opened(valkey: Valkey) -> AsyncIterator[JobQueue]:
    queue = await JobQueue.open(valkey.url)
    try:
        yield queue
    finally:
        await queue.close()


@runners
@pytest.mark.parametrize("pause", [PAUSE_SECONDS, 1.3])
def test_an_answer_that_came_while_the_loop_stood_still_counts(
    valkey: Valkey, loop_factory: Callable[..., object], pause: float
) -> None:
    """However long: redis-py's own timeouts count pauses as silence."""

    async def main() -> None:
        queue = await JobQueue.open(valkey.url)
        try:
            for n in range(5):
                submitted = asyncio.create_task(queue.submit(job(f"r-{n}")))
                for _ in range(n + 1):  # the pause begins at another point of the call each time
                    await asyncio.sleep(0)
                time.sleep(pause)  # noqa: ASYNC251 - the pause itself
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
def test_a_probe_that_nobody_waits_for_may_be_answered_late(
    valkey: Valkey, loop_factory: Callable[..., object]
) -> None:
    async def main() -> None:
        async with opened(valkey) as queue:
            for _ in range(4):  # at any point of the time between two probes
                valkey.freeze()
                with pytest.raises(TimeoutError):
                    await until(lambda: not queue.is_available, seconds=LATE_SECONDS)
                valkey.thaw()
                await asyncio.sleep(0.13)
                assert queue.is_available

    run(main, loop_factory)


@runners
def test_a_late_answer_calls_nothing_back_that_a_request_waited_for_in_vain(
    valkey: Valkey, loop_factory: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.queue.client.PROBE_SECONDS", PROBE_SECONDS)

    async def main() -> None:
        async with opened(valkey) as queue:
            valkey.freeze()
            await asyncio.sleep(PROBE_SECONDS + 0.2)  # a probe is on its way
            with pytest.raises(QueueAwayError):
                await queue.submit(job("r-1"))
            valkey.thaw()
            await asyncio.sleep(0.2)
            assert not queue.is_available
            await until(lambda: queue.is_available)

    run(main, loop_factory)


@runners
def test_a_pause_at_the_very_end_counts_no_more(loop_factory: Callable[..., object]) -> None:
    """It is in the turn's input, after which uvloop goes on with its timers."""

    async def main() -> None:
        here, there = socket.socketpair()
        waking, waker = socket.socketpair()
        here.setblocking(False)  # noqa: FBT003
        loop = asyncio.get_running_loop()

        def pause() -> None:
            loop.remove_reader(waking)
            there.send(b"x")
            time.sleep(PAUSE_SECONDS)

        async def receive() -> bytes:
            async with answered_within(0.4):
                return await loop.sock_recv(here, 1)

        loop.add_reader(waking, pause)
        received = asyncio.create_task(receive())
        threading.Timer(0.35, waker.send, [b"x"]).start()
        assert await received == b"x"
        for end in (here, there, waking, waker):
            end.close()

    run(main, loop_factory)


@runners
def test_a_loop_that_pauses_all_the_time_does_not_wait_for_ever(
    loop_factory: Callable[..., object],
) -> None:
    async def main() -> None:
        async def pause() -> None:
            while True:
                time.sleep(0.2)  # noqa: ASYNC251 - the pause itself
                await asyncio.sleep(0)

        pausing = asyncio.create_task(pause())
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with answered_within(0.1):
                await asyncio.Event().wait()
        assert time.monotonic() - started < 5
        pausing.cancel()

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
