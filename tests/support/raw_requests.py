"""Requests as bytes, right and wrong ones, and what comes back for them."""

import json
import re
import socket
from typing import Any

from problems import MARKER

from service.protocol import GuardedProtocol

Instance = dict[str, Any]
HOST = b"Host: localhost\r\n"


class Impatient(GuardedProtocol):
    request_seconds = 0.2


def request_head(path: str, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]
    return "\r\n".join(head).encode()


def whole_request(rows: list[Instance], *lines: str) -> bytes:
    body = json.dumps({"instances": rows[:1]}).encode()
    own = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return request_head("/predict", *own, *lines) + body


MALFORMED_REQUESTS = {
    "no HTTP": MARKER.encode() + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64,
    "bad version": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "space in a header name": b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "two lengths": b"POST /predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "length and chunks": b"POST /predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "head cut short": b"GET / HTTP/1.1\r\nHost: loc",
    "body cut short": b"POST /predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
}

UNFINISHED_REQUESTS = {
    "half a head": b"GET /models HTTP/1.1\r\nHost: loc",
    "half a body": request_head("/predict", "Content-Type: application/json", "Content-Length: 100")
    + b"{",
    "half a body that nobody reads": request_head("/nowhere", "Content-Length: 100") + b"x",
    "half a chunk": request_head(
        "/predict", "Content-Type: application/json", "Transfer-Encoding: chunked"
    )
    + b"5\r\n{",
}


def statuses_in(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


def read_status(connection: socket.socket) -> int:
    """Status of the next of several answers, read without taking bytes of the one after."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    lines = head.decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    while length:
        length -= len(connection.recv(length))
    return int(lines[0].split()[1])
