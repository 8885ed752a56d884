"""How answers reach the socket."""

import asyncio

from service.guards import CONTINUE, START, guarded


class WholeAnswers:
    """A transport that sends an answer's head together with its body, which uvicorn writes one
    after the other: a system call less, and the client wakes once. Heads get their guards here.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Hold the first bytes of this turn of the loop until the next ones or its end."""
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        elif data.startswith(START) and not data.startswith(CONTINUE):
            self._head = guarded(data)
            self._loop.call_soon(self._flush)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def write_whole(self, data: bytes) -> None:
        """Send an answer that needs no more, guards included."""
        self._flush()
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data, self._head = self._head, b""
        # The peer may have gone since; uvloop raises then.
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)
