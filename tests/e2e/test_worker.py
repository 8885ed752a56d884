"""Worker processes, their children and the queue's server are killed, hung and frozen: every job
ends exactly once, and for a reason.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job
from polling import answering, until
from servers import wait_until
from valkey_server import Valkey
from workers import LEASE_SECONDS, TIME_LIMIT_SECONDS, Workshop, is_gone, workshop

from service.queue import JobQueue, QueueAwayError
from service.queue.server import INDEX

SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
RECOVERY_SECONDS = LEASE_SECONDS + 2.0


@pytest.fixture
async def queue(valkey: Valkey) -> AsyncIterator[JobQueue]:
    queue = await answering(valkey.url)
    yield queue
    await queue.close()


@pytest.fixture
def shop(valkey: Valkey, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(valkey, tmp_path) as shop:
        yield shop


def unfinished(valkey: Valkey) -> int:
    with valkey.client() as client:
        return int(client.hlen(INDEX))


async def test_computing_gives_way_as_much_as_is_said(
    queue: JobQueue, valkey: Valkey, tmp_path: Path
) -> None:
    with workshop(valkey, tmp_path, JOB_NICENESS=7) as shop:
        worker = shop.start_worker()
        await shop.submit(queue, said={"n": 1})
        shop.wait_for("said")
        (child,) = worker.children
        assert os.getpriority(os.PRIO_PROCESS, child) == 7
        assert os.getpriority(os.PRIO_PROCESS, worker.process.pid) == 0


async def test_jobs_end_with_their_results_and_their_failures(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    """Among them two that end their child: the others are none the worse."""
    flag = str(shop.directory / "flag")
    tasks = {f"echo_{n}": {"n": n} for n in range(20)}
    await shop.submit(
        queue,
        **tasks,
        aborts={"do": "abort"},
        raises={"do": "raise"},
        aborts_once={"do": "abort_once", "file": flag},
        hangs={"do": "hold", "seconds": 600},
        goes_on={"do": "advance", "steps": 8, "seconds": TIME_LIMIT_SECONDS / 4},
    )
    shop.start_worker()
    ends = shop.wait_for(*(name.replace("_", "-") for name in tasks), "hangs", "goes-on", "aborts")
    ends = shop.wait_for("raises", "aborts-once")
    assert ends["echo-7"] == ("finished", '{"n": 7}')
    assert ends["aborts"] == ("dead", "the computing process was ended by SIGABRT, twice")
    assert ends["raises"] == ("failed", "the computation failed with ValueError")
    assert ends["aborts-once"][0] == "finished"
    assert ends["hangs"] == ("dead", f"no progress for {TIME_LIMIT_SECONDS:g} s, twice")
    assert ends["goes-on"][0] == "finished"
    assert len(ends) == 25
    wait_until(lambda: unfinished(valkey) == 0)
    assert "a message with an input in it" not in shop.workers[0].log.read_text()


async def test_who_waits_hears_progress_and_the_end(queue: JobQueue, shop: Workshop) -> None:
    shop.start_worker().wait_until_started()
    await asyncio.wait_for(queue.notices.subscribed(), 5)
    async with queue.notices.waiting("default", "steps") as waiting:
        await shop.submit(queue, steps={"do": "advance", "steps": 3, "seconds": 0.1})
        heard = []
        async with asyncio.timeout(10):
            while not heard or heard[-1].kind != "final":
                notice = await waiting.next(10)
                assert notice is not None
                heard.append(notice)
    assert {"done": 1, "of": 3} in [notice.facts for notice in heard]
    assert shop.store.ends()["steps"][0] == "finished"


@pytest.mark.drill
async def test_a_killed_workers_job_is_done_by_another_within_the_lease_and_two_seconds(
    queue: JobQueue, shop: Workshop
) -> None:
    first = shop.start_worker()
    await shop.submit(queue, long={"do": "advance", "steps": 120, "seconds": 0.05})
    wait_until(lambda: shop.store.attempts() == 1)
    second = shop.start_worker()
    second.wait_until_started()
    wait_until(lambda: second.children)
    children = first.children
    assert children
    first.kill()
    killed = time.monotonic()
    wait_until(lambda: shop.store.attempts() == 2)
    assert time.monotonic() - killed < RECOVERY_SECONDS
    assert shop.wait_for("long")["long"][0] == "finished"
    wait_until(lambda: all(map(is_gone, children)))


@pytest.mark.drill
async def test_sigterm_hands_back_at_once_and_ends_with_0(queue: JobQueue, shop: Workshop) -> None:
    shop.settings.update(LEASE_SECONDS=60, JOB_TIME_LIMIT_SECONDS=60)
    worker = shop.start_worker()
    await shop.submit(queue, running={"do": "sleep", "seconds": 30}, waiting={})
    wait_until(lambda: shop.store.attempts() >= 1)
    children = worker.children
    assert worker.stop() == 0
    assert all(map(is_gone, children))
    assert "Traceback" not in worker.log.read_text()
    shop.start_worker(concurrency=2)
    assert shop.wait_for("waiting", seconds=10)["waiting"][0] == "finished"
    await until(lambda: shop.store.attempts() == 3)


@pytest.mark.drill
async def test_a_job_nobody_can_finish_is_given_up_with_its_reason(
    queue: JobQueue, shop: Workshop
) -> None:
    """Each worker that takes it is killed; the innocent one beside it is done."""
    await shop.submit(queue, poison={"do": "sleep", "seconds": 600})
    shop.settings["JOB_TIME_LIMIT_SECONDS"] = 600
    for attempt in range(3):
        worker = shop.start_worker()
        wait_until(lambda attempt=attempt: shop.store.attempts() == attempt + 1, seconds=20)
        worker.kill()
    await shop.submit(queue, innocent={})
    shop.start_worker()
    ends = shop.wait_for("poison", "innocent")
    assert ends["poison"] == ("dead", "3 deliveries ended without a result")
    assert ends["innocent"][0] == "finished"


@pytest.mark.drill
async def test_a_job_for_a_version_that_is_nowhere_waits_and_then_fails(
    queue: JobQueue, shop: Workshop
) -> None:
    shop.settings["LEASE_SECONDS"] = 0.2
    shop.store.add(nowhere={"do": "not_here"}, old={"do": "not_here"})
    recent = (
        job("nowhere")
        .encode()
        .replace(str(job().received_us).encode(), str(int(time.time() * 1e6)).encode())
    )
    await queue.submit(type(job()).decode(recent))
    await queue.submit(job("old"))
    shop.start_worker()
    ends = shop.wait_for("old")
    assert ends["old"] == ("failed", "no worker: version 3 is not in this registry")
    wait_until(lambda: shop.store.attempts() > 3)
    assert "nowhere" not in shop.store.ends()


@pytest.mark.drill
async def test_a_result_is_kept_while_its_store_is_away(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    shop.start_worker().wait_until_started()
    await shop.submit(queue, slow={"do": "sleep", "seconds": 0.7})
    wait_until(lambda: shop.store.attempts() == 1)
    away = shop.store.file.with_name("away.db")
    shop.store.file.rename(away)
    log = shop.workers[0].log
    wait_until(lambda: log.read_text().count("result_not_stored") >= 3)
    await asyncio.sleep(LEASE_SECONDS + 0.5)
    away.rename(shop.store.file)
    assert shop.wait_for("slow")["slow"][0] == "finished"
    assert shop.store.attempts() == 1
    wait_until(lambda: unfinished(valkey) == 0)


async def test_a_worker_finishes_its_job_while_the_server_is_frozen_or_killed(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    worker = shop.start_worker()
    for n, (end, begin) in enumerate([(valkey.freeze, valkey.thaw), (valkey.kill, valkey.start)]):
        await shop.submit(queue, **{f"job_{n}": {"do": "sleep", "seconds": 0.4}})
        await until(lambda n=n: shop.store.attempts() == n + 1)
        end()
        assert shop.wait_for(f"job-{n}")[f"job-{n}"][0] == "finished"
        begin()
        await until(lambda: queue.is_available)
    await until(lambda: unfinished(valkey) == 0)
    assert shop.store.attempts() == 2
    assert worker.process.poll() is None


async def test_a_batch_cut_short_by_an_error_gives_no_job_the_result_of_another(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    """The server is away when a job in the middle is to be passed on."""
    light = {f"light_{n}": {"n": -n} for n in range(60)}
    last = {f"last_{n}": {"n": n} for n in range(30)}
    slow = {"do": "sleep", "seconds": 0.7}
    shop.store.add(**light, slow=slow, passed={"do": "not_here"}, **last)
    for name in (*light, "slow", "passed", *last):
        recent = replace(job(name.replace("_", "-")), received_us=time.time_ns() // 1000)
        await queue.submit(recent)
    worker = shop.start_worker()
    shop.wait_for("light-59")
    await until(lambda: shop.store.attempts() >= 62 + len(last))
    valkey.kill()
    wait_until(lambda: "worker_waits" in worker.log.read_text())
    valkey.start()
    ends = shop.wait_for(*(name.replace("_", "-") for name in last))
    for name, task in last.items():
        assert ends[name.replace("_", "-")] == ("finished", json.dumps(task))


async def test_a_worker_waits_for_a_server_that_is_down_at_start_and_outlives_an_emptied_one(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    valkey.stop()
    worker = shop.start_worker()
    wait_until(lambda: "worker_waits" in worker.log.read_text())
    valkey.start()
    shop.store.add(first={})
    await keep_submitting(queue, ["first"])
    shop.wait_for("first")
    with valkey.client() as client:
        client.flushall()
    shop.store.add(last={})
    await keep_submitting(queue, ["last"])
    shop.wait_for("last")
    assert worker.process.poll() is None


async def keep_submitting(queue: JobQueue, names: list[str]) -> None:
    """As the outbox does: again until it is in the queue, and again when it was lost there."""
    for name in names:
        while True:
            try:
                await queue.submit(job(name))
                break
            except QueueAwayError:
                await asyncio.sleep(0.05)


async def kill_mid_job(shop: Workshop, seeded: random.Random, *, child_too: bool) -> None:
    """Start a worker, and kill it once something has ended."""
    worker = shop.start_worker()
    before = len(shop.store.ends())
    await until(lambda: len(shop.store.ends()) > before, seconds=20)
    await asyncio.sleep(seeded.random() * 0.1)
    if child_too and worker.children:
        os.kill(worker.children[0], signal.SIGKILL)
    worker.kill()


async def kill_workers(queue: JobQueue, shop: Workshop, valkey: Valkey, *, times: int) -> None:
    """Kill workers mid-job, some of their children, and once the server."""
    seeded = random.Random(4)
    names = [f"job-{n}" for n in range(40 * times)]
    task = {"do": "sleep", "seconds": 0.01}
    shop.store.add(**{name.replace("-", "_"): task for name in names})
    shop.settings["LEASE_SECONDS"] = 0.5
    submitting = asyncio.create_task(keep_submitting(queue, names))
    for turn in range(times):
        await kill_mid_job(shop, seeded, child_too=turn % 3 == 2)
        if turn == times // 2:
            valkey.kill()
            valkey.start()
    await submitting
    shop.start_worker()
    await until(lambda: len(shop.store.ends()) == len(names), seconds=120)
    ends = shop.store.ends()
    dead = [reason for outcome, reason in ends.values() if outcome != "finished"]
    print(f"{len(names)} jobs, {times} kills: {shop.store.attempts()} attempts, given up: {dead}")
    assert len(dead) <= times // 2
    await until(lambda: unfinished(valkey) == 0)


@pytest.mark.small_version_of("test_workers_killed_mid_job_many_times_lose_nothing")
async def test_workers_killed_mid_job_lose_nothing(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    await kill_workers(queue, shop, valkey, times=2)


@pytest.mark.drill
async def test_workers_killed_mid_job_many_times_lose_nothing(
    queue: JobQueue, shop: Workshop, valkey: Valkey
) -> None:
    await kill_workers(queue, shop, valkey, times=max(5, int(50 * SCALE)))
