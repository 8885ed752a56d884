"""Evidence logs with a spool beside them, and a database another connection has locked."""

import resource
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.evidence import EvidenceLog, Spooling, SpoolLimits
from service.keystore import KeyStore


@dataclass
class SpoolTally:
    """Counts what the spool reports."""

    counts: Counter[str] = field(default_factory=Counter)

    def on_commit(self, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.counts["spooled"] += rows

    def on_failure(self, rows: int) -> None:
        self.counts["failed"] += rows

    def on_not_kept(self) -> None:
        self.counts["not kept"] += 1

    def on_damaged(self) -> None:
        self.counts["damaged"] += 1

    def on_drained(self, stored: int, twins: int, refused: int, erased: int) -> None:
        told = {"drained": stored, "twins": twins, "refused": refused, "erased": erased}
        self.counts.update(told)


@asynccontextmanager
async def spooling_log(
    folder: Path,
    *,
    busy_timeout_seconds: float = 0.05,
    max_bytes: int = 1 << 24,
    keys: KeyStore | None = None,
) -> AsyncIterator[tuple[EvidenceLog, SpoolTally]]:
    """An open log of the database in this folder; its spool is beside it."""
    tally = SpoolTally()
    log = await EvidenceLog.open(
        f"sqlite:///{folder}/evidence.db",
        keys=keys,
        busy_timeout_seconds=busy_timeout_seconds,
    )
    try:
        limits = SpoolLimits(folder / "spool", max_bytes)
        await log.start_spooling(Spooling(limits, observer=tally))
        yield log, tally
    finally:
        await log.close()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond that, as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Lock:
    """Another connection that writes to a SQLite database, until it is released."""

    def __init__(self, folder: Path, name: str = "evidence.db") -> None:
        self._connection = sqlite3.connect(
            folder / name, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.rollback()
        self._connection.close()
