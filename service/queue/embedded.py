"""The queue without a server of one's own: Valkey and a worker, started and looked after here."""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from redis.exceptions import RedisError

from service import processes
from service.errors import UnavailableError
from service.logs import log
from service.queue.server import connect
from service.queue.valkey import LONGEST_SOCKET_PATH, server_command
from service.remote_metrics import RemoteMetrics
from service.settings import Settings

LOCK_SECONDS = 3.0
START_SECONDS = 30.0
STEADY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
WORKER_GRACE_SECONDS = 10.0
SERVER_GRACE_SECONDS = 5.0
METRICS_SECONDS = 1.0
PREFIX = "explaind-"
SOCKETS_NOTE = "sockets"
OWNER_NOTE = "owner"
LOG_BYTES = 2000
_BLAMES_ITS_FILE = re.compile(rb"append[ -]?only|\bAOF\b|\bRDB\b", re.IGNORECASE)

WORKER = (sys.executable, "-m", "service", "worker")
Start = Callable[[], Awaitable[subprocess.Popen[bytes]]]


class Embedded:
    """A private server and its workers, for as long as the event loop's thread lives.

    What ends by itself is started again. On Linux both end with this process, however that ends.
    redis_url: reachable by this user alone. metrics: the worker's series, for JointRegistry.
    """

    def __init__(self, directory: Path, sockets: Path, lock: int) -> None:
        self._directory = directory
        self._sockets = sockets
        self._lock = lock
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.redis_url = _url(sockets)
        self._metrics_socket = sockets / "metrics"
        self.metrics = RemoteMetrics(self._metrics_socket)

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        worker: Sequence[str] | None = None,
        worker_log: Path | None = None,
    ) -> Self:
        """Return once the server answers; the worker starts meanwhile.

        worker: what to run instead of `explaind worker`, with its options. worker_log: where it
        logs, if not where this process does. Raises UnavailableError
        when another process uses this data directory, where no server is packaged for this
        platform, or when it does not start.
        """
        directory = settings.data_dir.absolute() / "queue"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await _locked(directory / "lock")
        embedded = cls(directory, _socket_directory(directory), lock)
        try:
            await embedded._begin("server", embedded._start_server)
            if settings.embedded_workers:
                start = embedded._worker_starter(settings, worker or WORKER, worker_log)
                await embedded._begin("worker", start)
                embedded._tasks.append(asyncio.create_task(embedded._follow_metrics()))
        except BaseException:
            await embedded.stop()
            raise
        return embedded

    async def stop(self) -> None:
        """End the worker, which hands back its jobs, then the server, which keeps them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name, grace in (("worker", WORKER_GRACE_SECONDS), ("server", SERVER_GRACE_SECONDS)):
            if name in self._running:
                await processes.stop(self._running.pop(name), grace_seconds=grace)
        shutil.rmtree(self._sockets, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def process_id(self, name: str) -> int:
        """Of the `server` or the `worker` that runs now."""
        return self._running[name].pid

    async def _begin(self, name: str, start: Start) -> None:
        self._running[name] = await start()
        self._tasks.append(asyncio.create_task(self._supervise(name, start)))

    async def _supervise(self, name: str, start: Start) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            code = await processes.ended(self._running[name])
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.error("process_ended", process=name, exit_code=code, again_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
            try:
                self._running[name] = await start()
            except (UnavailableError, OSError) as error:  # the next turn tries again
                log.error("process_not_started", process=name, reason=str(error))

    async def _follow_metrics(self) -> None:
        while True:
            await asyncio.sleep(METRICS_SECONDS)
            await self.metrics.refresh()

    def _worker_starter(
        self, settings: Settings, command: Sequence[str], log_file: Path | None
    ) -> Start:
        options = [
            *("--concurrency", str(settings.embedded_workers)),
            *("--metrics-socket", str(self._metrics_socket)),
        ]
        environment = {**settings.environment(), "EXPLAIND_REDIS_URL": self.redis_url}

        async def start() -> subprocess.Popen[bytes]:
            with contextlib.ExitStack() as opened:
                log_to = None if log_file is None else opened.enter_context(log_file.open("ab"))
                return processes.launch(
                    [*command, *options],
                    at_parents_end=signal.SIGTERM,
                    environment=environment,
                    stderr=None if log_to is None else log_to.fileno(),
                )

        return start

    async def _start_server(self) -> subprocess.Popen[bytes]:
        """Start it; what it cannot read of its own file is set aside, once. The jobs in it are
        pending in the evidence store, and queued again from there.
        """
        process = self._launch_server()
        if not await self._answers(process) and self._set_aside():
            process = self._launch_server()
            await self._answers(process)
        if process.poll() is not None:
            raise UnavailableError(
                f"the queue's server does not start: see {self._directory / 'valkey.log'}"
            )
        return process

    def _launch_server(self) -> subprocess.Popen[bytes]:
        # The server holds the lock as well: a second one never writes the same file.
        return processes.launch(
            server_command(self._directory, self._sockets / "valkey"),
            at_parents_end=signal.SIGTERM,
            pass_fds=[self._lock],
        )

    async def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it came to answer, rather than end; one that does neither in time is ended."""
        deadline = time.monotonic() + START_SECONDS
        client = connect(self.redis_url, timeout_seconds=1.0)
        try:
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(RedisError, OSError):
                    said = await client.info("server", "persistence")
                    # While it reads its file it tells about itself, and does nothing else.
                    if said["process_id"] == process.pid and not said["loading"]:
                        return True
                await asyncio.sleep(0.01)
        except BaseException:
            process.kill()
            raise
        finally:
            await client.aclose()
        await processes.stop(process, grace_seconds=0)
        return False

    def _set_aside(self) -> bool:
        written = self._directory / "appendonlydir"
        said = self._directory / "valkey.log"
        with contextlib.suppress(OSError):
            if not _BLAMES_ITS_FILE.search(said.read_bytes()[-LOG_BYTES:]):
                return False
        if not written.exists():
            return False
        aside = self._directory / f"appendonlydir.damaged-{time.time_ns()}"
        written.rename(aside)
        log.error("queue_file_damaged", set_aside=str(aside))
        return True


