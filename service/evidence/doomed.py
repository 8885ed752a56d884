"""Keys that are to be destroyed: noted in the database until no file holds them any more.

Who can write there can put any reference among them, and so have the key store, which he cannot
reach, destroy what a hold keeps. So a reference that was not doomed by the process itself is one
only if no event has content under it.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from sqlalchemy import Connection, Select, select, type_coerce
from sqlalchemy import Row as QueriedRow
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import NullType

from service.evidence.boxes import ENCRYPTED, refs_of, unboxed
from service.evidence.errors import UnreadablePayloadError
from service.evidence.events import Row
from service.evidence.reading import as_queried
from service.evidence.store import EvidenceStore
from service.evidence.tables import doomed_keys, events
from service.keystore import KeyStoreError

DOOMED = "doomed"
"""Where a connection has what its transaction of `exclusively` dooms."""

_PAGE = 1000


def note_doomed(connection: Connection, refs: Sequence[bytes]) -> None:
    """Note keys to destroy once the transaction has committed; `service.disposal` does so."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [{"ref": ref} for ref in refs]
    if rows:
        connection.execute(insert(doomed_keys).on_conflict_do_nothing(), rows)


def doom_unstored(store: EvidenceStore, rows: Sequence[Row]) -> None:
    """Destroy the keys of sealed rows that are stored nowhere, nor ever will be: durably noted
    when this returns, so that a kill leaves none. Raises StoreUnavailableError.
    """
    refs = [ref for row in rows for ref in refs_of(as_queried(row))]
    if not refs:
        return
    with store.changing() as connection:
        note_doomed(connection, refs)
    store.doomed.update(refs)
    if store.sealer.keys is not None:
        with suppress(KeyStoreError):  # whoever forgets what is doomed tries again
            store.sealer.keys.delete(refs)


def doomed_refs(store: EvidenceStore) -> Iterator[list[bytes]]:
    """All of them, in pages; what is there and is no reference is passed over. Raises
    StoreUnavailableError.
    """
    cell = type_coerce(doomed_keys.c.ref, NullType())  # as it is stored: SQLite takes any kind
    page = query = select(cell).order_by(cell).limit(_PAGE)
    while True:
        with store.reading() as connection:
            found: Sequence[object] = connection.scalars(page).all()
        if refs := [ref for ref in found if isinstance(ref, bytes)]:
            yield refs
        if len(found) < _PAGE:
            return
        page = query.where(cell > found[-1])


def in_use(store: EvidenceStore, refs: Collection[bytes]) -> Iterator[tuple[str, bytes]]:
    """The events that have content under one of these references, with it.

    An event's content and its references go in the transaction that dooms these: read the
    references first. Raises StoreUnavailableError. Cost: reads the keys' references of all events
    with content, 5 us each.
    """
    wanted = frozenset(refs)
    columns = (events.c.event_id, events.c.encoding, events.c.record_key)
    query: Select[tuple[object, ...]] = select(*columns).where(
        events.c.payload.is_not(None), events.c.encoding == ENCRYPTED
    )
    page = query = query.order_by(events.c.event_id).limit(_PAGE)
    while True:
        with store.reading() as connection:
            rows = connection.execute(page).all()
        for row in rows:
            if not wanted.isdisjoint(_refs(row)):
                yield from ((row.event_id, ref) for ref in _live(store, row) if ref in wanted)
        if len(rows) < _PAGE:
            return
        page = query.where(events.c.event_id > rows[-1].event_id)


def _refs(row: QueriedRow[tuple[object, ...]]) -> list[bytes]:
    return refs_of(row) if isinstance(row.record_key, bytes) else []


def _live(store: EvidenceStore, row: QueriedRow[tuple[object, ...]]) -> Sequence[bytes]:
    """The references under which a section is left; of a payload cut short all count."""
    query = select(events.c.payload).where(events.c.event_id == row.event_id)
    with store.reading() as connection:
        payload = connection.execute(query).scalar_one_or_none()
    if payload is None:
        return []
    refs = _refs(row)
    try:
        boxes = unboxed(payload, len(refs))
    except (UnreadablePayloadError, TypeError):
        return refs
    return [ref for ref, box in zip(refs, boxes, strict=True) if box]
