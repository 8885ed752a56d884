"""What a worker's leases promise, over a real server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

import pytest
from jobs import job
from polling import until
from valkey_server import Valkey

from service.queue import Claim, JobClaims, JobQueue, QueueAwayError, StreamState
from service.queue.server import GROUP, INDEX, PARKED, STREAMS

LEASE_SECONDS = 0.4


@asynccontextmanager
async def worker(server: Valkey, name: str = "one") -> AsyncIterator[JobClaims]:
    claims = JobClaims(server.url, consumer=name, lease_seconds=LEASE_SECONDS)
    try:
        yield claims
    finally:
        await claims.close()


def names(claims: list[Claim]) -> list[str]:
    return [claim.job.request_id for claim in claims]


async def submitted(queue: JobQueue, *names: str, low: bool = False) -> None:
    for name in names:
        assert await queue.submit(job(name, priority="low" if low else "high"))


async def reclaimed(claims: JobClaims) -> tuple[Claim, float]:
    """The next job to be reclaimed, and how long that took."""
    started = time.monotonic()
    while (claim := await claims.reclaim()) is None:
        assert time.monotonic() - started < 5
        await asyncio.sleep(0.01)
    return claim, time.monotonic() - started


def assert_empty(server: Valkey, *, jobs: int = 0) -> None:
    """So many unfinished jobs are left, and at most one finished entry."""
    with server.client() as client:
        assert client.hlen(INDEX) == jobs
        assert client.xlen(STREAMS["high"]) <= jobs + 1
        assert client.xpending(STREAMS["high"], GROUP)["pending"] == 0


async def test_high_priority_goes_first_and_low_is_not_forgotten(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "low-1", "low-2", low=True)
    await submitted(queue, "high-1", "high-2", "high-3")
    async with worker(valkey) as claims:
        assert names(await claims.claim(2)) == ["high-1", "high-2"]
        assert names(await claims.claim(8)) == ["high-3"]
        taken = await claims.claim(8)
        assert names(taken) == ["low-1", "low-2"]
        assert {claim.deliveries for claim in taken} == {1}
        assert await claims.claim(8, block_seconds=0.01) == []


async def test_a_job_that_arrives_wakes_the_worker_that_waits(
    queue: JobQueue, valkey: Valkey
) -> None:
    async with worker(valkey) as claims:
        waiting = asyncio.create_task(claims.claim(8, block_seconds=5))
        await until(lambda: "blocked_clients:1" in info(valkey))
        await submitted(queue, "a")
        started = time.perf_counter()
        assert names(await waiting) == ["a"]
        assert time.perf_counter() - started < 3


def info(server: Valkey) -> str:
    with server.client() as client:
        return f"blocked_clients:{client.info('clients')['blocked_clients']}"


async def test_finished_jobs_leave_nothing_and_whoever_waits_hears_it(
    queue: JobQueue, valkey: Valkey
) -> None:
    await asyncio.wait_for(queue.notices.subscribed(), 5)
    await submitted(queue, "a", "b")
    async with worker(valkey) as claims, queue.notices.waiting("default", "a") as waiting:
        await claims.finish(await claims.claim(8))
        assert await waiting.wait(5)
    assert_empty(valkey)
    assert await queue.submit(job("a"))


async def test_the_lag_autoscalers_watch_is_known_whatever_is_finished_first(
    queue: JobQueue, valkey: Valkey
) -> None:
    with valkey.client() as client:
        async with worker(valkey) as claims:
            for turn in range(20):
                await submitted(queue, *(f"r-{turn}-{n}" for n in range(6)))
                held = await claims.claim(3)
                for claim in ((0, 1, 2), (2, 1, 0), (1, 2, 0))[turn % 3]:
                    await claims.finish([held[claim]])
                    facts = client.xinfo_groups(STREAMS["high"])[0]
                    assert facts["lag"] == client.hlen(INDEX) - facts["pending"]
                await claims.finish(await claims.claim(1 + turn % 2))
    await until(lambda: queue.state.streams["high"].ready == queue.depth == 30)
    assert queue.state.streams["high"].running == 0


async def test_an_idle_queue_has_no_jobs_in_any_state(queue: JobQueue, valkey: Valkey) -> None:
    await submitted(queue, "a", "b")
    async with worker(valkey) as claims:
        await until(lambda: queue.depth == 2)
        await claims.finish(await claims.claim(8))
    await until(lambda: queue.depth == 0)
    assert queue.state.streams["high"] == StreamState()


async def test_a_silent_workers_job_is_reclaimed_after_the_lease_and_counted(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "a")
    async with worker(valkey) as silent, worker(valkey, "two") as other:
        await silent.claim(8)
        claim, seconds = await reclaimed(other)
        assert claim.job == job("a")
        assert claim.deliveries == 2
        assert LEASE_SECONDS * 0.9 < seconds < LEASE_SECONDS + 1
        again, _ = await reclaimed(silent)
        assert again.deliveries == 3


async def test_a_renewed_lease_is_kept_and_a_lost_one_is_not_taken_back(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "a")
    async with worker(valkey) as slow, worker(valkey, "two") as other:
        held = await slow.claim(8)
        for _ in range(8):
            await asyncio.sleep(LEASE_SECONDS / 4)
            await slow.renew(held)
            assert await other.reclaim() is None
        claim, _ = await reclaimed(other)
        assert claim.deliveries == 2
        await slow.renew(held)
        with valkey.client() as client:
            (owner,) = client.xpending(STREAMS["high"], GROUP)["consumers"]
        assert owner["name"] == b"two"


async def test_a_job_finished_by_a_worker_that_lost_it_is_finished(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "a")
    async with worker(valkey) as slow, worker(valkey, "two") as other:
        held = await slow.claim(8)
        claim, _ = await reclaimed(other)
        await slow.finish(held)
        await other.finish([claim])
        await other.hand_back([claim])
        assert await other.reclaim() is None
    assert_empty(valkey)


async def test_what_is_handed_back_is_claimable_at_once_and_no_delivery(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "a", "b")
    async with worker(valkey) as one, worker(valkey, "two") as other:
        await one.hand_back(await one.claim(8))
        claim, seconds = await reclaimed(other)
        assert (claim.job.request_id, claim.deliveries) == ("a", 1)
        assert seconds < LEASE_SECONDS / 2
        await until(lambda: queue.state.streams["high"].delayed == 1)
        assert queue.state.streams["high"].running == 1


async def test_a_backoff_delays_up_to_a_lease(queue: JobQueue, valkey: Valkey) -> None:
    await submitted(queue, "a")
    async with worker(valkey) as one:
        await one.hand_back(await one.claim(8), backoff_seconds=LEASE_SECONDS / 2)
        claim, seconds = await reclaimed(one)
        assert LEASE_SECONDS * 0.4 < seconds < LEASE_SECONDS
        await one.hand_back([claim], backoff_seconds=100)
        claim, seconds = await reclaimed(one)
        assert LEASE_SECONDS * 0.9 < seconds < LEASE_SECONDS + 1
        assert claim.deliveries == 1


@pytest.mark.parametrize("in_order", [True, False])
async def test_who_leaves_hands_back_all_and_is_forgotten(
    queue: JobQueue, valkey: Valkey, *, in_order: bool
) -> None:
    await submitted(queue, "a", "b")
    await submitted(queue, "c", low=True)
    async with worker(valkey) as one, worker(valkey, "two") as other:
        await one.claim(8)
        await one.claim(8)
        await one.leave(in_order=in_order)
        taken = [(await reclaimed(other))[0] for _ in range(3)]
        assert sorted(names(taken)) == ["a", "b", "c"]
        assert {claim.deliveries for claim in taken} == {1 if in_order else 2}
        with valkey.client() as client:
            consumers = {found["name"] for found in client.xinfo_consumers(STREAMS["high"], GROUP)}
    assert consumers == {b"two", PARKED.encode()}


async def test_many_workers_share_the_jobs_and_none_is_taken_twice(
    queue: JobQueue, valkey: Valkey
) -> None:
    await asyncio.gather(*(queue.submit(job(f"r-{n}")) for n in range(300)))

    async def drain(name: str) -> list[str]:
        done = []
        async with worker(valkey, name) as claims:
            while taken := await claims.claim(7, block_seconds=0.05):
                await claims.finish(taken)
                done += names(taken)
        return done

    shares = await asyncio.gather(*(drain(f"w-{n}") for n in range(4)))
    assert sorted(chain.from_iterable(shares)) == sorted(f"r-{n}" for n in range(300))
    assert all(shares)


async def test_an_emptied_server_is_set_up_again_whatever_is_called_first(
    queue: JobQueue, valkey: Valkey
) -> None:
    async with worker(valkey) as claims:
        calls = (claims.reclaim, lambda: claims.leave(in_order=True), lambda: claims.renew(held))
        for n, call in enumerate(calls):
            await submitted(queue, f"lost-{n}")
            held = await claims.claim(8)
            with valkey.client() as client:
                client.flushall()
            await call()
            await claims.finish(held)
            await claims.hand_back(held)
            await submitted(queue, f"found-{n}")
            found = await claims.claim(8)
            assert names(found) == [f"found-{n}"]
            await claims.finish(found)


async def test_a_server_emptied_under_a_waiting_worker_serves_it_on(
    queue: JobQueue, valkey: Valkey
) -> None:
    async with worker(valkey) as claims:
        waiting = asyncio.create_task(claims.claim(8, block_seconds=5))
        await until(lambda: "blocked_clients:1" in info(valkey))
        with valkey.client() as client:
            client.flushall()
        await submitted(queue, "a")
        assert names(await waiting) == ["a"]


async def test_a_lost_group_delivers_all_unfinished_jobs_again(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "done", "held", "new")
    async with worker(valkey) as claims:
        await claims.finish(await claims.claim(1))
        held = await claims.claim(1)
        with valkey.client() as client:
            client.xgroup_destroy(STREAMS["high"], GROUP)
        await claims.finish(held)
        assert names(await claims.claim(8)) == ["held", "new"]


async def test_a_killed_server_keeps_leases_and_deliveries(queue: JobQueue, valkey: Valkey) -> None:
    await submitted(queue, "a", "b")
    async with worker(valkey) as claims, worker(valkey, "two") as other:
        await claims.finish((await claims.claim(8))[:1])
        await until(lambda: written(valkey))
        valkey.kill()
        with pytest.raises(QueueAwayError):
            await claims.claim(8)
        valkey.start()
        claim, _ = await reclaimed(other)
        assert (claim.job.request_id, claim.deliveries) == ("b", 2)


def written(server: Valkey) -> bool:
    with server.client() as client:
        facts = client.info("persistence")
    return bool(facts["aof_pending_bio_fsync"] == 0 and facts["aof_buffer_length"] == 0)


async def test_jobs_are_worked_off_while_the_server_is_out_of_memory(
    queue: JobQueue, valkey: Valkey
) -> None:
    async with worker(valkey) as one, worker(valkey, "two") as other:
        await submitted(queue, "a", "b", "c")
        taken = await one.claim(2)
        with valkey.client() as client:
            client.config_set("maxmemory", "1mb")
        with pytest.raises(QueueAwayError):
            await queue.submit(job("d"))
        await one.renew(taken)
        await one.finish(taken[:1], dead={taken[0].job.key})
        await one.hand_back(taken[1:])
        claim, _ = await reclaimed(other)
        await other.finish([claim, *await other.claim(8)])
    assert_empty(valkey)


async def test_the_dead_are_counted(queue: JobQueue, valkey: Valkey) -> None:
    await submitted(queue, "a", "b", low=True)
    async with worker(valkey) as claims:
        held = await claims.claim(8)
        await claims.finish(held, dead={claim.job.key for claim in held})
        await claims.finish(held, dead={claim.job.key for claim in held})  # its answer was lost
    await until(lambda: queue.state.streams["low"].dead > 0)
    assert queue.state.streams["low"].dead == 2
    assert queue.state.streams["high"].dead == 0


async def test_what_is_finished_is_not_ready_while_older_jobs_run(
    queue: JobQueue, valkey: Valkey
) -> None:
    await submitted(queue, "a", "b", "c")
    async with worker(valkey) as heavy, worker(valkey, "two") as light:
        held = await heavy.claim(2)
        await light.finish(await light.claim(1))
        await submitted(queue, "d")
        await until(lambda: queue.depth == 3)
        state = queue.state.streams["high"]
        assert (state.running, state.ready) == (2, 1)
        await heavy.finish(held)


async def test_an_entry_nobody_understands_is_tried_and_then_dropped(
    queue: JobQueue, valkey: Valkey
) -> None:
    with valkey.client() as client:
        entry = client.xadd(STREAMS["high"], {"job": b"{}", "field": b"default/odd"})
        client.hset(INDEX, "default/odd", b"2 " + entry)
        client.xadd(STREAMS["high"], {"other": b"x"})
        await submitted(queue, "a")
        async with worker(valkey) as claims:
            held = await claims.claim(8)
            assert names(held) == ["a"]
            assert client.xlen(STREAMS["high"]) == 3
            started = time.monotonic()
            while client.xlen(STREAMS["high"]) > 1:
                assert await claims.reclaim() is None
                await claims.renew(held)
                assert time.monotonic() - started < 10
                await asyncio.sleep(0.05)
    with valkey.client() as client:
        assert not client.hexists(INDEX, "default/odd")
