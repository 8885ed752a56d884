"""Reading and writing an evidence database, whatever it is for."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock

from sqlalchemy import Connection, Engine

from service.databases import flush_sqlite, quick
from service.evidence.engines import alone, translated_errors


class Transactions:
    """The connections of a store, for what is not an insert of events. From any thread."""

    def __init__(self, writing: Engine, reading: Engine) -> None:
        self._writing = writing
        self._reading = reading
        self._inserting = Lock()

    @property
    def is_sqlite(self) -> bool:
        """The database is a file of SQLite's, else PostgreSQL."""
        return self._writing.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction. SQL errors inside become
        StoreUnavailableError.
        """
        with translated_errors(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def changing(self, *, waits_for_disk: bool = True) -> Iterator[Connection]:
        """One transaction, all or nothing. SQL errors inside become StoreUnavailableError.

        On SQLite inserts of this process wait for its end, and are awake at once: a busy database
        would have them sleep. waits_for_disk False: there they do not wait for its disk write, and
        it is durable after `flush`, or after the next transaction that is.
        """
        turn = self._inserting if self.is_sqlite else nullcontext()
        speed = quick if self.is_sqlite and not waits_for_disk else nullcontext
        with (
            turn,
            translated_errors(),
            self._writing.connect() as connection,
            speed(connection),
            alone(connection),
        ):
            yield connection

    def flush(self) -> None:
        """Return once all transactions that ended before are durable. StoreUnavailableError."""
        if self.is_sqlite:
            with translated_errors():
                flush_sqlite(Path(str(self._writing.url.database)))
