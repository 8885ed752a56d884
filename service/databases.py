"""Connections to databases of ours, and their files: SQLite or PostgreSQL."""

import contextlib
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Engine, create_engine, event

SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "recursive_triggers=ON",  # else INSERT OR REPLACE deletes past the triggers
    "secure_delete=ON",  # what is erased is overwritten
    "wal_autocheckpoint=500",  # pages of 4 KiB: short checkpoints keep the p99 of appends low
    "journal_size_limit=67108864",
)


class _Cursor(Protocol):
    def execute(self, statement: str) -> object: ...


class _Connection(Protocol):
    def cursor(self) -> _Cursor: ...


def connect(url: URL, *, connections: int, busy_timeout_seconds: float) -> Engine:
    """An engine where every statement is its own transaction.

    One statement per commit is one round trip, and for SQLite one release of the GIL that covers
    the whole write including fsync.
    """
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
        pool_pre_ping=url.get_backend_name() == "postgresql",
        hide_parameters=True,
    )
    if url.get_backend_name() == "sqlite":
        pragmas = (f"busy_timeout={round(busy_timeout_seconds * 1000)}", *SQLITE_PRAGMAS)

        @event.listens_for(engine, "connect")
        def set_pragmas(connection: _Connection, _record: object) -> None:
            cursor = connection.cursor()
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")

    return engine


def create_file(path: Path) -> None:
    """Make the database file readable by its owner only; SQLite gives -wal and -shm its mode.

    An existing file is not even opened: closing it again would drop the locks that other
    connections of this process hold on it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
