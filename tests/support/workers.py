"""Worker processes for drills, and the queue as a client sees it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job_store import JobStore
from jobs import job
from servers import wait_until
from valkey_server import Valkey

from service.queue import JobQueue

SUPPORT = Path(__file__).parent
LEASE_SECONDS = 1.0
TIME_LIMIT_SECONDS = 1.0


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@dataclass
class WorkerProcess:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def children(self) -> list[int]:
        """Process IDs of its computing children."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        try:
            found = [(task / "children").read_text().split() for task in tasks.iterdir()]
        except OSError:
            return []
        return [int(pid) for group in found for pid in group]

    def wait_until_started(self) -> None:
        wait_until(lambda: "worker_started" in self.log.read_text(), seconds=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_seconds: float = 20.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)


@dataclass
class Workshop:
    """A server, a store, and worker processes between them."""

    valkey: Valkey
    directory: Path
    store: JobStore = field(init=False)
    workers: list[WorkerProcess] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = JobStore(self.directory / "jobs.db")
        self.store.create()

    def start_worker(self, *, concurrency: int = 1) -> WorkerProcess:
        log = self.directory / f"worker-{len(self.workers)}.log"
        given: Mapping[str, Any] = {
            "REDIS_URL": self.valkey.url,
            "DATA_DIR": self.directory,
            "LEASE_SECONDS": LEASE_SECONDS,
            "JOB_TIME_LIMIT_SECONDS": TIME_LIMIT_SECONDS,
            **self.settings,
        }
        environment = {f"EXPLAIND_{name}": str(value) for name, value in given.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, SUPPORT / "worker_program.py", "--concurrency", str(concurrency)],
                stdout=output,
                stderr=output,
                env={**os.environ, **environment, "PYTHONPATH": str(SUPPORT)},
            )
        self.workers.append(WorkerProcess(process, log))
        return self.workers[-1]

    async def submit(self, queue: JobQueue, **tasks: Any) -> None:
        """Record tasks, then queue their jobs; an underscore in a name is a dash."""
        self.store.add(**tasks)
        for name in tasks:
            assert await queue.submit(job(name.replace("_", "-")))

    def wait_for(self, *names: str, seconds: float = 20.0) -> dict[str, tuple[str, str]]:
        """The ends of these tasks, once all have one."""
        wait_until(lambda: set(names) <= set(self.store.ends()), seconds=seconds)
        return self.store.ends()


@contextmanager
def workshop(valkey: Valkey, directory: Path, **settings: Any) -> Iterator[Workshop]:
    """Its workers are gone afterwards."""
    shop = Workshop(valkey, directory, settings=settings)
    try:
        yield shop
    finally:
        for worker in shop.workers:
            worker.kill()
