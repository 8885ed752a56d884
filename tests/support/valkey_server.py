"""A real Valkey server of a test's own, which can be frozen, killed and started again."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from servers import wait_until

from service.queue.valkey import server_command


@dataclass
class Valkey:
    directory: Path
    memory: str = "64mb"
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> Redis:
        """A client for looking in from outside."""
        return Redis.from_url(self.url, socket_timeout=5, protocol=2)

    def start(self) -> None:
        """Start it, again after `kill`, over what it had written."""
        self.process = subprocess.Popen(
            server_command(self.directory, self.socket, memory=self.memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self._signal(number)
            self._signal(signal.SIGCONT)
            self.process.wait(20)


@contextmanager
def stopped_valkey(*, memory: str = "64mb") -> Iterator[Valkey]:
    """A server that is yet to be started. In /tmp, because a socket's path is short."""
    directory = Path(tempfile.mkdtemp(prefix="valkey-"))
    server = Valkey(directory, memory)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


@contextmanager
def running_valkey(*, memory: str = "64mb") -> Iterator[Valkey]:
    """A server that answers, and is gone afterwards."""
    with stopped_valkey(memory=memory) as server:
        server.start()
        yield server
