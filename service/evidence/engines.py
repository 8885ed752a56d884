"""Connections to the evidence database, and its tables made or recognised."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from service.evidence.errors import EvidenceError, SchemaVersionError, StoreUnavailableError
from service.evidence.tables import SCHEMA_VERSION, events, meta

_SCHEMA_LOCK = 0x65787064
_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "wal_autocheckpoint=500",  # pages of 4 KiB: short checkpoints keep the p99 of appends low
    "journal_size_limit=67108864",
)


class _Cursor(Protocol):
    def execute(self, statement: str) -> object: ...


class _Connection(Protocol):
    def cursor(self) -> _Cursor: ...


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """SQL and file errors inside become StoreUnavailableError, without statement and values."""
    try:
        yield
    except DBAPIError as error:
        raise StoreUnavailableError(str(error.orig)) from error.orig
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailableError(str(error)) from error


def database_url(url: str) -> URL:
    """The parsed address. Raises EvidenceError for anything but SQLite in a file or PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise EvidenceError("the database URL cannot be parsed") from None
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise EvidenceError(f"evidence is kept in SQLite or PostgreSQL, not in {backend}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise EvidenceError("evidence needs a SQLite file, not memory")
    return parsed


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
        pragmas = (f"busy_timeout={round(busy_timeout_seconds * 1000)}", *_SQLITE_PRAGMAS)

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


def prepare(connection: Connection) -> None:
    """Create the tables unless they are there; SchemaVersionError if they are not ours.

    Writes nothing where everything is there, so that opening waits for no other writer.
    """
    with _one_at_a_time(connection):
        connection.execute(CreateTable(meta, if_not_exists=True))
        if _schema_version(connection) is None:
            _insert_first_values(connection)
        found = _schema_version(connection)
        if found != str(SCHEMA_VERSION):
            raise SchemaVersionError(
                f"the evidence database has schema version {found}, this release knows only "
                f"{SCHEMA_VERSION}: run the release that made it, or a later one"
            )
        connection.execute(CreateTable(events, if_not_exists=True))
        for index in events.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))


def _schema_version(connection: Connection) -> str | None:
    wanted = select(meta.c.value).where(meta.c.name == "schema_version")
    return connection.execute(wanted).scalar_one_or_none()


def _insert_first_values(connection: Connection) -> None:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [
        {"name": "schema_version", "value": str(SCHEMA_VERSION)},
        {"name": "probed_at", "value": "0"},
    ]
    connection.execute(insert(meta).values(rows).on_conflict_do_nothing())


@contextlib.contextmanager
def _one_at_a_time(connection: Connection) -> Iterator[None]:
    """PostgreSQL's CREATE ... IF NOT EXISTS fails when two replicas start at once; SQLite's waits
    for the other.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.execute(select(func.pg_advisory_lock(_SCHEMA_LOCK)))
    try:
        yield
    finally:
        connection.execute(select(func.pg_advisory_unlock(_SCHEMA_LOCK)))
