"""A real `explaind serve` in a process of its own, and a small client for it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

IDLE_SECONDS = 2.0
COMMAND = (sys.executable, "-m", "service")
START_SECONDS = 60.0
WORKLESS = {"EXPLAIND_EMBEDDED_WORKERS": "0"}
WITH_WORKER = {"EXPLAIND_EMBEDDED_WORKERS": "1"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One keep-alive connection, opened again after a pause in which servers may close it."""

    url: str
    key: str | None = None
    connection: http.client.HTTPConnection = field(init=False)
    used_at: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = dict(headers or {})
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        if time.monotonic() - self.used_at > IDLE_SECONDS:
            self.connection.close()
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        self.used_at = time.monotonic()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, None, headers)

    def predict(
        self,
        instances: list[dict[str, Any]],
        *,
        query: str = "?explain=true",
        path: str = "/predict",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        body = json.dumps({"instances": instances}).encode()
        return self.request("POST", path + query, body, {**JSON, **(headers or {})})

    def close(self) -> None:
        self.connection.close()


@dataclass
class Reachable:
    """Whatever serves at a URL."""

    url: str
    clients: list[Client] = field(default_factory=list, kw_only=True)

    def client(self, key: str | None = None) -> Client:
        """A new connection, closed with what serves it."""
        self.clients.append(Client(self.url, key))
        return self.clients[-1]

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            client.close()


@dataclass
class Server(Reachable):
    process: subprocess.Popen[bytes]
    log: Path

    def close(self) -> None:
        """Close the connections and end the process, if it still runs."""
        super().close()
        if self.process.poll() is None:
            self.stop()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_seconds: float = 30.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)


def explaind(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **(env or {})},
    )


def start_server(
    data_dir: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    port: int = 0,
    inside: Sequence[str] = (),
    command: Sequence[str] = COMMAND,
) -> Server:
    """Start `explaind serve` and return once it says where it serves.

    env: without WITH_WORKER it brings no worker, whose start takes two processes and seconds of a
    core, whether or not anything is queued.
    inside: a command that runs another one in its place.
    """
    log = data_dir / "serve.log"
    options = ("--port", str(port), "--data-dir", str(data_dir))
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*inside, *command, "serve", *options, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **WORKLESS, **(env or {})},
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("· serving on "):
                return Server(line.removeprefix("· serving on "), process, log)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the service did not start:\n{log.read_text(errors='replace')}")


@contextmanager
def running_server(
    data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is gone afterwards."""
    server = start_server(data_dir, *arguments, env=env)
    try:
        yield server
    finally:
        server.close()


def wait_until(condition: Any, *, seconds: float = 10.0) -> None:
    """Poll until the condition holds; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def assert_becomes_ready(client: Client, *, seconds: float = 10.0) -> None:
    """Nothing is missing, soon: on a busy machine a late answer of the queue shows for a second."""
    deadline = time.monotonic() + seconds
    while (said := client.get("/readyz").json()) != {"status": "ready"}:
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
