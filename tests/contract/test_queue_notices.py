"""Who waits hears it: announcements over one real subscription, through the server's failures."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from polling import until
from valkey_server import Valkey

from service.queue import JobQueue, Notice
from service.queue.notices import encode_notices
from service.queue.server import CHANNEL


@pytest.fixture
async def queue(valkey: Valkey) -> AsyncIterator[JobQueue]:
    queue = await JobQueue.open(valkey.url)
    await asyncio.wait_for(queue.notices.subscribed(), 5)
    yield queue
    await queue.close()


async def test_who_waits_hears_of_its_own_job_only(queue: JobQueue) -> None:
    async with (
        queue.notices.waiting("default", "a") as mine,
        queue.notices.waiting("default", "a") as also_mine,
        queue.notices.waiting("default", "b") as other_job,
        queue.notices.waiting("other", "a") as other_tenant,
    ):
        await queue.announce_final("default", "a")
        assert await mine.wait(5)
        assert await also_mine.wait(5)
        assert not await other_job.wait(0.05)
        assert not await other_tenant.wait(0)


async def test_waiting_ends_after_its_time(queue: JobQueue) -> None:
    async with queue.notices.waiting("default", "a") as waiting:
        started = time.perf_counter()
        assert not await waiting.wait(0.1)
        assert 0.1 <= time.perf_counter() - started < 3


async def test_progress_is_an_event_and_nothing_wait_returns_for(
    queue: JobQueue, valkey: Valkey
) -> None:
    progress = encode_notices("progress", [(("default", "a"), {"done": 1, "of": 4})])
    async with (
        queue.notices.waiting("default", "a") as waiting,
        queue.notices.waiting("default", "a") as listening,
    ):
        with valkey.client() as client:
            client.publish(CHANNEL, progress)
        assert not await waiting.wait(0.1)
        await queue.announce_final("default", "a")
        heard = [await listening.next(5), await listening.next(5)]
        assert heard == [Notice("progress", {"done": 1, "of": 4}), Notice("final", {})]
        assert await waiting.wait(5)


async def test_silence_is_told_while_events_are_awaited(queue: JobQueue) -> None:
    async with queue.notices.waiting("default", "a") as waiting:
        assert await waiting.next(0.05) is None
        assert await waiting.next(0.05) is None
        await queue.announce_final("default", "a")
        assert await waiting.next(5) == Notice("final", {})
        assert await waiting.next(0.05) is None


async def test_who_waits_over_a_restart_is_told_of_the_gap_and_hears_again(
    queue: JobQueue, valkey: Valkey
) -> None:
    async with queue.notices.waiting("default", "a") as waiting:
        valkey.stop()
        valkey.start()
        assert await waiting.wait(5)
        await until(lambda: queue.is_available)
        await queue.announce_final("default", "a")
        assert await waiting.wait(5)


async def test_messages_of_others_do_no_harm(queue: JobQueue, valkey: Valkey) -> None:
    async with queue.notices.waiting("default", "a") as waiting:
        with valkey.client() as client:
            for message in (b"", b"{", b"[]", b'["final"]', b'["final",[1]]', b'["final",[["a"]]]'):
                client.publish(CHANNEL, message)
        await queue.announce_final("default", "a")
        assert await waiting.wait(5)
