"""The end of what has been kept for long enough: expired records are destroyed, and counted."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, select, tuple_
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from service.accesses import Access, note
from service.disposal.destroying import Destruction, destroy, destroy_content
from service.disposal.facts import Fact, Order, tell
from service.disposal.forgetting import forget, forget_keys
from service.disposal.targets import (
    BATCH,
    DESTROYED,
    Target,
    events_about,
    is_own_decision,
    load,
)
from service.evidence import EvidenceStore, RequestKey
from service.evidence.events import idempotency_key, microseconds
from service.evidence.exclusive import exclusively
from service.evidence.tables import BESIDE, IS_BESIDE, events, holds
from service.logs import log

PURGE_GRACE = timedelta(days=2)
"""After its time a record is kept this much longer, so that a clock moved by a day destroys nothing
early.
"""

EXPIRED = "expired"
Kind = tuple[str, str, str]
"""Tenant, model and retention class."""

_FAULTS = (IntegrityError, DataError, ProgrammingError, LookupError, TypeError, ValueError)
"""What is raised for a record that cannot be purged, as opposed to a store that is away."""


@dataclass(frozen=True, slots=True)
class Purge:
    """What one run destroyed, or would: records, and answers that stood beside a record and expired
    at another time. held: expired, and kept by a hold.
    """

    purged: Mapping[Kind, int] = field(default_factory=Counter)
    held: int = 0

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.purged.values())

    def document(self) -> dict[str, object]:
        """For people and logs."""
        return {
            "purged": self.total,
            "held": self.held,
            "by_kind": [
                {"tenant": tenant, "model": model, "retention_class": name, "purged": count}
                for (tenant, model, name), count in sorted(self.purged.items())
            ],
        }


def purge(
    store: EvidenceStore,
    principal: str,
    *,
    now: datetime | None = None,
    goes_on: Callable[[float], bool] = lambda _: True,
    progress: Callable[[int], None] = lambda _: None,
) -> Purge:
    """Destroy the records whose time was over PURGE_GRACE ago and that no hold keeps.

    Headers, leaves and registered models stay. Several processes may do so at once: each batch
    excludes the others and finds what is left. What it did is counted in the access log.
    goes_on: told how long the last batch took, it waits for others, or ends the run.
    Raises StoreUnavailableError.
    """
    at = now or datetime.now(UTC)
    what = Destruction("purge", Order(principal, EXPIRED, at), store.sealer.keys)
    if not forget_keys(store, what.keys):  # what an erasure that was stopped has left
        log.warning("purge_not_forgotten")
    batches = _Batches(at, what)
    counts: Counter[Kind] = Counter()
    spent = 0.0
    try:
        while goes_on(spent):
            started = time.monotonic()
            found = batches.next(store)
            if found is None:
                break
            counts += found
            forget_keys(store, what.keys, seconds=0.0, is_all=False)
            progress(counts.total())
            spent = time.monotonic() - started
    finally:
        if counts:
            _account(store, principal, counts)
            if not forget(store):
                log.warning("purge_not_forgotten")
    return Purge(counts, _held(store, at))


class _BadBatchError(Exception):
    """Something in the batch cannot be purged."""

    def __init__(self, rows: Sequence[Row[tuple[object, ...]]]) -> None:
        super().__init__(len(rows))
        self.rows = rows


@dataclass(slots=True, eq=False)
class _Batches:
    """One run's batches. Of a batch that fails each row is tried alone, and what fails alone is
    passed over, so that it keeps nothing else.
    """

    at: datetime
    what: Destruction
    _after: tuple[int, str] | None = None
    _alone: int = 0

    def next(self, store: EvidenceStore) -> Counter[Kind] | None:
        """What the next one destroyed; None when nothing is left. Raises StoreUnavailableError."""
        limit = 1 if self._alone else BATCH
        self._alone = max(0, self._alone - 1)
        try:
            with exclusively(store) as connection:
                rows = connection.execute(_select_expired(self.at, self._after, limit)).all()
                return _purge(connection, rows, self.what, self.at) if rows else None
        except _BadBatchError as bad:
            if len(bad.rows) > 1:
                self._alone = len(bad.rows)
            else:
                (row,) = bad.rows
                self._after = row.expires_us, row.event_id
                reason = type(bad.__cause__).__name__
                log.error("purge_passed_over", event_id=row.event_id, reason=reason)
            return Counter()


def _account(store: EvidenceStore, principal: str, counts: Mapping[Kind, int]) -> None:
    """Into the access log, for each tenant; the events themselves are there already."""
    for tenant in sorted({tenant for tenant, _, _ in counts}):
        own = [
            {"model": model, "retention_class": name, "purged": count}
            for (of_tenant, model, name), count in sorted(counts.items())
            if of_tenant == tenant
        ]
        note(store, Access(kind="purge", tenant=tenant, principal=principal, facts={"kinds": own}))


def survey_purge(store: EvidenceStore, *, now: datetime | None = None) -> Purge:
    """What `purge` would do now."""
    at = now or datetime.now(UTC)
    counts: Counter[Kind] = Counter()
    after: tuple[int, str] | None = None
    while True:
        with store.reading() as connection:
            rows = connection.execute(_select_expired(at, after, BATCH)).all()
            counts += _count(connection, rows, at)
        if len(rows) < BATCH:
            return Purge(counts, _held(store, at))
        after = rows[-1].expires_us, rows[-1].event_id


def _purge(
    connection: Connection,
    rows: Sequence[Row[tuple[object, ...]]],
    what: Destruction,
    at: datetime,
) -> Counter[Kind]:
    """One batch. Raises _BadBatchError where the fault is in what is stored."""
    try:
        targets = load(connection, [*_own(rows), *_due(connection, rows, at)])
        about = events_about(connection, targets)
        destroy(connection, targets, about, what)
        done = {row.event_id for row in about}
        left = [row for row in rows if row.event_id not in done]
        destroy_content(connection, left, what.keys)
        tell(connection, _apart(connection, left, what))
        return _kinds(targets) + _kinds_beside(left)
    except _FAULTS as error:
        raise _BadBatchError(rows) from error


def _apart(
    connection: Connection, left: Sequence[Row[tuple[object, ...]]], what: Destruction
) -> list[Fact]:
    """What says that these events were destroyed apart from their record: they came later, about
    one that was gone by then, or stood beside one and ended before it.
    """
    destroyed: dict[RequestKey, list[str]] = {}
    for row in left:
        destroyed.setdefault((row.tenant, row.request_id), []).append(row.event_id)
    return [
        Fact(what.kind, each, what.order, {"destroys": sorted(destroyed[each.key]), "apart": True})
        for each in load(connection, destroyed)
    ]


def _kinds_beside(left: Sequence[Row[tuple[object, ...]]]) -> Counter[Kind]:
    """Of whole answers that stood beside a record's."""
    return Counter(
        (row.tenant, row.model, str(orjson.loads(row.header)["retention_class"]))
        for row in left
        if row.event_type == "decision" and row.idempotency_key.startswith(BESIDE)
    )


