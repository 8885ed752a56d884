"""What the ledger reads and writes, in each database's own SQL.

Many rows travel as one: SQLite gives the GIL away and waits for it again at each row, which beside
a busy event loop takes a hundred times as long as the row.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import ClassVar, Protocol

import orjson
from sqlalchemy import Connection, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from service.evidence import EvidenceStore
from service.evidence.arrivals import DECIDED, TRANSACTION
from service.evidence.tables import meta
from service.ledger.errors import LogMismatchError
from service.ledger.tree import leaf_hash

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Log:
    """A log and the table whose rows (event_id, header) are its entries."""

    name: str
    table: str

    @property
    def mark_name(self) -> str:
        """Under which `meta` says how far the log has come."""
        return f"log.{self.name}"


EVIDENCE = Log("evidence", "events")
ACCESS = Log("access", "accesses")
LOGS = {log.name: log for log in (EVIDENCE, ACCESS)}


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log has come.

    arrival, event_id: of the last row that was put into it; arrival is a rowid of SQLite, or a
    column of PostgreSQL made of transaction numbers and the offset. signed_us: when the last
    checkpoint was signed, at signed_size. read_as: the stored text it was read from.
    """

    size: int = 0
    arrival: int = 0
    event_id: str = ""
    offset: int = 0
    signed_size: int = 0
    signed_us: int = 0
    read_as: str = ""

    @property
    def text(self) -> str:
        """As it is stored."""
        values = {name: getattr(self, name) for name in _STORED}
        return orjson.dumps(values).decode()


_STORED = tuple(each.name for each in fields(Mark) if each.name != "read_as")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to put into a log; arrival, event_id: the last one's."""

    event_ids: Sequence[str]
    leaves: Sequence[bytes]
    arrival: int
    event_id: str

    def without(self, event_ids: set[str]) -> "Batch":
        """The same but for these rows."""
        left = [i for i, event_id in enumerate(self.event_ids) if event_id not in event_ids]
        return replace(
            self,
            event_ids=[self.event_ids[i] for i in left],
            leaves=[self.leaves[i] for i in left],
        )


class RepeatedError(Exception):
    """A row is in the log already: it was deleted and inserted again, or its order was lost."""


class LogRows(Protocol):
    """One database's way."""

    def turn(self, log: Log) -> AbstractContextManager[Connection | None]:
        """To read what is to be put into the log; None while another process does so."""
        ...

    def change(self, connection: Connection) -> AbstractContextManager[Connection]:
        """The one transaction of a turn."""
        ...

    def mark(self, connection: Connection, log: Log) -> tuple[Mark, bool]:
        """The log's mark, and whether rows still stand in the order it speaks of."""
        ...

    def renumbered(self, connection: Connection, log: Log, mark: Mark) -> Mark:
        """A mark before all rows, of an order in which all future rows come last."""
        ...

    def arrived(self, connection: Connection, log: Log, mark: Mark, limit: int) -> Batch | None:
        """Up to `limit` rows after the mark, that no other can precede any more."""
        ...

    def waiting(self, connection: Connection, log: Log, mark: Mark) -> int:
        """How many rows come after the mark."""
        ...

    def insert(self, connection: Connection, log: Log, start: int, batch: Batch) -> None:
        """Put rows at seq `start` and after. RepeatedError if one is there."""
        ...

    def leaves(self, connection: Connection, log: str, start: int, stop: int) -> list[bytes]:
        """Leaf hashes; LogMismatchError unless all of them are there."""
        ...

    def nodes(
        self, connection: Connection, log: str, level: int, start: int, stop: int
    ) -> list[bytes]:
        """Stored nodes of a level; LogMismatchError unless all of them are there."""
        ...


def log_rows(store: EvidenceStore) -> LogRows:
    """Those of the store's database."""
    return SqliteRows(store) if store.is_sqlite else PostgresqlRows(store)


def set_mark(connection: Connection, log: Log, old: Mark, new: Mark) -> bool:
    """Replace the mark unless another process has meanwhile."""
    changed = update(meta).where(meta.c.name == log.mark_name, meta.c.value == old.read_as)
    return connection.execute(changed.values(value=new.text)).rowcount == 1


