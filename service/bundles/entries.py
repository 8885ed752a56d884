"""Entries of a log as bundles carry them: header, proof of its place, opened payload."""

from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import ColumnElement, Connection, func, select

from service.evidence import EvidenceStore, ProvenEvent
from service.evidence.tables import accesses, events, log_entries
from service.ledger import ACCESS, EVIDENCE, Ledger, LogMismatchError, proven_line

Json = dict[str, object]
Keys = set[tuple[str, str]]
"""Requests, by tenant and request ID."""

Ranges = Sequence[tuple[int, int]]
"""Seqs as ranges of the first and the last, ascending."""

PAGE = 500
SOURCES = {EVIDENCE.name: events, ACCESS.name: accesses}


def pages(ranges: Ranges) -> Iterator[list[int]]:
    """The seqs of ranges, up to PAGE at a time."""
    seqs = (seq for first, last in ranges for seq in range(first, last + 1))
    while page := list(islice(seqs, PAGE)):
        yield page


def proven_at(store: EvidenceStore, log: str, seqs: Sequence[int]) -> list[ProvenEvent]:
    """The events at these places, in their order.

    Raises LogMismatchError for a place without an event, UnreadablePayloadError.
    """
    query = select(log_entries.c.seq, log_entries.c.event_id)
    with store.reading() as connection:
        rows = connection.execute(
            query.where(log_entries.c.log == log, log_entries.c.seq.in_(seqs))
        )
        names: dict[int, str] = {row.seq: row.event_id for row in rows}
    ids = list(names.values())
    found = {event.event_id: event for event in events_by_id(store, log, ids)}
    try:
        return [found[names[seq]] for seq in seqs]
    except KeyError:
        lost = next(seq for seq in seqs if names.get(seq) not in found)
        raise LogMismatchError(f"entry {lost} of the log {log} is not there") from None


def events_by_id(store: EvidenceStore, log: str, event_ids: Sequence[str]) -> Sequence[ProvenEvent]:
    """Events as they are proven, in any order; those of the access log have no payload."""
    if log == EVIDENCE.name:
        return store.events(event_ids)
    columns = (accesses.c.event_id, accesses.c.kind, accesses.c.principal, accesses.c.header)
    query = select(*columns).where(accesses.c.event_id.in_(event_ids))
    with store.reading() as connection:
        rows = connection.execute(query).all()
    return [ProvenEvent(*row, opening=None) for row in rows]


def entries(
    ledger: Ledger, log: str, size: int, found: Sequence[tuple[int, ProvenEvent]]
) -> list[Json]:
    """The lines of events at their places, proven in the tree of that size.

    Raises LogMismatchError.
    """
    paths = ledger.inclusions(log, [seq for seq, _ in found], size)
    return [proven_line(seq, event, path) for (seq, event), path in zip(found, paths, strict=True)]


def distinct(
    connection: Connection, column: ColumnElement[str], *conditions: ColumnElement[bool]
) -> list[str]:
    """The values there are, each found by one look into the index by time."""
    found: list[str] = []
    while True:
        beyond = column > (found[-1] if found else "")
        value = connection.execute(select(func.min(column)).where(*conditions, beyond)).scalar_one()
        if value is None:
            return found
        found.append(value)
