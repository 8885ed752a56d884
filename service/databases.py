"""Connections to databases of ours, and their files: SQLite or PostgreSQL."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event

from service.durability import make_directory, sync

_CUT_PATIENCE_MS = 20
_DURABLE = "synchronous=FULL"
_FOLDING = "wal_autocheckpoint=250"
_PAGES = "PRAGMA page_size=8192"
"""Of a new file. Records have 2 to 8 KB: of what pages of 4 KiB wrote, a fifth was padding."""

_WAL = "PRAGMA journal_mode=WAL"
_WAL_PAUSE_SECONDS = 0.01
_PRIMARY = 0xFF
"""Of an error code of SQLite, what all its variants have in common."""

_SQLITE_PRAGMAS = (
    _DURABLE,
    "foreign_keys=ON",
    "recursive_triggers=ON",  # else INSERT OR REPLACE deletes past the triggers
    "secure_delete=ON",  # what is erased is overwritten
    _FOLDING,  # pages, 2 MB of a new file: short checkpoints keep the p99 of appends low
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

        @event.listens_for(engine, "connect")
        def set_pragmas(connection: _Connection, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={round(busy_timeout_seconds * 1000)}")
            cursor.execute(_PAGES)
            _follow_write_ahead_log(cursor, busy_timeout_seconds)
            for pragma in _SQLITE_PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")

    return engine


def _follow_write_ahead_log(cursor: _Cursor, patience_seconds: float) -> None:
    """Have the file's changes in a write-ahead log. SQLite's own patience does not count here: of
    processes that open a new file at once it would refuse all but one.
    """
    until = time.monotonic() + patience_seconds
    while True:
        try:
            cursor.execute(_WAL)
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= until:
                raise
            time.sleep(_WAL_PAUSE_SECONDS)
        else:
            return


def create_file(path: Path) -> None:
    """Make the database file readable by its owner only; SQLite gives -wal and -shm its mode.

    An existing file is not even opened: closing it again would drop the locks that other
    connections of this process hold on it.
    """
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        sync(path.parent)


@contextlib.contextmanager
def quick(connection: Connection) -> Iterator[None]:
    """SQLite: commits neither wait for the disk nor fold the write-ahead log back in."""
    for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0"):
        connection.exec_driver_sql(f"PRAGMA {pragma}")
    try:
        yield
    finally:
        for pragma in (_DURABLE, _FOLDING):
            connection.exec_driver_sql(f"PRAGMA {pragma}")


def cut_sqlite_log(connection: Connection) -> bool:
    """Fold the write-ahead log, whose old pages hold what was deleted, into the file and cut it.

    False, soon, where readers keep it from that: to wait for them is to hold the write lock.
    """
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_CUT_PATIENCE_MS}")
    try:
        return not connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={patience}")


def flush_sqlite(path: Path) -> None:
    """Return once all transactions that ended before are durable. Raises OSError.

    A write-ahead log that is gone was folded into the database, durably. SQLite holds no lock on
    its file that closing it would drop.
    """
    with contextlib.suppress(FileNotFoundError):
        sync(path.with_name(f"{path.name}-wal"))