def add_mark(connection: Connection, log: Log) -> None:
    """The first mark of a log, unless it has one."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = insert(meta).values(name=log.mark_name, value=Mark().text)
    connection.execute(first.on_conflict_do_nothing())


def _mark(text: str) -> Mark:
    return Mark(**orjson.loads(text), read_as=text)


def _cut(packed: bytes | None, count: int, what: str) -> list[bytes]:
    packed = packed or b""
    if len(packed) != count * HASH_BYTES:
        raise LogMismatchError(f"{what}: some are missing")
    return [packed[i : i + HASH_BYTES] for i in range(0, len(packed), HASH_BYTES)]


class _Rows:
    """What both have in common but for the text of statements."""

    LEAVES: ClassVar[str]
    NODES: ClassVar[str]
    INSERT: ClassVar[str]

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store

    def leaves(self, connection: Connection, log: str, start: int, stop: int) -> list[bytes]:
        """As LogRows."""
        packed = connection.exec_driver_sql(self.LEAVES, (log, start, stop)).scalar_one()
        return _cut(packed, stop - start, f"entries {start} to {stop - 1}")

    def nodes(
        self, connection: Connection, log: str, level: int, start: int, stop: int
    ) -> list[bytes]:
        """As LogRows."""
        packed = connection.exec_driver_sql(self.NODES, (log, level, start, stop)).scalar_one()
        return _cut(packed, stop - start, f"nodes {start} to {stop - 1} of level {level}")

    def insert(self, connection: Connection, log: Log, start: int, batch: Batch) -> None:
        """As LogRows."""
        values = (log.name, start, *self._packed(batch))
        try:
            connection.exec_driver_sql(self.INSERT, values)
        except IntegrityError:
            raise RepeatedError from None

    def _packed(self, batch: Batch) -> tuple[object, object]:
        raise NotImplementedError


class SqliteRows(_Rows):
    """Rowids are in the order of commits, and each one larger than all before while no row is
    deleted; the mark's row tells whether that holds.
    """

    LEAVES = (
        "SELECT CAST(group_concat(leaf, '') AS BLOB) FROM (SELECT leaf FROM log_entries"
        " WHERE log = ? AND seq >= ? AND seq < ? ORDER BY seq)"
    )
    NODES = (
        "SELECT CAST(group_concat(hash, '') AS BLOB) FROM (SELECT hash FROM tree_nodes"
        " WHERE log = ? AND level = ? AND number >= ? AND number < ? ORDER BY number)"
    )
    INSERT = (
        "INSERT INTO log_entries (log, seq, event_id, leaf)"
        " SELECT ?1, ?2 + key, value, substr(?3, key * 32 + 1, 32)"
        " FROM json_each(?4)"
    )

    @contextmanager
    def turn(self, log: Log) -> Iterator[Connection | None]:
        """Anybody may read at once: what is read never changes, and one of them gets to write."""
        del log
        with self._store.reading() as connection:
            yield connection

    def change(self, connection: Connection) -> AbstractContextManager[Connection]:
        """As LogRows."""
        del connection
        return self._store.changing(waits_for_disk=False)

    def mark(self, connection: Connection, log: Log) -> tuple[Mark, bool]:
        """As LogRows."""
        stored = "SELECT value FROM meta WHERE name = ?"
        mark = _mark(connection.exec_driver_sql(stored, (log.mark_name,)).scalar_one())
        if not mark.arrival:
            return mark, True
        query = f"SELECT event_id FROM {log.table} WHERE rowid = ?"  # noqa: S608  # a fixed name
        there = connection.exec_driver_sql(query, (mark.arrival,)).scalar_one_or_none()
        return mark, there == mark.event_id

    def renumbered(self, connection: Connection, log: Log, mark: Mark) -> Mark:
        """As LogRows."""
        del connection, log
        return replace(mark, arrival=0, event_id="")

    def arrived(self, connection: Connection, log: Log, mark: Mark, limit: int) -> Batch | None:
        """As LogRows. The header stands before the payload, so that no page of that is read."""
        query = (
            "SELECT json_group_array(json_array(rowid, event_id,"  # noqa: S608  # a fixed name
            " length(CAST(header AS BLOB)))), CAST(group_concat(header, '') AS BLOB)"
            f" FROM (SELECT rowid, event_id, header FROM {log.table}"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?)"
        )
        listed, headers = connection.exec_driver_sql(query, (mark.arrival, limit)).one()
        rows: list[tuple[int, str, int]] = orjson.loads(listed)
        if not rows:
            return None
        ends = accumulate((size for _, _, size in rows), initial=0)
        leaves = [leaf_hash(headers[start:end]) for start, end in pairwise(ends)]
        return Batch([event_id for _, event_id, _ in rows], leaves, *rows[-1][:2])

    def waiting(self, connection: Connection, log: Log, mark: Mark) -> int:
        """As LogRows."""
        query = f"SELECT max(rowid) FROM {log.table}"  # noqa: S608  # a fixed name
        last: int | None = connection.exec_driver_sql(query).scalar_one()
        return max(0, (last or 0) - mark.arrival)

    def _packed(self, batch: Batch) -> tuple[object, object]:
        return b"".join(batch.leaves), orjson.dumps(batch.event_ids).decode()


class PostgresqlRows(_Rows):
    """Rows stand in the order of (arrival, event_id) once all transactions up to theirs ended."""

    LEAVES = (
        "SELECT string_agg(leaf, CAST('' AS BYTEA) ORDER BY seq) FROM log_entries"
        " WHERE log = %s AND seq >= %s AND seq < %s"
    )
    NODES = (
        "SELECT string_agg(hash, CAST('' AS BYTEA) ORDER BY number) FROM tree_nodes"
        " WHERE log = %s AND level = %s AND number >= %s AND number < %s"
    )
    INSERT = (
        "INSERT INTO log_entries (log, seq, event_id, leaf) SELECT %s, %s + n - 1, event_id, leaf"
        " FROM unnest(CAST(%s AS BYTEA[]), CAST(%s AS TEXT[]))"
        " WITH ORDINALITY AS batch(leaf, event_id, n)"
    )

    @contextmanager
    def turn(self, log: Log) -> Iterator[Connection | None]:
        """As LogRows: one transaction, and whoever has its lock; a process that dies frees it."""
        lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('explaind/' || %s, 0))"
        with self._store.changing() as connection:
            is_mine = connection.exec_driver_sql(lock, (log.mark_name,)).scalar_one()
            yield connection if is_mine else None

    @contextmanager
    def change(self, connection: Connection) -> Iterator[Connection]:
        """As LogRows."""
        yield connection

    def mark(self, connection: Connection, log: Log) -> tuple[Mark, bool]:
        """As LogRows. In a copy of the database transactions are counted from the beginning."""
        query = f"SELECT value, {DECIDED} FROM meta WHERE name = %s"  # noqa: S608  # a fixed text
        value, decided = connection.exec_driver_sql(query, (log.mark_name,)).one()
        mark = _mark(value)
        return mark, mark.arrival < decided + mark.offset

    def renumbered(self, connection: Connection, log: Log, mark: Mark) -> Mark:
        """As LogRows. Those who insert wait meanwhile."""
        connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'")
        connection.exec_driver_sql(f"LOCK TABLE {log.table} IN ACCESS EXCLUSIVE MODE")
        query = f"SELECT max(arrival) FROM {log.table}"  # noqa: S608  # a fixed name
        highest: int | None = connection.exec_driver_sql(query).scalar_one()
        offset = max(mark.arrival, highest or 0)
        connection.exec_driver_sql(
            f"ALTER TABLE {log.table} ALTER COLUMN arrival SET DEFAULT ({TRANSACTION} + {offset})"
        )
        return replace(mark, arrival=0, event_id="", offset=offset)

    def arrived(self, connection: Connection, log: Log, mark: Mark, limit: int) -> Batch | None:
        """As LogRows."""
        query = (
            f"SELECT arrival, event_id, header FROM {log.table}"  # noqa: S608  # fixed texts
            f" WHERE (arrival, event_id) > (%s, %s) AND arrival < {DECIDED} + %s"
            " ORDER BY arrival, event_id LIMIT %s"
        )
        values = (mark.arrival, mark.event_id, mark.offset, limit)
        rows = connection.exec_driver_sql(query, values).all()
        if not rows:
            return None
        leaves = [leaf_hash(header) for _, _, header in rows]
        return Batch([row[1] for row in rows], leaves, rows[-1][0], rows[-1][1])

    def waiting(self, connection: Connection, log: Log, mark: Mark) -> int:
        """As LogRows."""
        query = f"SELECT count(*) FROM {log.table} WHERE (arrival, event_id) > (%s, %s)"  # noqa: S608  # a fixed name
        found: int = connection.exec_driver_sql(query, (mark.arrival, mark.event_id)).scalar_one()
        return found

    def _packed(self, batch: Batch) -> tuple[object, object]:
        return list(batch.leaves), list(batch.event_ids)
