"""Transactions beside those that add events: of the access log, and of what destroys."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, insert
from sqlalchemy.exc import OperationalError

from service.databases import cut_sqlite_log
from service.evidence.doomed import DOOMED
from service.evidence.events import Row
from service.evidence.store import AppendOutcome, EvidenceStore, Outcomes
from service.evidence.tables import ACCESS_COLUMNS, accesses

_AGAIN_SECONDS = 0.05
_LOCK_MS = 200
_IDLE_MS = 10_000
_TRIES = 8
_PAUSE_SECONDS = 0.3


@contextmanager
def exclusively(store: EvidenceStore) -> Iterator[Connection]:
    """A transaction during which nobody else adds events, here or in another process, so that what
    it reads stays true until it commits. Keep it short: answers wait for it. What it dooms is the
    store's own once it has committed.

    Raises StoreUnavailableError, also where maintenance keeps PostgreSQL's lock from it: try later.
    """
    with store.changing() as connection:
        if not store.is_sqlite:
            _lock(connection)
        connection.info[DOOMED] = doomed = list[bytes]()
        yield connection
    store.doomed.update(doomed)


def _lock(connection: Connection) -> None:
    """Keep others from adding events, on PostgreSQL. Whoever waits for a lock has all later inserts
    wait behind him, so it is tried for a moment, and again after a pause.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_MS}")
    connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}")
    for left in reversed(range(_TRIES)):
        connection.exec_driver_sql("SAVEPOINT unlocked")
        try:
            connection.exec_driver_sql("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        except OperationalError:
            if not left or connection.invalidated:
                raise
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unlocked")
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def insert_accesses(store: EvidenceStore, rows: Sequence[Row]) -> Outcomes:
    """Store rows of the access log in one transaction. Raises StoreUnavailableError."""
    values = [dict(zip(ACCESS_COLUMNS, row, strict=True)) for row in rows]
    with store.changing() as connection:
        connection.execute(insert(accesses).values(values))
    return [AppendOutcome.STORED] * len(rows)


def forget_pages(store: EvidenceStore, *, seconds: float = 5.0) -> bool:
    """Empty SQLite's write-ahead log, which still holds what was there before an erasure.

    False when readers kept it from that for so long. PostgreSQL: nothing to do here.
    """
    if not store.is_sqlite:
        return True
    deadline = time.monotonic() + seconds
    while True:
        with store.reading() as connection:
            is_cut = cut_sqlite_log(connection)
        if is_cut or time.monotonic() > deadline:
            return is_cut
        time.sleep(_AGAIN_SECONDS)
