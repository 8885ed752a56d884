"""A balancer as clients meet one: it asks replicas whether they are ready and gives connections to
those that are; and clients that keep their connection until they are told to close it.
"""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from servers import Client, Reply

PROBE_SECONDS = 0.2
PAUSE_SECONDS = 0.3


@dataclass(eq=False)
class Balancer:
    """Replicas by URL, and which of them took connections last time they were asked."""

    urls: set[str] = field(default_factory=set)
    ready: tuple[str, ...] = ()
    turned_away: set[str] = field(default_factory=set)
    """Replicas that were there and said that they are not ready, having been it before."""

    _turn: Iterator[int] = field(default_factory=count)
    _ends: threading.Event = field(default_factory=threading.Event)

    def pick(self) -> str:
        """Where the next connection goes."""
        ready = self.ready
        return ready[next(self._turn) % len(ready)]

    @contextmanager
    def running(self) -> Iterator["Balancer"]:
        """Ask the replicas until the block ends."""
        thread = threading.Thread(target=self._keep_asking)
        thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            thread.join()

    def _keep_asking(self) -> None:
        while not self._ends.wait(PROBE_SECONDS):
            found = {url: _readiness(url) for url in sorted(self.urls)}
            self.turned_away |= {url for url in self.ready if found.get(url) == 503}
            self.ready = tuple(url for url, status in found.items() if status == 200)


def _readiness(url: str) -> int | None:
    client = Client(url)
    try:
        return client.get("/readyz").status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        client.close()


@dataclass(eq=False)
class Asking:
    """Clients that never try anything twice: half ask without pause, half keep idle connections,
    which fail if they are closed before the client was told.
    """

    balancer: Balancer
    instances: list[dict[str, Any]]
    replies: list[Reply] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered_by: Counter[str] = field(default_factory=Counter)
    sent_away_by: Counter[str] = field(default_factory=Counter)
    _ends: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int) -> Iterator["Asking"]:
        """Ask until the block ends."""
        threads = [
            threading.Thread(target=self._ask, args=(n % 2 * PAUSE_SECONDS,))
            for n in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()

    def _ask(self, pause_seconds: float) -> None:
        client = Client(self.balancer.pick())
        while not self._ends.wait(pause_seconds):
            try:
                reply = client.predict(self.instances)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{client.url}: {error!r}")
                client.close()
                client = Client(self.balancer.pick())
                continue
            self.replies.append(reply)
            self.answered_by[client.url] += 1
            if reply.headers.get("connection") == "close":
                self.sent_away_by[client.url] += 1
                client.close()
                client = Client(self.balancer.pick())
        client.close()
