"""Work for drills: tasks and their ends in one SQLite file, which outlives every process."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from service.compute import Finished
from service.evidence import StoreUnavailableError
from service.queue import Claim
from service.settings import Settings
from service.worker.work import Absent, Ending

T = TypeVar("T")
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, task TEXT);
CREATE TABLE IF NOT EXISTS ends (id TEXT PRIMARY KEY, outcome TEXT, detail TEXT);
CREATE TABLE IF NOT EXISTS attempts (id TEXT);
"""


@dataclass(frozen=True)
class JobStore:
    """What the evidence store is to the service. Away while the file is renamed."""

    file: Path

    def create(self) -> None:
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(SCHEMA)

    def add(self, **tasks: Any) -> None:
        """Tasks by request ID: what `child_jobs.compute` is to do."""
        rows = [(name.replace("_", "-"), json.dumps(task)) for name, task in tasks.items()]
        self._run(lambda c: c.executemany("INSERT INTO tasks VALUES (?, ?)", rows))

    def ends(self) -> dict[str, tuple[str, str]]:
        """Outcome and reason (or result) by request ID."""
        found = self._run(lambda c: c.execute("SELECT id, outcome, detail FROM ends").fetchall())
        return {name: (outcome, detail) for name, outcome, detail in found}

    def attempts(self) -> int:
        """How often a task was handed to a worker."""
        count = self._run(lambda c: c.execute("SELECT count(*) FROM attempts").fetchone())
        return int(count[0])

    def fetch(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Tasks still to be done by request ID; None for those that have ended."""
        marks = ",".join("?" * len(names))

        def run(connection: sqlite3.Connection) -> dict[str, bytes | None]:
            query = f"SELECT id, task FROM tasks WHERE id IN ({marks})"  # noqa: S608
            tasks = dict(connection.execute(query, names).fetchall())
            query = f"SELECT id FROM ends WHERE id IN ({marks})"  # noqa: S608
            ended = {name for (name,) in connection.execute(query, names)}
            rows = [(name,) for name in tasks if name not in ended]
            connection.executemany("INSERT INTO attempts VALUES (?)", rows)
            return {n: None if n in ended else task.encode() for n, task in tasks.items()}

        return self._run(run)

    def end(self, name: str, ending: Ending) -> None:
        """Keep the first end of a task."""
        if isinstance(ending, Finished):
            row = (name, "finished", ending.body.decode())
        else:
            row = (name, ending.outcome, ending.reason)
        self._run(lambda c: c.execute("INSERT OR IGNORE INTO ends VALUES (?, ?, ?)", row))

    def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            opened = sqlite3.connect(f"file:{self.file}?mode=rw", uri=True, timeout=10)
            with closing(opened) as connection, connection:
                return call(connection)
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(str(error)) from error


@dataclass(frozen=True)
class StoredAssignment:
    source: JobStore
    name: str
    task: bytes

    def refused(self, kind: str) -> None: ...

    async def store(self, ending: Ending) -> None:
        await asyncio.to_thread(self.source.end, self.name, ending)


@dataclass(frozen=True)
class StoredWork:
    source: JobStore
    function: str = "child_jobs:compute"
    environment: Mapping[str, str] = field(default_factory=dict)

    async def fetch(self, claims: Sequence[Claim]) -> list[StoredAssignment | Absent]:
        jobs = [claim.job for claim in claims]
        found = await asyncio.to_thread(self.source.fetch, [job.request_id for job in jobs])
        return [self._assignment(job.request_id, found) for job in jobs]

    def _assignment(self, name: str, found: dict[str, bytes | None]) -> StoredAssignment | Absent:
        if name not in found:
            return Absent.UNKNOWN
        task = found[name]
        if task is None:
            return Absent.FINAL
        return StoredAssignment(self.source, name, task)

    async def close(self) -> None:
        pass


async def open_stored_work(settings: Settings, _: CollectorRegistry, __: str) -> StoredWork:
    return StoredWork(JobStore(settings.data_dir / "jobs.db"))
