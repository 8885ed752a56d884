"""The real application in a thread of this process, where a test can put failing parts in."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from servers import Reachable, Reply, wait_until

from service.app import create_app
from service.protocol import GuardedProtocol
from service.runtime import Runtime
from service.server import uvicorn_config
from service.settings import Settings

Customise = Callable[[Runtime], None]
ENDING_SECONDS = 90.0


@dataclass
class LiveApp(Reachable):
    runtime: Runtime
    app: FastAPI

    def connect(self, *, timeout_seconds: float = 5.0) -> socket.socket:
        """A bare TCP connection."""
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or 0)
        return socket.create_connection(address, timeout=timeout_seconds)

    def exchange(self, sent: bytes, *, timeout_seconds: float = 5.0) -> bytes:
        """What comes back for these bytes until the server closes or nothing more comes."""
        with self.connect(timeout_seconds=timeout_seconds) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return bytes(received)


def read_reply(connection: socket.socket, *, method: str = "POST") -> Reply:
    """One HTTP answer; what follows it is lost."""
    with closing(HTTPResponse(connection, method=method)) as response:
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())


@contextmanager
def live_app(
    data_dir: Path,
    *,
    customise: Customise | None = None,
    protocol: type[GuardedProtocol] = GuardedProtocol,
    **settings: Any,
) -> Iterator[LiveApp]:
    """Serve as in production, with no worker unless embedded_workers says so, and no quality
    measured at random; customise sees the runtime before the first request.
    """
    settings.setdefault("embedded_workers", 0)
    settings.setdefault("quality_share", 0)
    found: list[Runtime] = []

    def remember(runtime: Runtime) -> None:
        found.append(runtime)
        if customise is not None:
            customise(runtime)

    app = create_app(Settings.load({}, data_dir=data_dir, **settings), customise=remember)
    config = uvicorn_config(app)
    config.http = protocol
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = cast("int", listener.getsockname()[1])
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), seconds=60)
            assert server.started, getattr(app.state, "startup_error", "the app did not start")
            with closing(LiveApp(f"http://127.0.0.1:{port}", found[0], app)) as live:
                yield live
        finally:
            _end(server, thread)


def _end(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join(ENDING_SECONDS)
    assert not thread.is_alive(), "the app does not end"
