"""Events of the database that have no place in their log, and places that are none."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Text,
    exists,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from service.bundles.entries import SOURCES
from service.evidence import EvidenceStore
from service.evidence.tables import events, log_entries, meta
from service.ledger import LOGS
from service.ledger.rows import Mark, log_rows

LATE_SECONDS = 10.0
"""While a service runs, whatever is older has a place in its log and a checkpoint over it."""


class Unplaced(NamedTuple):
    """An event without a place. is_passed: the sequencer has come further and will not see it."""

    event_id: str
    is_passed: bool


def is_late(event_id: object, now: float) -> bool:
    """Whether an event should have a place by now. Its ID says when it was made; one that says
    otherwise than a clock can is no excuse.
    """
    try:
        made = (uuid.UUID(str(event_id)).int >> 80) / 1000
    except ValueError:
        return True
    return abs(now - made) > LATE_SECONDS


def is_placed(log: str) -> ColumnElement[bool]:
    """That an event of the log's source has a place in it."""
    entries = log_entries.c
    return exists().where(
        entries.log == log, entries.seq >= 0, entries.event_id == SOURCES[log].c.event_id
    )


def unplaced(store: EvidenceStore, log: str, types: Sequence[str] = ()) -> list[Unplaced]:
    """The events without a place, of all types or of these.

    The mark is read first: meanwhile the log only goes on.
    """
    with store.reading() as connection:
        mark = _mark(connection, store, log)
    source = SOURCES[log]
    query = select(source.c.event_id, _is_passed(store, mark).label("is_passed"))
    query = query.select_from(source).where(~is_placed(log))
    if types:
        query = query.where(events.c.event_type.in_(types))
    with store.reading() as connection:
        rows = connection.execute(query).all()
    return [Unplaced(row.event_id, bool(row.is_passed)) for row in rows]


def _mark(connection: Connection, store: EvidenceStore, log: str) -> Mark:
    """That before all rows where there is none yet, or where the order of rows was lost."""
    named = select(meta.c.value).where(meta.c.name == LOGS[log].mark_name)
    if connection.execute(named).first() is None:
        return Mark()
    mark, is_in_order = log_rows(store).mark(connection, LOGS[log])
    return mark if is_in_order else Mark()


def _is_passed(store: EvidenceStore, mark: Mark) -> ColumnElement[bool]:
    if store.is_sqlite:
        return literal_column("rowid", Integer) <= mark.arrival
    arrived = tuple_(literal_column("arrival", Integer), literal_column("event_id", Text))
    return arrived <= tuple_(literal(mark.arrival), literal(mark.event_id))


def stray_problems(store: EvidenceStore) -> list[str]:
    """What is said of logs that there are not."""
    query = select(log_entries.c.log, func.count()).where(log_entries.c.log.not_in(list(LOGS)))
    with store.reading() as connection:
        rows = connection.execute(query.group_by(log_entries.c.log)).all()
    return [f"{count} entries are of a log that is not known: {name!r}" for name, count in rows]
