"""Which records are meant, and all events that say something of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import orjson
from sqlalchemy import Connection, Row, Select, func, select, text, tuple_

from service.evidence import EvidenceStore, RequestKey
from service.evidence.events import idempotency_key, microseconds
from service.evidence.sealing import NOTHING
from service.evidence.sections import is_about
from service.evidence.tables import IS_BESIDE, erasures, event_subjects, events, holds

BATCH = 100
"""Records in one transaction, for which answers wait: about 10 ms."""

_PAGE = 1000
_LEFT_BEHIND = ("shadow", "explanation")
"""What is filed once for a request, and has content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A record's decision, without what is secret in it; where that is kept nowhere, the event that
    came of it, with no status. is_gone: no content is left of it, nor of another decision that
    stands beside it.
    """

    event_id: str
    tenant: str
    request_id: str
    parent_request_id: str | None
    model: str
    version: int
    status: str | None
    subjects: str | None
    received_us: int
    header: bytes
    is_gone: bool

    @property
    def key(self) -> RequestKey:
        """Tenant and request ID."""
        return self.tenant, self.request_id

    @property
    def retention_class(self) -> str:
        """As its header names it. Cost: 5 us."""
        return str(orjson.loads(self.header)["retention_class"])


def is_own_decision(row: Row[tuple[object, ...]]) -> bool:
    """Of DESTROYED, the one decision that is found by its request ID."""
    return bool(row.idempotency_key == idempotency_key(row.tenant, row.request_id))


def in_batches(keys: Iterable[RequestKey]) -> Iterator[list[RequestKey]]:
    """BATCH at a time."""
    left = iter(keys)
    while batch := list(islice(left, BATCH)):
        yield batch


def load(connection: Connection, keys: Iterable[RequestKey]) -> list[Target]:
    """The decisions of these requests, or what is there without one; without unknown ones."""
    wanted = list(keys)
    rows = _found(connection, [idempotency_key(*key) for key in wanted])
    left = {(row.tenant, row.request_id) for row in _beside(connection, wanted) if not row.is_empty}
    known = {(row.tenant, row.request_id) for row in rows}
    return [
        *(_target(row, is_gone=(row.tenant, row.request_id) not in left) for row in rows),
        *_without_decision(connection, [key for key in wanted if key not in known]),
    ]


def _found(connection: Connection, filed: Sequence[str]) -> Sequence[Row[tuple[object, ...]]]:
    names = [column for column in events.c if column.name in _LOADED]
    query: Select[tuple[object, ...]] = select(
        *names, events.c.payload.is_(None).label("is_empty")
    ).where(events.c.idempotency_key.in_(filed))
    return connection.execute(query).all()


def _target(row: Row[tuple[object, ...]], *, is_gone: bool, **changes: None) -> Target:
    loaded = {name: getattr(row, name) for name in _LOADED} | changes
    return Target(**loaded, is_gone=bool(row.is_empty) and is_gone)


def _without_decision(connection: Connection, keys: Sequence[RequestKey]) -> list[Target]:
    """What an answer of best effort left that was itself kept nowhere: it can be erased too."""
    filed = [idempotency_key(*key, name) for name in _LEFT_BEHIND for key in keys]
    rows = _found(connection, filed) if filed else ()
    found: dict[RequestKey, Target] = {}
    for row in rows:
        target = _target(row, is_gone=True, status=None)
        if target.key not in found or found[target.key].is_gone:
            found[target.key] = target
    return list(found.values())


def _beside(
    connection: Connection, keys: Sequence[RequestKey]
) -> Sequence[Row[tuple[object, ...]]]:
    """The events that stand beside others of these requests, also those without content."""
    found: list[Row[tuple[object, ...]]] = []
    for tenant in {tenant for tenant, _ in keys}:
        query: Select[tuple[object, ...]] = select(
            events.c.tenant,
            events.c.request_id,
            events.c.received_us,
            events.c.payload.is_(None).label("is_empty"),
        ).where(
            events.c.tenant == tenant,
            events.c.request_id.in_([request_id for of, request_id in keys if of == tenant]),
            IS_BESIDE,
        )
        found += connection.execute(query).all()
    return found


_LOADED = (
    "event_id",
    "tenant",
    "request_id",
    "parent_request_id",
    "model",
    "version",
    "status",
    "subjects",
    "received_us",
    "header",
)


DESTROYED = (
    events.c.event_id,
    events.c.idempotency_key,
    events.c.event_type,
    events.c.tenant,
    events.c.request_id,
    events.c.subjects,
    events.c.record_key,
    events.c.encoding,
    events.c.header,
)
"""What must be known of an event to destroy what it says."""


def events_about(
    connection: Connection, targets: Sequence[Target]
) -> Sequence[Row[tuple[object, ...]]]:
    """All that has content left, without its content.

    All events of a request have its time of receipt, whatever their own: that finds them by an
    index, also those of types that this release does not know. What stands beside another event
    has a time of its own.
    """
    found: list[Row[tuple[object, ...]]] = []
    times = {target.received_us for target in targets}
    times |= {row.received_us for row in _beside(connection, [each.key for each in targets])}
    for tenant in {target.tenant for target in targets}:
        own = [target for target in targets if target.tenant == tenant]
        query: Select[tuple[object, ...]] = select(*DESTROYED).where(
            events.c.tenant == tenant,
            events.c.event_type.in_(_content_types(connection, tenant)),
            events.c.received_us.in_(times),
            events.c.request_id.in_([target.request_id for target in own]),
            events.c.payload.is_not(None),
        )
        found += connection.execute(query).all()
    return found


WITHOUT_CONTENT = frozenset({"hold", "release", "quarantine", "erasure", "purge"})

# A DISTINCT would read the whole index; this takes one look for each type.
_TYPES = text(
    "WITH RECURSIVE found(name) AS ("
    " SELECT min(event_type) FROM events WHERE tenant = :tenant UNION ALL"
    " SELECT (SELECT min(event_type) FROM events"
    "  WHERE tenant = :tenant AND event_type > found.name)"
    " FROM found WHERE found.name IS NOT NULL)"
    " SELECT name FROM found WHERE name IS NOT NULL"
)


def _content_types(connection: Connection, tenant: str) -> set[str]:
    return set(connection.scalars(_TYPES, {"tenant": tenant})) - WITHOUT_CONTENT


def held_among(connection: Connection, keys: Sequence[RequestKey]) -> set[RequestKey]:
    """Those of the requests that are under a hold or in quarantine."""
    query = select(holds.c.tenant, holds.c.request_id).where(
        tuple_(holds.c.tenant, holds.c.request_id).in_(keys)
    )
    return {(row.tenant, row.request_id) for row in connection.execute(query)}


def of_requests(store: EvidenceStore, tenant: str, request_ids: Iterable[str]) -> list[RequestKey]:
    """The requests that are known, each with the records that explain it again: those hold copies
    of what it holds.
    """
    with store.reading() as connection:
        found = dict.fromkeys(
            target.key for target in load(connection, [(tenant, each) for each in request_ids])
        )
        copies = copies_of(connection, list(found))
    return [*found, *copies]


def copies_of(connection: Connection, keys: Sequence[RequestKey]) -> list[RequestKey]:
    """The records that explain these again, or explain those again, and are not among them. Cost:
    an index lookup for each.
    """
    copies: dict[RequestKey, None] = {}
    known, newest = set(keys), list(keys)
    while newest:
        children = [
            child
            for tenant in sorted({tenant for tenant, _ in newest})
            for child in _children(connection, tenant, [key for key in newest if key[0] == tenant])
            if child not in known
        ]
        newest = list(dict.fromkeys(children))
        known.update(newest)
        copies |= dict.fromkeys(newest)
    return list(copies)


def _children(
    connection: Connection, tenant: str, parents: Sequence[RequestKey]
) -> list[RequestKey]:
    query = select(events.c.request_id).where(
        events.c.tenant == tenant,
        events.c.event_type == "decision",
        events.c.parent_request_id.in_([request_id for _, request_id in parents]),
    )
    return [(tenant, request_id) for request_id in connection.scalars(query)]


def of_subject(store: EvidenceStore, tenant: str, subject: str) -> list[RequestKey]:
    """The requests about a subject, by its keyed name, whose part in them is still there.

    What the index has under that name counts only where the event itself is filed under it. Raises
    UnreadableSubjectsError for what does not say so.
    """
    gone = select(erasures.c.request_id).where(
        erasures.c.tenant == tenant,
        erasures.c.request_id == events.c.request_id,
        erasures.c.subject == subject,
    )
    query = (
        select(events.c.request_id, events.c.event_id, events.c.subjects)
        .join(event_subjects, event_subjects.c.event_id == events.c.event_id)
        .where(
            event_subjects.c.tenant == tenant,
            event_subjects.c.subject == subject,
            events.c.tenant == tenant,
            func.length(events.c.payload) > len(NOTHING),
            ~gone.correlate(events).exists(),
        )
        .order_by(events.c.received_us)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    own = [row.request_id for row in rows if is_about(row, subject)]
    return [(tenant, each) for each in dict.fromkeys(own)]


def about_subject(connection: Connection, targets: Sequence[Target], subject: str) -> list[Target]:
    """Those of which an event with content names that subject itself: what a search found them by
    is an index, and no evidence. Cost: a query for each that its decision does not settle.
    """
    return [
        each
        for each in targets
        if is_about(each, subject)
        or any(is_about(row, subject) for row in events_about(connection, [each]))
    ]


def of_model(
    store: EvidenceStore, tenant: str, model: str, period: tuple[datetime | None, datetime | None]
) -> Iterator[RequestKey]:
    """The requests to a model received in [since, until), in pages: there may be millions."""
    since, until = period
    after: tuple[int, str] | None = None
    query = select(events.c.received_us, events.c.event_id, events.c.request_id).where(
        events.c.tenant == tenant, events.c.event_type == "decision", events.c.model == model
    )
    if since is not None:
        query = query.where(events.c.received_us >= microseconds(since))
    if until is not None:
        query = query.where(events.c.received_us < microseconds(until))
    query = query.order_by(events.c.received_us, events.c.event_id).limit(_PAGE)
    while True:
        place = tuple_(events.c.received_us, events.c.event_id)
        page = query if after is None else query.where(place > tuple_(*after))
        with store.reading() as connection:
            rows = connection.execute(page).all()
        for row in rows:
            yield tenant, row.request_id
            after = row.received_us, row.event_id
        if len(rows) < _PAGE:
            break
