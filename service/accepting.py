"""Takes new connections as fast as they come, whatever else the event loop does.

libuv (since 1.45) accepts one connection in each turn of its loop. A loaded service makes some ten
turns a second, so that probes, which connect each time, would wait for minutes behind a burst.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Protocol, cast

from service.logs import log

MOST_A_TURN = 128
"""A connection takes 0.1 ms: no turn of the loop is longer for it than a computed batch is."""

PAUSE_SECONDS = 1.0
"""Without a free descriptor the listener is ready all the time, and nothing can be taken."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Closable(Protocol):
    """What uvicorn's protocols can beside an asyncio.Protocol."""

    def shutdown(self) -> None:
        """Close the connection, at once or after the answer that is under way."""


class Acceptor:
    """One listener of the running loop, until `close`."""

    def __init__(
        self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._is_closed = False
        listener.settimeout(0)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits
        self._start()

    def close(self) -> None:
        """Take no more."""
        self._is_closed = True
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Return once all that were taken have their protocols."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _start(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(MOST_A_TURN):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                log.error("connections_not_taken", reason=error.strerror)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE_SECONDS, self._start)
                return
            connection.settimeout(0)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # it has gone already
            connection.close()
            return
        if self._is_closed:  # too late to be told with the others
            cast("Closable", protocol).shutdown()
