"""What submitting promises, over a real server that is also frozen, emptied, full and restarted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from jobs import job
from polling import until
from valkey_server import Valkey, stopped_valkey

from service.errors import UsageError
from service.queue import Job, JobQueue, QueueAwayError, QueueFullError
from service.queue.server import GROUP, INDEX, STREAMS

LIMIT_SECONDS = 0.1
SLACK_SECONDS = 0.15
"""What a busy machine may add."""


@asynccontextmanager
async def opened(server: Valkey, **options: Any) -> AsyncIterator[JobQueue]:
    queue = await JobQueue.open(server.url, **options)
    try:
        yield queue
    finally:
        await queue.close()


def entries(server: Valkey) -> list[Job]:
    with server.client() as client:
        found = [entry for name in STREAMS.values() for entry in client.xrange(name)]
    return [Job.decode(fields[b"job"]) for _, fields in found]


async def test_a_job_is_queued_once_whatever_its_priority(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        assert await queue.submit(job("a"))
        assert not await queue.submit(job("a"))
        assert not await queue.submit(job("a", priority="low"))
        assert await queue.submit(job("b", priority="low"))
    assert entries(valkey) == [job("a"), job("b", priority="low")]


async def test_autoscalers_see_jobs_that_wait_before_there_ever_was_a_worker(
    valkey: Valkey,
) -> None:
    async with opened(valkey) as queue:
        for name in ("a", "b"):
            await queue.submit(job(name))
        with valkey.client() as client:
            (group,) = client.xinfo_groups(STREAMS["high"])
            assert group["name"] == GROUP.encode()
            assert (group["lag"], group["pending"]) == (2, 0)
            client.flushall()
            await queue.submit(job("c"))
            await until(lambda: client.exists(STREAMS["low"]))
            assert [g["lag"] for g in client.xinfo_groups(STREAMS["high"])] == [1]


async def test_what_the_queue_lacks_is_neither_queued_nor_running(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await asyncio.gather(*(queue.submit(job(name)) for name in ("a", "c")))
        jobs = [job("a"), job("b"), job("c", priority="low"), job("d")]
        assert await queue.lacking(jobs) == [job("b"), job("d")]
        assert await queue.lacking([]) == []
        with valkey.client() as client:
            client.flushall()
        assert await queue.lacking(jobs) == jobs
        valkey.freeze()
        try:
            with pytest.raises(QueueAwayError):
                await queue.lacking(jobs)
        finally:
            valkey.thaw()


async def test_jobs_of_two_tenants_with_one_request_id_are_two(valkey: Valkey) -> None:
    other = Job.decode(job("a").encode().replace(b'"default"', b'"other"'))
    async with opened(valkey) as queue:
        assert await queue.submit(job("a"))
        assert await queue.submit(other)
    assert entries(valkey) == [job("a"), other]


async def test_concurrent_submissions_from_two_processes_worth_of_queues_are_one(
    valkey: Valkey,
) -> None:
    async with opened(valkey) as one, opened(valkey) as other:
        answers = await asyncio.gather(
            *(queue.submit(job(f"r-{n}")) for n in range(200) for queue in (one, other))
        )
    assert answers.count(True) == 200
    assert sorted(found.request_id for found in entries(valkey)) == sorted(
        f"r-{n}" for n in range(200)
    )


async def test_the_queue_is_bounded_and_what_is_there_already_is_no_overflow(
    valkey: Valkey,
) -> None:
    async with opened(valkey, max_queue=3) as queue:
        outcomes = await asyncio.gather(
            *(queue.submit(job(f"r-{n}")) for n in range(5)), return_exceptions=True
        )
        assert outcomes[:3] == [True] * 3
        assert [type(outcome) for outcome in outcomes[3:]] == [QueueFullError] * 2
        assert not await queue.submit(job("r-0"))
        assert queue.is_available
    assert len(entries(valkey)) == 3


async def test_low_priority_leaves_room_for_what_is_waited_for(valkey: Valkey) -> None:
    async with opened(valkey, max_queue=10) as queue:
        outcomes = await asyncio.gather(
            *(queue.submit(job(f"r-{n}", priority="low")) for n in range(10)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [bool] * 8 + [QueueFullError] * 2
        assert await queue.submit(job("high"))


async def test_a_job_whose_stream_was_emptied_can_be_queued_again(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await queue.submit(job("a"))
        with valkey.client() as client:
            client.delete(*STREAMS.values())
        assert await queue.lacking([job("a"), job("b")]) == [job("a"), job("b")]
        assert await queue.submit(job("a"))
        assert await queue.lacking([job("a"), job("b")]) == [job("b")]
    assert entries(valkey) == [job("a")]


async def test_depth_and_states_follow_in_the_background(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        assert queue.depth == 0
        await queue.submit(job("a"))
        await queue.submit(job("b", priority="low"))
        await until(lambda: queue.depth == 2)
        assert queue.state.streams["high"].ready == queue.state.streams["low"].ready == 1
        with valkey.client() as client:
            client.xreadgroup(GROUP, "somebody", {STREAMS["high"]: ">"})
        await until(lambda: queue.state.streams["high"].running == 1)
        assert queue.state.streams["high"].ready == 0
        assert 0 < queue.state.streams["high"].oldest_seconds < 10


async def refusal_seconds(queue: JobQueue, wanted: Job) -> float:
    started = time.perf_counter()
    with pytest.raises(QueueAwayError):
        await queue.submit(wanted)
    return time.perf_counter() - started


async def test_a_frozen_server_costs_one_short_timeout_then_nothing(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await queue.submit(job("a"))
        valkey.freeze()
        assert await refusal_seconds(queue, job("b")) < LIMIT_SECONDS + SLACK_SECONDS
        assert not queue.is_available
        seconds = [await refusal_seconds(queue, job(f"c-{n}")) for n in range(100)]
        assert sorted(seconds)[50] < 0.001
        valkey.thaw()
        await until(lambda: queue.is_available)
        assert await queue.submit(job("d"))


async def test_telling_a_frozen_server_costs_no_more(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        valkey.freeze()
        try:
            started = time.perf_counter()
            with pytest.raises(QueueAwayError):
                await queue.announce_final("default", "a")
            assert time.perf_counter() - started < LIMIT_SECONDS + SLACK_SECONDS
            assert not queue.is_available
        finally:
            valkey.thaw()


async def test_requests_that_wait_together_on_a_frozen_server_wait_no_longer(
    valkey: Valkey,
) -> None:
    async with opened(valkey) as queue:
        valkey.freeze()
        seconds = await asyncio.gather(*(refusal_seconds(queue, job(f"r-{n}")) for n in range(500)))
        assert max(seconds) < LIMIT_SECONDS + SLACK_SECONDS
        valkey.thaw()


async def test_a_server_that_is_down_at_start_is_found_later() -> None:
    with stopped_valkey() as server:
        async with opened(server) as queue:
            assert not queue.is_available
            assert await refusal_seconds(queue, job("a")) < SLACK_SECONDS
            server.start()
            await until(lambda: queue.is_available)
            assert await queue.submit(job("a"))


async def test_a_restarted_server_has_its_jobs_and_takes_more(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await queue.submit(job("a"))
        valkey.stop()
        await refusal_seconds(queue, job("b"))
        valkey.start()
        await until(lambda: queue.is_available)
        assert not await queue.submit(job("a"))
        assert await queue.submit(job("b"))
    assert entries(valkey) == [job("a"), job("b")]


async def test_an_emptied_server_takes_jobs_again(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await queue.submit(job("a"))
        with valkey.client() as client:
            client.flushall()
            client.script_flush()
        assert await queue.submit(job("a"))


def fill(server: Valkey) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1mb")


async def test_a_server_out_of_memory_refuses_at_once_and_stays_available(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        await queue.submit(job("a"))
        fill(valkey)
        for n in range(20):
            with pytest.raises(QueueAwayError, match="memory"):
                await queue.submit(job(f"b-{n}"))
        assert queue.is_available
        with valkey.client() as client:
            client.config_set("maxmemory", "64mb")
        assert await queue.submit(job("b-0"))
        assert await queue.submit(job("c"))
    with valkey.client() as client:
        assert client.hlen(INDEX) == 3


@pytest.mark.parametrize("url", ["", "http://localhost", "redis://localhost:port"])
async def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="EXPLAIND_REDIS_URL"):
        await JobQueue.open(url)


async def test_a_closed_queue_refuses(valkey: Valkey) -> None:
    async with opened(valkey) as queue:
        pass
    with pytest.raises(QueueAwayError):
        await queue.submit(job("a"))


def test_bytes_that_are_no_job_are_refused() -> None:
    assert Job.decode(job("a").encode()) == job("a")
    for encoded in (b"", b"{", b"[]", b"{}", b'{"tenant":"default"}'):
        with pytest.raises(ValueError, match="no job"):
            Job.decode(encoded)
