"""Rows on their way into the table of events: one statement for all, wherever that is possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Self

from sqlalchemy import Connection

from service.evidence.engines import alone
from service.evidence.events import Row
from service.evidence.tables import BESIDE, INSERTED_COLUMNS

_KEY, _TYPE, _TENANT, _REQUEST, _PARENT, _SUBJECTS = (
    INSERTED_COLUMNS.index(name)
    for name in (
        *("idempotency_key", "event_type", "tenant", "request_id", "parent_request_id"),
        "subjects",
    )
)
_COLUMNS = ", ".join(INSERTED_COLUMNS)
_UNGUARDED = frozenset({"decision", "explanation", "outcome", "answer"})
"""Types of events that cannot bring back what was erased: a request's decision and explanation have
one place each, which an erasure leaves taken, and the others have no content.
"""


@dataclass(frozen=True, slots=True)
class Insertion:
    """Rows to insert, in the order in which every process inserts them: PostgreSQL makes the second
    inserter of a key wait for the first, and with the same retries in different order two of them
    would wait for each other.

    guarded: what says something more of a request, stands beside one of its events or copies from
    it; none of it is inserted once that request is erased, or whom it is about from that request.
    """

    values: tuple[object, ...]
    count: int
    guarded: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Sort rows. Cost: 0.5 us each."""
        ordered = sorted(rows, key=lambda row: str(row[_KEY]))
        guarded = tuple(row for row in ordered if _is_guarded(row))
        free = [row for row in ordered if not _is_guarded(row)] if guarded else ordered
        return cls(tuple(chain.from_iterable(free)), len(free), guarded)

    def run(self, connection: Connection) -> int:
        """Insert them in one transaction: how many there were not yet."""
        if not self.guarded:
            return self._insert_free(connection)
        with alone(connection):
            inserted = self._insert_free(connection) if self.count else 0
            statement = _guarded_statement(_marker(connection))
            for row in self.guarded:
                parent = row[_PARENT] if row[_TYPE] == "decision" else None
                about = (row[_TENANT], row[_REQUEST], row[_SUBJECTS], row[_TENANT], parent)
                values = (*row, *about)
                inserted += connection.exec_driver_sql(statement, values).rowcount
        return inserted

    def _insert_free(self, connection: Connection) -> int:
        statement = _statement(self.count, _marker(connection))
        return connection.exec_driver_sql(statement, self.values).rowcount


def _is_guarded(row: Row) -> bool:
    return (
        row[_TYPE] not in _UNGUARDED
        or (row[_TYPE] == "decision" and row[_PARENT] is not None)
        or str(row[_KEY]).startswith(BESIDE)
    )


def _marker(connection: Connection) -> str:
    return "?" if connection.dialect.name == "sqlite" else "%s"


@lru_cache(maxsize=64)
def _statement(n_rows: int, marker: str) -> str:
    """One INSERT of n rows in the driver's own SQL.

    Not SQLAlchemy's batching (three times the CPU), and no RETURNING: SQLite gives the GIL away and
    waits for it again at each returned row, which beside a busy event loop took three times as
    long. The number of rows inserted says as much, unless some were in conflict.
    """
    one_row = f"({', '.join([marker] * len(INSERTED_COLUMNS))})"
    rows = ", ".join([one_row] * n_rows)
    return f"INSERT INTO events ({_COLUMNS}) VALUES {rows} ON CONFLICT DO NOTHING"  # noqa: S608  # only names and markers


@lru_cache(maxsize=2)
def _guarded_statement(marker: str) -> str:
    """Not a trigger: one would cost every event 4 us. Of a record erased in part no copy is made
    either, as nobody could tell whose parts it has.
    """
    markers = ", ".join([marker] * len(INSERTED_COLUMNS))
    place = "instr" if marker == "?" else "strpos"
    erased = f"SELECT 1 FROM erasures WHERE tenant = {marker} AND request_id = {marker}"  # noqa: S608
    is_about = f"{place}(CAST({marker} AS TEXT), '\"' || subject || '\"') > 0"
    return (
        f"INSERT INTO events ({_COLUMNS}) SELECT {markers}"
        f" WHERE NOT EXISTS ({erased} AND (subject = '' OR {is_about}))"
        f" AND NOT EXISTS ({erased}) ON CONFLICT DO NOTHING"
    )
