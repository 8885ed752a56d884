"""The keys of records: one row each, wrapped; deleting a row destroys what the key encrypts."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    Text,
    cast,
    delete,
    func,
    inspect,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema, CreateTable

from service.databases import connect, create_file, cut_sqlite_log
from service.keystore.errors import KeyStoreError, KeysUnavailableError, WrongKeyError
from service.keystore.pool import FIRST_SECONDS, KeyPool
from service.keystore.wrapping import REF_BYTES, DataKey, Kek, KekSource

SCHEMA = "explaind_keys"
"""In PostgreSQL, so that a grant or a dump can leave it out."""

AT_ONCE = 4000
FORGET_SECONDS = 5.0
_AGAIN_SECONDS = 0.05
_REWRAPPED = "its keys are wrapped under another key-encryption key now: start again with that"
_LOCK = 0x65787065


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """SQL and file errors inside become KeysUnavailableError, without statement and values."""
    try:
        yield
    except DBAPIError as error:
        raise KeysUnavailableError(str(error.orig)) from error.orig
    except (SQLAlchemyError, OSError) as error:
        raise KeysUnavailableError(str(error)) from error


class KeyStore:
    """Keys of one store. Safe to call from several threads; any number of processes share one."""

    def __init__(self, engine: Engine, kek: Kek, tables: "Tables") -> None:
        self._engine = engine
        self._kek = kek
        self._keys = tables.keys
        self._facts = tables.facts
        self._pool = KeyPool(self._make)
        self._unused: deque[bytes] = deque()
        self.identity = ""

    @classmethod
    def open(cls, url: str, kek: Kek | KekSource, *, busy_timeout_seconds: float = 3.0) -> Self:
        """Open or create the store at a SQLAlchemy URL: SQLite in a file, or PostgreSQL.

        A key-encryption key in a file is made together with the store, and never for a store that
        exists. Raises WrongKeyError where the key is lost or another's, KeysUnavailableError,
        KeyStoreError for an unusable URL.
        """
        address = address_of(url)
        tables = Tables.at(address)
        if address.get_backend_name() == "sqlite":
            with translated_errors():
                create_file(Path(str(address.database)))
        engine = connect(address, connections=3, busy_timeout_seconds=busy_timeout_seconds)
        try:
            with (
                translated_errors(),
                engine.connect() as connection,
                _one_at_a_time(connection),
            ):
                found = _prepare(connection, tables, kek)
                store = cls(engine, found, tables)
                store.identity = tables.keep(connection, "identity", os.urandom(16).hex())
        except BaseException:
            engine.dispose()
            raise
        return store

    @classmethod
    def is_there(cls, url: str) -> bool:
        """There is a store at that URL. Raises KeysUnavailableError, KeyStoreError."""
        address = address_of(url)
        schema = None
        if address.get_backend_name() == "sqlite":
            if not Path(str(address.database)).exists():
                return False
        else:
            schema = SCHEMA
        engine = connect(address, connections=1, busy_timeout_seconds=1.0)
        try:
            with translated_errors():
                return inspect(engine).has_table(Tables(schema).facts.name, schema)
        finally:
            engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the keys nobody took or needed, and close all connections.

        Those of a process that was killed stay: they open nothing, and no other process can tell
        them from keys whose record is about to be stored.
        """
        left = self._pool.close()
        with contextlib.suppress(KeysUnavailableError):
            self._delete([*(key.ref for key in left), *self._unused])
        self._engine.dispose()

    def fill(self) -> None:
        """Wait for the first keys, so that `take` has some. Raises KeysUnavailableError."""
        self._pool.wait(timeout_seconds=FIRST_SECONDS)

    @property
    def has_keys(self) -> bool:
        """The next `take` has one."""
        return self._pool.has_keys

    def take(self) -> DataKey:
        """A key that is stored durably and was never given to anybody; only the first one
        of all is waited for. Cost: 0.2 us.

        Raises KeysUnavailableError when none is left and the store is away.
        """
        return self._pool.take()

    def take_many(self, count: int, *, timeout_seconds: float = FIRST_SECONDS) -> list[DataKey]:
        """As `take`, of so many; waits for them. Raises KeysUnavailableError."""
        return self._pool.take_many(count, timeout_seconds=timeout_seconds)

    def give_back(self, keys: Iterable[DataKey]) -> None:
        """Have keys destroyed under which nothing is stored, nor will be: with the next block that
        is made, or by `close`. Cost: 0.1 us each; nobody waits for a commit.
        """
        self._unused.extend(key.ref for key in keys)

    def keys(self, refs: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """Reference to key; those that were destroyed are missing, and None stands for one that
        was damaged: it does not open under the key-encryption key, which the store's others do.

        Read anew each time, so that a key destroyed by any process is gone at once. Cost: one query
        for some thousands. Raises KeysUnavailableError, also where the store's keys are being, or
        have been, wrapped under another key since this was opened.
        """
        found: dict[bytes, bytes | None] = {}
        wanted = [*dict.fromkeys(refs)]
        with translated_errors(), self._engine.connect() as connection:
            for some in _chunks(wanted):
                # Cast, because SQLite keeps what is no blob in a column of blobs too.
                query = select(self._keys.c.ref, cast(self._keys.c.wrapped, LargeBinary))
                rows = connection.execute(query.where(self._keys.c.ref.in_(some))).all()
                found |= self._kek.unwrapped([(ref, wrapped) for ref, wrapped in rows])
            if None in found.values() and self._is_rewrapped(connection):
                raise KeysUnavailableError(_REWRAPPED)
        return found

    def _is_rewrapped(self, connection: Connection) -> bool:
        query = select(self._facts.c.name, self._facts.c.value)
        facts = {row.name: row.value for row in connection.execute(query)}
        return "rewrap" in facts or facts.get("check") != self._kek.check

    def destroy(self, refs: Iterable[bytes]) -> None:
        """Delete these keys for good: when this returns, no file of a SQLite store holds them,
        wrapped or not. Destroying twice does no harm.

        Raises KeysUnavailableError, also where they are deleted but readers kept the write-ahead
        log from being cut; repeat it then.
        """
        self.delete(refs)
        if not self.forget_pages(seconds=FORGET_SECONDS):
            raise KeysUnavailableError("readers keep the key store's old pages from being cut")

    def delete(self, refs: Iterable[bytes]) -> None:
        """Delete these keys, durably; old pages may hold them until `forget_pages`. Deleting twice
        does no harm. Raises KeysUnavailableError.
        """
        self._delete([*refs])

    def forget_pages(self, *, seconds: float = FORGET_SECONDS) -> bool:
        """Drop the pages that held deleted keys: SQLite's write-ahead log is folded in and cut,
        PostgreSQL's table vacuumed. False when others' transactions kept it from that for so long.

        Raises KeysUnavailableError.
        """
        deadline = time.monotonic() + seconds
        with translated_errors(), self._engine.connect() as connection:
            while not self._forgets(connection):
                if time.monotonic() > deadline:
                    return False
                time.sleep(_AGAIN_SECONDS)
        return True

    def _forgets(self, connection: Connection) -> bool:
        if self._engine.dialect.name == "sqlite":
            return cut_sqlite_log(connection)
        connection.exec_driver_sql(f"VACUUM {self._keys.fullname}")
        left = func.pg_stat_get_dead_tuples(cast(cast(self._keys.fullname, Text), REGCLASS))
        return connection.scalar(select(left)) == 0

    def _delete(self, refs: Sequence[bytes]) -> None:
        with translated_errors(), self._engine.connect() as connection:
            for some in _chunks(refs):
                connection.execute(delete(self._keys).where(self._keys.c.ref.in_(some)))

    def _make(self, count: int) -> Sequence[DataKey]:
        """Keys in one commit; durable when this returns."""
        prefix = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(REF_BYTES - 8)
        made = self._kek.new_keys(count, prefix)
        marker = "?" if self._engine.dialect.name == "sqlite" else "%s"
        places = ", ".join([f"({marker}, {marker})"] * count)
        values = tuple(value for key, wrapped in made for value in (key.ref, wrapped))
        facts = self._facts.fullname
        statement = (
            f"INSERT INTO {self._keys.fullname} (ref, wrapped)"  # noqa: S608  # only names and markers
            f" WITH made(ref, wrapped) AS (VALUES {places}) SELECT ref, wrapped FROM made"
            f" WHERE EXISTS (SELECT 1 FROM {facts} WHERE name = 'check' AND value = {marker})"
            f" AND NOT EXISTS (SELECT 1 FROM {facts} WHERE name = 'rewrap')"
        )
        with translated_errors(), self._engine.connect() as connection:
            n_made = connection.exec_driver_sql(statement, (*values, self._kek.check)).rowcount
        if n_made != count:
            raise KeysUnavailableError(_REWRAPPED)
        self._delete_unused()
        return [key for key, _ in made]

    def _delete_unused(self) -> None:
        refs = [self._unused.popleft() for _ in range(len(self._unused))]
        try:
            self._delete(refs)
        except KeysUnavailableError:
            self._unused.extend(refs)  # the keys just made are good all the same


class Tables:
    """In SQLite, or in a schema of PostgreSQL's."""

    def __init__(self, schema: str | None) -> None:
        self.schema = schema
        metadata = MetaData(schema=schema)
        self.keys = Table(
            "record_keys",
            metadata,
            Column("ref", LargeBinary, primary_key=True),
            Column("wrapped", LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        )
        self.facts = Table(
            "key_store",
            metadata,
            Column("name", Text, primary_key=True),
            Column("value", Text, nullable=False),
        )

    @classmethod
    def at(cls, address: URL) -> Self:
        return cls(None if address.get_backend_name() == "sqlite" else SCHEMA)

    def create(self, connection: Connection) -> None:
        if self.schema is not None:
            connection.execute(CreateSchema(self.schema, if_not_exists=True))
        for table in (self.keys, self.facts):
            connection.execute(CreateTable(table, if_not_exists=True))

    def fact(self, connection: Connection, name: str) -> str | None:
        wanted = select(self.facts.c.value).where(self.facts.c.name == name)
        return connection.execute(wanted).scalar_one_or_none()

    def keep(self, connection: Connection, name: str, value: str) -> str:
        """Store a fact that is never changed; what is stored by then."""
        found = self.fact(connection, name)
        if found is not None:
            return found
        insert = sqlite.insert if self.schema is None else postgresql.insert
        row = {"name": name, "value": value}
        connection.execute(insert(self.facts).values(row).on_conflict_do_nothing())
        return self.fact(connection, name) or value


def _prepare(connection: Connection, tables: Tables, kek: Kek | KekSource) -> Kek:
    """Make the tables unless they are there; the key that theirs are wrapped under."""
    tables.create(connection)
    if tables.fact(connection, "rewrap") is not None:
        raise WrongKeyError(
            "its keys are being wrapped under another key-encryption key: call `explaind keys "
            "rewrap` again, which goes on with that"
        )
    known = tables.fact(connection, "check")
    found = kek if isinstance(kek, Kek) else kek.find(may_create=known is None)
    if (known or tables.keep(connection, "check", found.check)) != found.check:
        source = f" ({kek.name})" if isinstance(kek, KekSource) else ""
        raise WrongKeyError(
            f"this is not the key-encryption key of the key store{source}: put the one back that "
            "its keys are wrapped under"
        )
    return found


def address_of(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise KeyStoreError("the key store's URL cannot be parsed") from None
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise KeyStoreError(f"keys are kept in SQLite or PostgreSQL, not in {backend}")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise KeyStoreError("the key store needs a SQLite file, not memory")
    return parsed


def _chunks(refs: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(refs), AT_ONCE):
        yield refs[start : start + AT_ONCE]


@contextlib.contextmanager
def _one_at_a_time(connection: Connection) -> Iterator[None]:
    """PostgreSQL's CREATE ... IF NOT EXISTS fails when two replicas start at once."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.execute(select(func.pg_advisory_lock(_LOCK)))
    try:
        yield
    finally:
        connection.execute(select(func.pg_advisory_unlock(_LOCK)))
