"""What drills on the whole service do to it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from heavy_stack import Load, Stack, Subject
from servers import wait_until
from valkey_server import Valkey
from workers import WorkerProcess, is_gone

LEASE_SECONDS = 2.0

StartStack = Callable[..., Stack]


@contextmanager
def running_stack(
    data_dir: Path, subject: Subject, valkey: Valkey | None, *, workers: int, **given: Any
) -> Iterator[Stack]:
    settings = {"LEASE_SECONDS": LEASE_SECONDS, "JOB_TIME_LIMIT_SECONDS": 60, **given}
    texts = {name: str(value) for name, value in settings.items()}
    with closing(Stack(data_dir, subject, valkey, texts)) as stack:
        for _ in range(workers):
            stack.start_worker()
        stack.start_server()
        yield stack


def kill_mid_job(stack: Stack, worker: WorkerProcess) -> float:
    """Kill a worker that holds jobs; seconds until no job of its was its any more."""
    pid = worker.process.pid
    worker.kill()
    killed = time.monotonic()
    wait_until(lambda: pid not in stack.held(), seconds=90)
    return time.monotonic() - killed


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process neither runs nor ends, for as long as it is there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if not is_gone(pid):
            os.kill(pid, signal.SIGCONT)


def go_on(load: Load) -> None:
    before = len(load.sent)
    wait_until(lambda: len(load.sent) >= before + 20, seconds=30)