async def running_url(settings: Settings) -> str | None:
    """Where the server of the `explaind` that runs in this data directory answers, if one does."""
    try:
        sockets = Path((settings.data_dir / "queue" / SOCKETS_NOTE).read_text())
    except OSError:
        return None
    url = _url(sockets)
    client = connect(url, timeout_seconds=1.0)
    try:
        with contextlib.suppress(RedisError, OSError):
            await client.ping()
            return url
    finally:
        await client.aclose()
    return None


async def _locked(file: Path) -> int:
    """A descriptor that holds the lock, inherited by whom it is passed to."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS  # a server whose API was killed takes a moment
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                continue
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise UnavailableError(
                f"another explaind (process {holder or 'unknown'}) runs its queue in "
                f"{file.parent}: stop it, use another data directory, or set EXPLAIND_REDIS_URL"
            ) from None
        break
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _url(sockets: Path) -> str:
    return f"unix://{quote(str(sockets / 'valkey'))}"


def _socket_directory(directory: Path) -> Path:
    """A new private one with a short path, noted in the data directory; a dead forerunner's is
    removed, but not that of the directory which this one is a copy of.
    """
    note, own = directory / SOCKETS_NOTE, str(directory.resolve())
    with contextlib.suppress(OSError):
        before = Path(note.read_text())
        if before.name.startswith(PREFIX) and (before / OWNER_NOTE).read_text() == own:
            shutil.rmtree(before, ignore_errors=True)
    made = _short_directory(directory)
    (made / OWNER_NOTE).write_text(own)
    note.write_text(str(made))
    return made


def _short_directory(directory: Path) -> Path:
    """In the temporary folder, in /tmp, or in the data directory: where a socket's path is short
    enough and can be made. Raises UnavailableError where none is.
    """
    for parent in (None, "/tmp", directory):  # noqa: S108 - made private by mkdtemp
        with contextlib.suppress(OSError):
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            if len(str(made / "metrics").encode()) <= LONGEST_SOCKET_PATH:
                return made
            made.rmdir()
    raise UnavailableError("no directory for the queue's sockets can be made: set TMPDIR")
