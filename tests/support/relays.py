"""A server between a client and the service that loses what it is told to lose."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["hang up", "lose the answer"] | bytes
"""Of one request: not passed on; passed on and not answered; answered with these bytes instead."""


@dataclass
class Relay:
    """Passes requests on, one a connection; `faults` are used up, the first one first."""

    upstream: str
    faults: deque[Fault] = field(default_factory=deque)
    seen: list[str] = field(default_factory=list)
    """The request IDs that came."""

    server: ThreadingHTTPServer | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, again at the same port."""
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                relay.serve(self)

            do_POST = do_GET  # noqa: N815 - the name that the base class asks for

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def close(self) -> None:
        """Connections are refused from now on."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        self.seen.append(handler.headers.get("X-Request-ID", ""))
        fault = self.faults.popleft() if self.faults else None
        if fault == "hang up":
            return
        if isinstance(fault, bytes):
            handler.wfile.write(fault)
            return
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        connection = HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        own = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        connection.request(handler.command, handler.path, body, own)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if fault == "lose the answer":
            return
        handler.send_response(response.status)
        for name, value in response.getheaders():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def relay_to(url: str, *faults: Fault) -> Iterator[Relay]:
    """A relay that is gone afterwards."""
    relay = Relay(url, deque(faults))
    relay.open()
    try:
        yield relay
    finally:
        relay.close()
