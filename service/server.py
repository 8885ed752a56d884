"""The process: one socket, one event loop, signals that end in an orderly stop."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.accepting import Acceptor
from service.admission import Admission
from service.app import create_app
from service.compiling import choose_kernel_cache, compile_kernels
from service.errors import (
    CommandError,
    HeadTooLargeError,
    MalformedRequestError,
    ServiceError,
    SlowRequestError,
    UnavailableError,
    UsageError,
)
from service.guards import guarded
from service.http import problem_response
from service.logs import configure_logs, log
from service.runtime import Runtime
from service.sending import WholeAnswers
from service.settings import Settings
from service.uuid7 import uuid7

GRACE_SECONDS = 20
"""How long requests that are being answered may still take once the service is closed."""

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection, so that they never use a closed one."""
MOST_HEAD_BYTES = 64 * 1024
LEAST_READ_BYTES = 64 * 1024
"""Of an answer that is ready, in the time that a request may take to arrive."""

CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers; `stop` ends it as a signal would."""

    url: str
    stop: Callable[[], None]


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP, where a peer can neither take for ever nor send a head without end, and
    bytes that are no request get a problem like every other mistake. What is not admitted is
    refused here, before uvicorn makes anything of it.
    """

    request_seconds = 15.0
    """How long one request may take to arrive, head and body."""

    last_seconds = 2.0
    """How long it still may take once the service is stopping."""

    _clock: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _is_partial = False
    _is_refused = False
    _has_refused = False
    _is_at_rest = False
    _is_stopping = False
    _bytes_outside_bodies = 0

    @cached_property
    def _admission(self) -> Admission:
        return getattr(getattr(self.config.app, "state", None), "admission", None) or Admission()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._end_stall()
        self._end_rest()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def eof_received(self) -> None:
        if self._is_partial:
            self._refuse(MalformedRequestError())

    def data_received(self, data: bytes) -> None:
        self._bytes_outside_bodies += len(data)
        self._has_refused = False
        super().data_received(data)
        if self._has_refused and not self._is_partial:
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or not (self._is_partial or is_idle):
            return
        self._start_clock()
        if self._bytes_outside_bodies > MOST_HEAD_BYTES:
            self._refuse(HeadTooLargeError())

    def on_message_begin(self) -> None:
        self._is_partial = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._bytes_outside_bodies = 0
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._admission.refuses(self.url, len(self.tasks)):
            self._is_refused = True
            if self.expect_100_continue:  # its body is not on its way
                self._send_refusal(closes=True)
            return
        if is_idle:
            self._begin_rest()
        else:
            self._stop_clock()
        super().on_headers_complete()
        self.cycle.__class__ = WholeAnswers  # uvicorn asks nobody which class to make

    def on_body(self, body: bytes) -> None:
        self._bytes_outside_bodies = 0
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._bytes_outside_bodies = 0
        self._is_partial = False
        self._stop_clock()
        if self._is_refused:
            self._is_refused = False
            keeps = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
            self._send_refusal(closes=not keeps or self._is_leaving())
            return
        self._end_rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._end_rest()
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if has_next and not self.pipeline and self.cycle.more_body:
            self._begin_rest()
        if has_next and self._is_partial:
            self._start_clock()

    def shutdown(self) -> None:
        self._is_stopping = True
        super().shutdown()
        if self._is_partial:
            self._stop_clock()
            self._start_clock()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        self._refuse(MalformedRequestError())

    def _is_leaving(self) -> bool:
        return self._is_stopping or CLOSE in self.server_state.default_headers

    def _look_again(self, unread: int) -> None:
        self._end_stall()
        self._stall = self.loop.call_later(self.request_seconds, self._end_unread, unread)

    def _end_unread(self, before: int) -> None:
        """Give up a peer that hardly reads: the task that answers it would keep its place."""
        unread = self.transport.get_write_buffer_size()
        if before - unread < LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._look_again(unread)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _begin_rest(self) -> None:
        """The request has a task, which waits for its body."""
        self._is_at_rest = True
        self._admission.resting += 1

    def _end_rest(self) -> None:
        """The request is here, or over."""
        if self._is_at_rest:
            self._is_at_rest = False
            self._admission.resting -= 1

    def _send_refusal(self, *, closes: bool) -> None:
        if self.transport.is_closing():
            return
        if self.flow.write_paused:  # nobody reads the ones before
            self.transport.abort()
            return
        self._has_refused = True
        method = self.parser.get_method().decode("ascii")
        answer = self._admission.refusal(method, self.url, self.headers, closes=closes)
        self.transport.write(answer)
        if closes:
            self.transport.close()
        else:
            super().on_response_complete()  # which waits for the next request

    def _start_clock(self) -> None:
        """Not while the request waits for its turn, since it may go unread till then."""
        if self._clock is None and not self.pipeline:
            seconds = self.last_seconds if self._is_stopping else self.request_seconds
            self._clock = self.loop.call_later(seconds, self._refuse, SlowRequestError())

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _refuse(self, error: ServiceError) -> None:
        """Close; say why unless the peer would take it for the answer to an earlier request, or has
        had the one to this.
        """
        if self.transport.is_closing():
            return
        if not self._would_mislead():
            self.transport.write(guarded(_raw_problem(error)))
            if self.cycle is None or self.cycle.response_complete:  # else the application counts it
                self._admission.count_unread(error.status)
        self.transport.close()

    def _would_mislead(self) -> bool:
        cycle = self.cycle
        if cycle is None:
            return False
        if cycle.scope is not self.scope:  # another request's head is arriving
            return not cycle.response_complete
        return bool(self.pipeline) or cycle.response_started or not cycle.more_body


def _raw_problem(error: ServiceError) -> bytes:
    """A whole HTTP answer that ends the connection."""
    request_id = uuid7()
    response = problem_response(error, request_id)
    headers = [
        *response.raw_headers,
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d \r\n%s\r\n%s" % (error.status, lines, response.body)


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