def _kinds(targets: Sequence[Target]) -> Counter[Kind]:
    return Counter((each.tenant, each.model, each.retention_class) for each in targets)


def _count(
    connection: Connection, rows: Sequence[Row[tuple[object, ...]]], at: datetime
) -> Counter[Kind]:
    """A record counts where its own decision comes by."""
    own = _own(rows)
    known = {*own, *_due(connection, rows, at)}
    left = [row for row in rows if (row.tenant, row.request_id) not in known]
    return _kinds(load(connection, own)) + _kinds_beside(left)


def _own(rows: Sequence[Row[tuple[object, ...]]]) -> list[RequestKey]:
    """The records whose own decision is among them."""
    return [(row.tenant, row.request_id) for row in rows if is_own_decision(row)]


def _due(
    connection: Connection, rows: Sequence[Row[tuple[object, ...]]], at: datetime
) -> list[RequestKey]:
    """The records of which something else is among them, and whose own decision is to go too."""
    others = {(row.tenant, row.request_id) for row in rows} - set(_own(rows))
    if not others:
        return []
    keys = [idempotency_key(*key) for key in others]
    query = select(events.c.tenant, events.c.request_id)
    found = connection.execute(query.where(events.c.idempotency_key.in_(keys), *_is_over(at)))
    return [(row.tenant, row.request_id) for row in found]


_is_held = exists().where(
    holds.c.tenant == events.c.tenant, holds.c.request_id == events.c.request_id
)


def _select_expired(
    at: datetime, after: tuple[int, str] | None, limit: int
) -> Select[tuple[object, ...]]:
    """By the index of what still has content; those under a hold are passed over each time."""
    query: Select[tuple[object, ...]] = select(
        *DESTROYED, events.c.model, events.c.expires_us
    ).where(*_is_over(at), ~_is_held)
    if after is not None:
        query = query.where(tuple_(events.c.expires_us, events.c.event_id) > tuple_(*after))
    return query.order_by(events.c.expires_us, events.c.event_id).limit(limit)


def _is_over(at: datetime) -> tuple[ColumnElement[bool], ...]:
    cutoff = microseconds(at - PURGE_GRACE)
    return events.c.expires_us < cutoff, events.c.payload.is_not(None)


def _held(store: EvidenceStore, at: datetime) -> int:
    query = select(func.count()).where(
        *_is_over(at), _is_held, events.c.event_type == "decision", ~IS_BESIDE
    )
    with store.reading() as connection:
        return connection.execute(query).scalar_one()
