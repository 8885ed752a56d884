"""The process: one socket, one event loop, signals that end in an orderly stop."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from service.app import create_app
from service.compiling import choose_kernel_cache, compile_kernels
from service.errors import CommandError, UnavailableError, UsageError
from service.logs import configure_logs
from service.settings import Settings

GRACE_SECONDS = 20
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that answers; `stop` ends it as a signal would."""

    url: str
    stop: Callable[[], None]


class _Server(uvicorn.Server):
    on_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_ready()


def run_server(settings: Settings, *, on_ready: Callable[[Ready], None]) -> None:
    """Serve until a signal. CommandError says in one line why it cannot."""
    if not settings.binds_loopback and settings.api_keys_file is None:
        raise UsageError(
            f"listening on {settings.host} needs API keys: set EXPLAIND_API_KEYS_FILE "
            "(`explaind keys create` makes one)"
        )
    configure_logs()
    choose_kernel_cache(settings.data_dir)
    compile_kernels()
    _ignore_signals_after_shutdown()
    listener = _bind(settings)
    app = create_app(settings)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )

    def stop() -> None:
        server.should_exit = True

    host, port = settings.host, listener.getsockname()[1]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server.on_ready = lambda: on_ready(Ready(url, stop))
    with listener:
        server.run(sockets=[listener])
    if not server.started:
        error = getattr(app.state, "startup_error", None)
        raise error if isinstance(error, CommandError) else UnavailableError("start-up failed")


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
