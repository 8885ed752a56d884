"""Probes /livez on schedule from a process of its own, as a kubelet does: a connection each time.

    python load_probe.py URL PERIOD_SECONDS

Writes a line of JSON for each probe, [time, seconds, status], until its standard input closes.
"""

import json
import select
import socket
import sys
import time
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 5.0
REQUEST = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def probe(address: tuple[str, int]) -> int:
    """The status, 0 without an answer."""
    try:
        with socket.create_connection(address, timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(REQUEST)
            return int(connection.recv(4096)[9:12] or 0)
    except OSError:
        return 0


def main(url: str, period_seconds: float) -> None:
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    due = time.monotonic()
    while True:
        due += period_seconds
        stopped, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))
        if stopped:
            return
        status = probe(address)
        print(json.dumps([due, time.monotonic() - due, status]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
