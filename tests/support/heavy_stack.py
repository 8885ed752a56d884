"""The whole service with its processes: an API, workers and a queue's server that a test may end,
requests that are remembered, and the evidence they left.
"""

import http.client
import os
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from servers import COMMAND, Client, Reply, Server, start_server, wait_until
from tables import instances_of
from valkey_server import Valkey
from workers import WorkerProcess

from service.queue.server import CHANNEL, GROUP, STREAMS

WANTED = "explain_explanations_wanted_total"
ENDED = "explain_explanations_total"


@dataclass(frozen=True)
class Subject:
    """A registered model, rows for it, and what the library itself predicts for each alone."""

    registry: Path
    name: str
    rows: list[dict[str, Any]]
    probabilities: list[list[float]]

    @classmethod
    def of(cls, registry: Path, name: str, model: Any, rows: pd.DataFrame) -> "Subject":
        alone = [model.predict_proba(rows.iloc[[n]])[0].tolist() for n in range(len(rows))]
        return cls(registry, name, instances_of(rows), alone)


@dataclass(frozen=True)
class Sent:
    """One answered request. first, many: the rows of the subject it was about."""

    first: int
    many: int
    reply: Reply
    seconds: float


@dataclass(eq=False)
class Load:
    """Clients that go on asking for explained predictions, and what they were answered."""

    subject: Subject
    url: Callable[[], str]
    rows_each: int
    pause_seconds: float
    sent: dict[str, Sent] = field(default_factory=dict)
    unanswered: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        """One client, until the end; it connects again when the API goes away."""
        client = Client(self.url())
        turn = number * 7
        while not self._ends.wait(self.pause_seconds):
            turn += 1
            try:
                self.send(client, turn)
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                client.close()
                client = Client(self.url())
        client.close()

    def send(self, client: Client, turn: int) -> str:
        """One request; its ID once it was answered."""
        first = turn % (len(self.subject.rows) - self.rows_each)
        rows = self.subject.rows[first : first + self.rows_each]
        request_id = f"drill-{uuid.uuid4()}"
        path = f"/models/{self.subject.name}/predict"
        started = time.perf_counter()
        reply = client.predict(rows, path=path, headers={"X-Request-ID": request_id})
        seconds = time.perf_counter() - started
        self.sent[request_id] = Sent(first, self.rows_each, reply, seconds)
        return request_id

    def end(self) -> None:
        self._ends.set()

    def since(self, count: int) -> list[float]:
        """Seconds that each request took, but for the first so many."""
        return [one.seconds for one in list(self.sent.values())[count:]]


