"""Jobs a second, time to enqueue, and time from a job's end to who waits for it, beside rq and
taskiq-redis on the same server.

    .venv/bin/python tests/benchmarks/job_queue.py [--seconds 3]

Jobs do nothing, at nobody's lower priority; all keep their results on the server. One round a
contender: alone on the server, queue filled first, workers started, rate taken from the first
results seen to the last. The others run as their manuals have it and in their fastest mode: rq also
without a process a job (`simple`, where a crash takes the worker along), taskiq also without
acknowledging (`list`, where a killed worker's jobs are lost); each target is against the faster
one. Waiting: rq blocks on the result, taskiq polls each 0.5 ms, ours is told. Exit code 1 when a
target was missed.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import machine
import numpy as np
from processes import ONE_THREAD, Serving
from queue_rivals import Contender, Ours, Rq, Taskiq
from redis import Redis
from targets import Target, verdict

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from valkey_server import Valkey, running_valkey  # noqa: E402 - from the folder just added

GUESSED_RATES = {"explaind": 8000, "rq": 300, "taskiq-redis": 2000}
LONGEST_SECONDS = 120.0
ENQUEUED = 1000
WAITED_FOR = 200
LEAST_RATIO = 5.0
HEADS = (
    ("jobs/s", "", "CPU us", "enqueue", "ms", "visible", "ms"),
    ("1 worker", "2", "a job", "p50", "p99", "p50", "p99"),
)
LONGEST_VISIBLE_MILLISECONDS = 10.0


@dataclass(frozen=True)
class Measured:
    rates: tuple[float, float]
    cpu_microseconds: float
    enqueue: tuple[float, float]
    visible: tuple[float, float]

    def __str__(self) -> str:
        one, two = self.rates
        return f"{one:>9,.0f} {two:>9,.0f} {self.cpu_microseconds:>9,.0f}" + "".join(
            f" {number:>9.2f}" for number in (*self.enqueue, *self.visible)
        )


@contextmanager
def workers(contender: Contender, url: str, number: int) -> Iterator[list[Serving]]:
    environment = {
        **os.environ,
        **ONE_THREAD,
        "EXPLAIND_REDIS_URL": url,
        "PYTHONPATH": f"{HERE}:{HERE.parents[1]}",
    }
    started = [
        subprocess.Popen(contender.worker(), env=environment, stdout=subprocess.DEVNULL)
        for _ in range(number)
    ]
    try:
        yield [Serving(url, process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def percentiles(seconds: list[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return float(p50), float(p99)


async def rate(contender: Contender, valkey: Valkey, number: int, jobs: int) -> tuple[float, float]:
    """Jobs a second of so many workers over a queue that was filled before, and microseconds of
    CPU time a job, which a busy machine disturbs less.
    """
    with valkey.client() as client:
        client.flushall()
        await contender.open()
        for start in range(0, jobs, 200):
            await asyncio.gather(*(contender.enqueue(start + n) for n in range(200)))
        with workers(contender, valkey.url, number) as processes:
            first = await done(contender, client, at_least=jobs // 10)
            started, cpu = time.perf_counter(), cpu_seconds(processes)
            last = await done(contender, client, at_least=jobs * 9 // 10)
            seconds, cpu = time.perf_counter() - started, cpu_seconds(processes) - cpu
            await done(contender, client, at_least=jobs)
        await contender.close()
    return (last - first) / seconds, 1e6 * cpu / (last - first)


def cpu_seconds(processes: list[Serving]) -> float:
    return sum(process.cpu_seconds() for process in processes)


async def done(contender: Contender, client: Redis, *, at_least: int) -> int:
    """How many jobs are done, once so many are."""
    while (found := contender.done(client)) < at_least:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return found


async def latencies(
    contender: Contender, valkey: Valkey
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Milliseconds p50 and p99: to enqueue, and from a job's end to who waits."""
    with valkey.client() as client:
        client.flushall()
    await contender.open()
    enqueue = []
    for number in range(ENQUEUED):
        started = time.perf_counter()
        await contender.enqueue(number)
        enqueue.append(time.perf_counter() - started)
    with workers(contender, valkey.url, 1), valkey.client() as client:
        await done(contender, client, at_least=ENQUEUED)
        visible = [await contender.visible_seconds(ENQUEUED + n) for n in range(WAITED_FOR)]
    await contender.close()
    return percentiles(enqueue), percentiles(visible)


async def measured(contender: Contender, valkey: Valkey, seconds: float) -> Measured:
    guess = GUESSED_RATES[contender.name.split()[0]]
    jobs = max(400, int(guess * seconds) // 200 * 200)
    rates = [await rate(contender, valkey, number, jobs) for number in (1, 2)]
    enqueue, visible = await latencies(contender, valkey)
    (one, cpu), (two, _) = rates
    return Measured((one, two), cpu, enqueue, visible)


async def main(seconds: float) -> int:
    print(machine.facts())
    with running_valkey(memory="1gb") as valkey:
        with valkey.client() as client:
            server = client.info("server")
        print(f"Valkey {server['valkey_version']}, redis-py {version('redis')}")
        for heads in HEADS:
            print(f"{'':<28}" + "".join(f" {head:>9}" for head in heads))
        contenders: list[Contender] = [
            Ours(valkey.url),
            Rq(valkey.url, "forking"),
            Rq(valkey.url, "simple"),
            Taskiq(valkey.url, "stream"),
            Taskiq(valkey.url, "list"),
        ]
        found = {}
        for contender in contenders:
            async with asyncio.timeout(LONGEST_SECONDS):
                found[contender.name] = await measured(contender, valkey, seconds)
            print(f"{contender.name:<28} {found[contender.name]}", flush=True)
    print(machine.load())
    return verdict(targets_of(found))


def targets_of(found: dict[str, Measured]) -> Iterator[Target]:
    ours = found["explaind"]
    for rival in ("rq", "taskiq-redis"):
        for n, workers_ in enumerate(("one worker", "two workers")):
            best = max(m.rates[n] for name, m in found.items() if name.startswith(rival))
            what = f"jobs/s against {rival}'s faster mode, {workers_}"
            yield Target(what, LEAST_RATIO, ours.rates[n] / best)
    what = "milliseconds from a job's end to who waits, p99"
    yield Target(what, LONGEST_VISIBLE_MILLISECONDS, ours.visible[1], is_least=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    sys.exit(asyncio.run(main(parser.parse_args().seconds)))
