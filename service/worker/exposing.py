"""Where a worker's metrics can be had."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from service.errors import UnavailableError
from service.remote_metrics import serve_snapshots


@asynccontextmanager
async def exposed(
    registry: CollectorRegistry,
    incarnation: str,
    *,
    host: str,
    port: int | None,
    socket: Path | None,
) -> AsyncIterator[None]:
    """At http://host:port/metrics for Prometheus, at a private socket for the API, or at neither.

    Raises UnavailableError for a port that is taken.
    """
    snapshots = None if socket is None else await serve_snapshots(registry, incarnation, socket)
    try:
        if port is None:
            yield
            return
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            place = f"{host}:{port}"
            raise UnavailableError(f"cannot listen on {place}: {error.strerror}") from error
        try:
            yield
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            thread.join()
    finally:
        if snapshots is not None:
            snapshots.close()