@dataclass(eq=False)
class Stack:
    """`explaind serve` and `explaind worker` processes in one data directory.

    valkey: the server of their queue; None lets `serve` bring its own.
    """

    data_dir: Path
    subject: Subject
    valkey: Valkey | None
    settings: Mapping[str, str]
    servers: list[Server] = field(default_factory=list)
    workers: dict[int, WorkerProcess] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        given = {
            "INLINE_BUDGET_SECONDS": "1e-9",
            "DATA_DIR": str(self.data_dir),
            "REGISTRY": str(self.subject.registry),
            **(
                {"EMBEDDED_WORKERS": "1"} if self.valkey is None else {"REDIS_URL": self.valkey.url}
            ),
            **self.settings,
        }
        return {f"EXPLAIND_{name}": value for name, value in given.items()}

    @property
    def server(self) -> Server:
        """The API that was started last."""
        return self.servers[-1]

    def start_server(self) -> Server:
        self.servers.append(start_server(self.data_dir, env=self.environment))
        return self.server

    def start_worker(self, *options: str) -> WorkerProcess:
        """A worker with a page of metrics at a port of its own."""
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        log = self.data_dir / f"worker-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "worker", "--metrics-port", str(port), *options],
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
            )
        self.workers[port] = WorkerProcess(process, log)
        return self.workers[port]

    @contextmanager
    def load(
        self, *, clients: int = 2, rows_each: int = 1, pause_seconds: float = 0.05
    ) -> Iterator[Load]:
        """Clients that ask until the block ends."""
        load = Load(self.subject, lambda: self.server.url, rows_each, pause_seconds)
        threads = [threading.Thread(target=load.run, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load.end()
            for thread in threads:
                thread.join()

    def send(self, *, rows_each: int = 1, turn: int = 0) -> tuple[str, Load]:
        """One request alone."""
        load = Load(self.subject, lambda: self.server.url, rows_each, 0)
        with closing(Client(self.server.url)) as client:
            return load.send(client, turn), load

    def close(self) -> None:
        """End every process that is still there."""
        for worker in self.workers.values():
            worker.kill()
        for server in self.servers:
            server.close()

    def held(self) -> dict[int, list[str]]:
        """The queue's entries that workers hold, by the worker's process ID."""
        assert self.valkey is not None
        held: dict[int, list[str]] = defaultdict(list)
        with self.valkey.client() as client:
            for stream in STREAMS.values():
                if not has_group(client, stream):
                    continue
                for entry in client.xpending_range(stream, GROUP, "-", "+", 1000):
                    worker = process_of(entry["consumer"])
                    if worker is not None:
                        held[worker].append(entry["message_id"].decode())
        return held

    def ready(self) -> set[int]:
        """Process IDs of the workers that run and have asked for work."""
        assert self.valkey is not None
        running = {w.process.pid for w in self.workers.values() if w.process.poll() is None}
        with self.valkey.client() as client:
            if not has_group(client, STREAMS["high"]):
                return set()
            consumers = client.xinfo_consumers(STREAMS["high"], GROUP)
        return running & {process_of(consumer["name"]) for consumer in consumers}

    def busy_worker(self, *, seconds: float = 20.0) -> WorkerProcess:
        """A worker that holds a job and has a child for it."""
        found: list[WorkerProcess] = []

        def look() -> bool:
            held = self.held()
            found[:] = [
                worker
                for worker in self.workers.values()
                if worker.process.poll() is None and held.get(worker.process.pid)
                if worker.children
            ]
            return bool(found)

        wait_until(look, seconds=seconds)
        return found[0]

    def wait_for_progress(self, *, seconds: float = 30.0) -> None:
        """Return once a worker says how far a job is."""
        assert self.valkey is not None
        with self.valkey.client() as client, client.pubsub() as subscription:
            subscription.subscribe(CHANNEL)
            heard: list[bytes] = []

            def is_heard() -> bool:
                message = subscription.get_message(ignore_subscribe_messages=True)
                if message is not None:
                    heard.append(message["data"])
                return any(data.startswith(b'["progress"') for data in heard)

            wait_until(is_heard, seconds=seconds)

    def events(self) -> Counter[tuple[str, str, str | None]]:
        """How many events of each kind the evidence has: by request, type and status."""
        query = "SELECT request_id, event_type, status FROM events"
        with closing(sqlite3.connect(self.data_dir / "evidence.db", timeout=10)) as connection:
            return Counter(connection.execute(query).fetchall())

    def pending(self) -> int:
        """Explanations that have not ended."""
        query = """
            SELECT count(*) FROM events d WHERE d.event_type = 'decision' AND d.status = 'pending'
            AND NOT EXISTS (SELECT 1 FROM events e WHERE e.event_type = 'explanation'
                            AND e.tenant = d.tenant AND e.request_id = d.request_id)"""
        with closing(sqlite3.connect(self.data_dir / "evidence.db", timeout=10)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def explanation(self, request_id: str) -> dict[str, Any]:
        """As it is by now."""
        with closing(Client(self.server.url)) as client:
            found: dict[str, Any] = client.get(f"/explanations/{request_id}").json()["explanation"]
        return found

    def counted(self) -> tuple[float, Counter[str]]:
        """Explanations wanted, and how they ended, on the pages of all processes that run."""
        urls = [self.server.url]
        urls += [
            f"http://127.0.0.1:{port}"
            for port, worker in self.workers.items()
            if worker.process.poll() is None
        ]
        wanted, ended = 0.0, Counter[str]()
        for url in urls:
            with closing(Client(url)) as client:
                page = client.get("/metrics").body.decode()
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    if sample.name == WANTED:
                        wanted += sample.value
                    elif sample.name == ENDED and sample.value:
                        ended[sample.labels["outcome"]] += int(sample.value)
        return wanted, ended


def has_group(client: Redis, stream: str) -> bool:
    """A worker has been at that stream since the server was last empty."""
    if not client.exists(stream):
        return False
    return any(group["name"] == GROUP.encode() for group in client.xinfo_groups(stream))


def process_of(consumer: bytes) -> int | None:
    """The worker of that name; None for the one that holds what was handed back."""
    parts = consumer.decode().split("-")
    return int(parts[-2]) if len(parts) > 2 else None


def assert_each_ended_once(stack: Stack, *loads: Load, seconds: float = 60.0) -> Counter[str]:
    """Every wanted explanation comes to one end, and every answer was the library's own.

    Returns how many ended how.
    """
    wait_until(lambda: stack.pending() == 0, seconds=seconds)
    events = stack.events()
    decided = {name for name, kind, status in events if kind == "decision" and status == "pending"}
    of: dict[str, Counter[str]] = {"explanation": Counter(), "outcome": Counter()}
    for (name, kind, _), times in events.items():
        if kind in of:
            of[kind][name] += times
    for ends in of.values():
        assert ends == Counter(decided)
    for load in loads:
        assert load.sent.keys() <= decided
        assert_answers_are_right(stack, load)
    return Counter(status for _, kind, status in events if kind == "outcome")


def assert_answers_are_right(stack: Stack, load: Load) -> None:
    """Predictions are the library's, explanations those of the same rows at any other time, and
    what has none says why.
    """
    values: dict[int, list[Any]] = {}
    with closing(Client(stack.server.url)) as client:
        for request_id, sent in load.sent.items():
            assert sent.reply.status == 200, sent.reply.body
            rows = range(sent.first, sent.first + sent.many)
            answered = [[*p["probabilities"].values()] for p in sent.reply.json()["predictions"]]
            assert answered == [stack.subject.probabilities[row] for row in rows]
            record = client.get(f"/explanations/{request_id}").json()
            assert record["predictions"] == sent.reply.json()["predictions"]
            explanation = record["explanation"]
            if explanation["status"] == "complete":
                for row, found in zip(rows, explanation["values"], strict=True):
                    assert values.setdefault(row, found) == found
            else:
                assert explanation["status"] == "failed"
                assert explanation["reason"]


def assert_counted_once(stack: Stack) -> None:
    """The coverage of all processes adds up; for drills that end none that counts."""

    def adds_up() -> bool:
        wanted, ended = stack.counted()
        return wanted == ended.total()

    wait_until(adds_up)
    wanted, _ = stack.counted()
    decided = [name for name, kind, _ in stack.events() if kind == "decision"]
    assert wanted == len(decided)
