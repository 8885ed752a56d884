"""Probes /livez on schedule from a process of its own, as a kubelet does: a connection each time.

    python load_probe.py URL PERIOD_SECONDS

A probe does not wait for the one before. Writes a line of JSON for each, [when it was due, seconds
from then to its answer, status], until its standard input closes.
"""

import asyncio
import json
import sys
from time import monotonic
from urllib.parse import urlsplit

import uvloop

TIMEOUT_SECONDS = 5.0
REQUEST = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def probe(host: str, port: int) -> int:
    """The status, 0 without an answer."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST)
            head = await reader.read(4096)
            writer.close()
    except OSError:  # a timeout is one too
        return 0
    return int(head[9:12] or 0)


async def timed(host: str, port: int, due: float) -> None:
    status = await probe(host, port)
    print(json.dumps([due, monotonic() - due, status]), flush=True)


async def main(url: str, period_seconds: float) -> None:
    parts = urlsplit(url)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    due = monotonic()
    running = set()
    while not ended.done():
        task = asyncio.create_task(timed(parts.hostname or "", parts.port or 0, due))
        running.add(task)
        task.add_done_callback(running.discard)
        due += period_seconds
        await asyncio.sleep(max(0.0, due - monotonic()))
    await asyncio.gather(*running)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))
