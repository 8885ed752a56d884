"""How answers reach the socket: whole ones in one piece, with the guards in every head."""

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.guards import POLICY, guard_lines, guards_beside

START = "http.response.start"
LENGTH = b"content-length"
DECIDES_FRAMING = frozenset({b"connection", b"transfer-encoding"})
_HARMLESS = bytes({9, *range(32, 127), *range(128, 256)})
"""Bytes that may stand in a line of a head (RFC 9110, section 5.5)."""


class WholeAnswers(RequestResponseCycle):
    """Uvicorn's side of one request. An answer that is there as a whole is written as a whole: a
    system call less than head and body, the client wakes once, and no header is looked at twice.
    Everything else is left to uvicorn, but for the guards in its head.
    """

    _start: Message | None = None

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """As ASGI's; a head that says how long the body is waits for it. One that waits is
        forgotten where the application fails before the body, and uvicorn answers.
        """
        if self.transport.is_closing():  # uvicorn tells only the newest request of a connection
            self.disconnected = True
        start, self._start = self._start, None
        if message["type"] == START:
            if any(name == LENGTH for name, _ in message["headers"]):
                self._start = message
            else:
                await self._pass_on(_with_guards(message))
            return
        whole = None if start is None else self._whole(start, message)
        if whole is not None:
            self._write(whole)
            return
        if start is not None:
            await self._pass_on(_with_guards(start))
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        await super().send(message)  # type: ignore[arg-type]

    def _whole(self, start: Message, message: Message) -> bytes | None:
        """The bytes of the answer; None where there is more to it, or uvicorn is to object."""
        body = message.get("body", b"")
        if (
            message.get("more_body", False)
            or not self.keep_alive
            or self.disconnected
            or self.response_started
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
        ):
            return None
        headers = [*self.default_headers, *start["headers"]]
        has_policy = False
        for name, value in headers:
            if name in DECIDES_FRAMING or (name == LENGTH and int(value) != len(body)):
                return None
            has_policy = has_policy or name == POLICY
        head = b"".join([b"%s: %s\r\n" % header for header in headers])
        if head.translate(None, _HARMLESS) != b"\r\n" * len(headers):
            return None
        guards = guard_lines(has_policy=has_policy)
        return b"".join((STATUS_LINE[start["status"]], head, guards, b"\r\n", body))

    def _write(self, whole: bytes) -> None:
        """What uvicorn does at the end of an answer."""
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(whole)
        self.message_event.set()
        self.on_response()


def _with_guards(start: Message) -> Message:
    headers = list(start["headers"])
    return {**start, "headers": [*headers, *guards_beside(headers)]}
