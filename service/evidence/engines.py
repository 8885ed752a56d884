"""Connections to the evidence database, and its tables made or recognised."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import (
    URL,
    Connection,
    func,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from service.evidence.arrivals import lay_arrivals
from service.evidence.errors import EvidenceError, SchemaVersionError, StoreUnavailableError
from service.evidence.rails import lay_rails
from service.evidence.tables import SCHEMA_VERSION, meta, metadata

_SCHEMA_LOCK = 0x65787064


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


def prepare(connection: Connection) -> None:
    """Create the tables unless they are there; SchemaVersionError if they are not ours.

    Writes nothing where everything is there, so that opening waits for no other writer.
    """
    with _one_at_a_time(connection):
        connection.execute(CreateTable(meta, if_not_exists=True))
        if _schema_version(connection) is None:
            _insert_first_values(connection)
        found = _schema_version(connection)
        if found == str(SCHEMA_VERSION):
            _complete(connection)
        elif found == "1":
            with alone(connection):
                if _schema_version(connection) == found:
                    _upgrade(connection)
        else:
            raise SchemaVersionError(
                f"the evidence database has schema version {found}, this release knows only "
                f"{SCHEMA_VERSION}: run the release that made it, or a later one"
            )


def check_version(connection: Connection) -> None:
    """Raises SchemaVersionError unless the tables are those of this release."""
    found = _schema_version(connection)
    if found != str(SCHEMA_VERSION):
        raise SchemaVersionError(
            f"the evidence database has schema version {found}, not {SCHEMA_VERSION}: start this "
            "release's service on it once, or run the release that made it"
        )


def bind_keys(connection: Connection, identity: str) -> None:
    """Note which key store the payloads are encrypted with.

    Raises EvidenceError for another one: all payloads would look as if they had been erased.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    found = connection.scalar(select(meta.c.value).where(meta.c.name == "key_store"))
    if found is None:
        row = {"name": "key_store", "value": identity}
        connection.execute(insert(meta).values(row).on_conflict_do_nothing())
        found = connection.scalar(select(meta.c.value).where(meta.c.name == "key_store"))
    if found != identity:
        raise EvidenceError(
            "the key store is not the one this database's payloads are encrypted with: put that "
            "one back, or correct EXPLAIND_KEYS_DATABASE_URL"
        )


def _complete(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
    lay_arrivals(connection)
    lay_rails(connection)


@contextlib.contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """All or nothing; on SQLite nobody else writes meanwhile."""
    immediately = " IMMEDIATE" if connection.dialect.name == "sqlite" else ""
    connection.exec_driver_sql(f"BEGIN{immediately}")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _upgrade(connection: Connection) -> None:
    """From version 1, which knew no logs; its unused columns of them stay where they are."""
    expires = (
        "ROUND((julianday(json_extract(CAST(header AS TEXT), '$.expires_at')) - 2440587.5)"
        " * 86400000) * 1000"
        if connection.dialect.name == "sqlite"
        else "EXTRACT(EPOCH FROM CAST(CAST(convert_from(header, 'UTF8') AS JSON)->>'expires_at'"
        " AS TIMESTAMPTZ)) * 1000000"
    )
    if "expires_us" not in {column["name"] for column in inspect(connection).get_columns("events")}:
        connection.execute(text("ALTER TABLE events ADD COLUMN expires_us BIGINT"))
    connection.execute(text(f"UPDATE events SET expires_us = CAST({expires} AS BIGINT)"))  # noqa: S608  # two fixed texts
    _complete(connection)
    version = {"value": str(SCHEMA_VERSION)}
    connection.execute(update(meta).where(meta.c.name == "schema_version").values(version))


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
