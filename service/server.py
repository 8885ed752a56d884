"""The process: one socket, one event loop, signals that end in an orderly stop."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.accepting import Acceptor
from service.app import create_app
from service.compiling import choose_kernel_cache, compile_kernels
from service.errors import CommandError, UnavailableError, UsageError
from service.logs import configure_logs, log
from service.protocol import CLOSE, GuardedProtocol
from service.runtime import Runtime
from service.settings import Settings

GRACE_SECONDS = 20
"""How long requests that are being answered may still take once the service is closed."""

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection, so that they never use a closed one."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers; `stop` ends it as a signal would."""

    url: str
    stop: Callable[[], None]


class _Server(uvicorn.Server):
    """Uvicorn's server, which may go on for a while after SIGTERM: a balancer sends requests until
    it has seen that the service is not ready, and to a closed socket they would fail.
    """

    on_ready: Callable[[], None]
    drain_seconds = 0.0
    _closes_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM drains; a second one, and Ctrl-C, close at once."""
        is_first = self._closes_at is None and not self.should_exit
        if sig == signal.SIGTERM and is_first and self.started and self.drain_seconds > 0:
            self._drain()
            return
        super().handle_exit(sig, frame)
        self._tell_runtime()

    async def on_tick(self, counter: int) -> bool:
        if self._closes_at is not None and time.monotonic() >= self._closes_at:
            self.should_exit = True
            self._tell_runtime()
        return await super().on_tick(counter)

    def _drain(self) -> None:
        self._closes_at = time.monotonic() + self.drain_seconds
        # Whoever keeps a connection is told to make another one, which leads to another replica.
        self.config.encoded_headers.append(CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        runtime = self._runtime
        if runtime is not None:
            runtime.is_draining = True
        log.info("draining", seconds=self.drain_seconds)

    def _tell_runtime(self) -> None:
        runtime = self._runtime
        if runtime is not None:
            runtime.is_stopping = True

    @property
    def _runtime(self) -> Runtime | None:
        app = self.config.app
        runtime = getattr(app.state, "runtime", None) if isinstance(app, FastAPI) else None
        return runtime if isinstance(runtime, Runtime) else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        if self.started:
            # Uvicorn closes these with its own, and waits for them.
            self.servers = [Acceptor(listener, self._protocol) for listener in sockets or ()]  # type: ignore[misc]
            self.on_ready()

    def _protocol(self) -> asyncio.Protocol:
        return GuardedProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def run_server(
    settings: Settings, *, on_ready: Callable[[Ready], None], log_level: str = "INFO"
) -> None:
    """Serve until a signal. CommandError says in one line why it cannot."""
    if not settings.binds_loopback and settings.api_keys_file is None:
        raise UsageError(
            f"listening on {settings.host} needs API keys: set EXPLAIND_API_KEYS_FILE "
            "(`explaind keys create` makes one)"
        )
    configure_logs(log_level)
    for name in Settings.unknown_variables():
        log.warning("unknown_setting", variable=name)
    choose_kernel_cache(settings.data_dir)
    compile_kernels()
    _ignore_signals_after_shutdown()
    listener = _bind(settings)
    app = create_app(settings)
    server = _Server(uvicorn_config(app))
    server.drain_seconds = settings.drain_seconds

    def stop() -> None:
        server.should_exit = True

    host, port = settings.host, listener.getsockname()[1]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server.on_ready = lambda: on_ready(Ready(url, stop))
    with listener, contextlib.suppress(SystemExit):  # uvicorn's own code for a start that failed
        server.run(sockets=[listener])
    if not server.started:
        error = getattr(app.state, "startup_error", None)
        raise error if isinstance(error, CommandError) else UnavailableError("start-up failed")


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How the service is run, in production and in tests."""
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        place = f"{settings.host}:{settings.port}"
        raise UnavailableError(f"cannot listen on {place}: {error.strerror}") from error
    return listener


def _ignore_signals_after_shutdown() -> None:
    """Uvicorn raises the signal again once it has shut down; by then there is nothing to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
