"""Load on real servers while something goes wrong, and what must hold of the evidence after."""

import base64
import hashlib
import http.client
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import merkle
from servers import Client, Reply, Server, explaind, wait_until
from sqlalchemy import create_engine, text

Instance = dict[str, Any]

CLIENTS = 4
EVENTS = "SELECT COUNT(*) FROM events"
BEST_EFFORT = """
[models.breast_cancer]
evidence = "best_effort"
"""


@dataclass
class Load:
    """Clients, half of them explaining, that send to their server until told to stop; each reply
    that came back whole is kept.
    """

    urls: Sequence[str]
    rows: Mapping[str, list[Instance]]
    """By path."""

    replies: dict[str, Reply] = field(default_factory=dict)
    sent: dict[str, tuple[str, str, Instance]] = field(default_factory=dict)
    """Path, query and row by request ID, of those that were answered."""

    seconds: dict[str, float] = field(default_factory=dict)
    """How long each answer took."""

    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send while inside."""
        self.stop.clear()
        with ThreadPoolExecutor(CLIENTS) as pool:
            sending = [pool.submit(self._send_until_stopped, n) for n in range(CLIENTS)]
            try:
                yield
            finally:
                self.stop.set()
        for each in sending:
            each.result()

    def until(self, n: int, which: Callable[[Reply], bool] = bool, *, seconds: float = 60) -> None:
        """Wait for n more replies of that kind."""
        wanted = self.count(which) + n
        wait_until(lambda: self.count(which) >= wanted, seconds=seconds)

    def count(self, which: Callable[[Reply], bool]) -> int:
        return sum(map(which, list(self.replies.values())))

    def _send_until_stopped(self, number: int) -> None:
        client = Client(self.urls[number % len(self.urls)])
        paths = list(self.rows)
        query = "?explain=true" if number % 2 else ""
        turn = number
        while not self.stop.is_set():
            path = paths[turn // 2 % len(paths)]
            row = self.rows[path][turn % len(self.rows[path])]
            request_id = f"load-{uuid.uuid4()}"
            began = time.monotonic()
            try:
                headers = {"X-Request-ID": request_id}
                reply = client.predict([row], path=path, query=query, headers=headers)
            except (OSError, http.client.HTTPException):
                client.close()
                self.stop.wait(0.05)  # its server is gone, perhaps for a moment
                continue
            self.seconds[request_id] = time.monotonic() - began
            self.sent[request_id] = (path, query, row)
            self.replies[request_id] = reply
            turn += 1
        client.close()

    def summary(self) -> str:
        """How many answers of which kind."""
        kinds = Counter(
            f"{reply.status} {reply.headers.get('evidence', '')}".strip()
            for reply in self.replies.values()
        )
        return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))

    def acknowledged(self) -> dict[str, Reply]:
        """The answers that say that they are kept somewhere."""
        return {
            request_id: reply
            for request_id, reply in self.replies.items()
            if reply.headers.get("evidence") in ("stored", "spooled")
        }

    def assert_kept(self, client: Client) -> None:
        """Each acknowledged request is read and repeated as it was answered."""
        for request_id, reply in self.acknowledged().items():
            assert reply.status == 200
            record = client.get(f"/explanations/{request_id}")
            assert (request_id, record.status) == (request_id, 200)
            assert record.json()["predictions"] == reply.json()["predictions"]
            assert record.json()["explanation"] == reply.json()["explanation"]
            path, query, row = self.sent[request_id]
            headers = {"X-Request-ID": request_id}
            again = client.predict([row], path=path, query=query, headers=headers)
            assert again.headers["idempotent-replay"] == "true"
            assert again.body == reply.body


def is_stored(reply: Reply) -> bool:
    return reply.headers.get("evidence") == "stored"


def is_spooled(reply: Reply) -> bool:
    return reply.headers.get("evidence") == "spooled"


def is_without(reply: Reply) -> bool:
    return reply.headers.get("evidence") == "none"


def is_refused(reply: Reply) -> bool:
    """503, with a time to come back."""
    return reply.status == 503 and int(reply.headers.get("retry-after", "0")) > 0


def spooled_records(client: Client) -> float:
    """What the gauge says."""
    name = 'explain_audit_backlog_records{backend="spool"} '
    lines = client.get("/metrics").body.decode().splitlines()
    return float(next(line.removeprefix(name) for line in lines if line.startswith(name)))


def drained(client: Client) -> Callable[[], bool]:
    return lambda: spooled_records(client) == 0


@dataclass
class Witness:
    """Keeps checkpoints, as somebody outside would."""

    notes: dict[int, str] = field(default_factory=dict)

    def look(self, client: Client) -> int:
        """Keep the checkpoint there is now; its size, 0 without one."""
        reply = client.get("/log/checkpoint")
        if reply.status != 200:
            return 0
        note = reply.body.decode()
        size = int(note.split("\n")[1])
        assert self.notes.get(size, note).split("\n\n")[0] == note.split("\n\n")[0]
        self.notes[size] = note
        return size

    def wait_for_one(self, client: Client) -> None:
        """Keep one; under load the first is a second away."""
        wait_until(lambda: self.look(client) > 0, seconds=30)

    def assert_log_is_whole(self, url: str, client: Client, request_ids: Sequence[str]) -> None:
        """Every event has exactly one place without gaps, each request one decision, and all kept
        checkpoints are of beginnings of this log.
        """
        wait_until(lambda: self.look(client) == queried(url, EVENTS)[0][0], seconds=30)
        headers = {
            str(event_id): bytes(header)
            for event_id, header in queried(url, "SELECT event_id, header FROM events")
        }
        placed = queried(
            url, "SELECT seq, event_id, leaf FROM log_entries WHERE log = 'evidence' ORDER BY seq"
        )
        assert [seq for seq, _, _ in placed] == list(range(len(headers)))
        listed = [headers.pop(str(event_id)) for _, event_id, _ in placed]
        assert headers == {}
        leaves = [hashlib.sha256(b"\x00" + header).digest() for header in listed]
        assert [bytes(leaf) for _, _, leaf in placed] == leaves
        assert len(self.notes) >= 2
        for size, note in self.notes.items():
            assert base64.b64decode(note.split("\n")[2]) == merkle.mth(listed[:size])
        query = "SELECT request_id, COUNT(*) FROM events WHERE event_type = 'decision' GROUP BY 1"
        found = {str(request_id): n for request_id, n in queried(url, query)}
        assert {request_id: found.get(request_id) for request_id in request_ids} == dict.fromkeys(
            request_ids, 1
        )


def assert_verifies(folder: Path, witness: Witness, *database: str) -> None:
    """The database, and a bundle of all of it, pass against a checkpoint kept before the fault."""
    kept = folder / "kept.checkpoint"
    kept.write_text(witness.notes[min(witness.notes)])
    bundle = folder / "all.bundle.gz"
    source = ("--data-dir", str(folder), *database)
    calls = (
        ("export", "--out", str(bundle), "--witness", str(kept), *source),
        ("verify", str(bundle), "--witness", str(kept)),
        ("verify", "--witness", str(kept), *source),
    )
    for call in calls:
        done = explaind(*call)
        assert done.returncode == 0, done.stdout + done.stderr
    bundle.unlink()


def queried(url: str, query: str) -> list[Any]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(query)).all())
    finally:
        engine.dispose()


def sqlite_of(data_dir: Path) -> str:
    return f"sqlite:///{data_dir}/evidence.db"


def assert_alive(server: Server) -> None:
    """It answers at once, and nothing was written to its log that nobody foresaw."""
    client = Client(server.url)
    assert client.get("/livez").status == 200
    client.close()
    assert "Traceback" not in server.log.read_text()
