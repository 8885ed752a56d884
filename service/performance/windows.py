"""Tallies of an hour of decisions each, kept in the evidence database and counted anew when labels
came: a later label replaces an earlier one because the whole hour is counted again.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from service.evidence import EvidenceStore
from service.evidence.events import microseconds
from service.evidence.labelled import LabelledHour, labelled_hours, outcomes
from service.evidence.tables import performance_references, performance_windows
from service.performance.tally import Shape, Tally

RECOUNT_SECONDS = 3600.0
SMALL_HOUR = 1000
GROWN = 1.1
"""A counted hour with more labels than SMALL_HOUR is counted again when it has a tenth more, or
after an hour: else labels that trickle in would have everything opened at each look.
"""

_KEY = ("model", "version", "digest", "started_us")
_own = performance_windows.c


@dataclass(frozen=True, slots=True)
class Measured:
    """A version whose labels are counted. digest: of its manifest."""

    model: str
    version: int
    digest: str
    shape: Shape


class StaleHour(NamedTuple):
    """Whose labels are not all counted. is_counted: some are."""

    hour: LabelledHour
    own: Measured
    is_counted: bool


def stale_hours(
    store: EvidenceStore,
    find: Callable[[tuple[str, int]], Measured | None],
    *,
    since: datetime,
    now: datetime,
) -> list[StaleHour]:
    """Hours from `since` on of the versions that `find` knows: first those that were never counted,
    each in random order, so that replicas begin with different ones. Raises StoreUnavailableError.
    """
    since_us = microseconds(since)
    hours = labelled_hours(store, since_us=since_us)
    known = {version: find(version) for version in {hour[:2] for hour in hours}}
    query = select(*(_own[name] for name in (*_KEY, "label_events", "last_event", "counted_us")))
    with store.reading() as connection:
        rows = connection.execute(query.where(_own.started_us >= since_us)).all()
    counted = {row[:4]: _Counted(*row[4:]) for row in rows}
    stale = []
    for hour in hours:
        own = known[hour[:2]]
        if own is None:
            continue
        before = counted.get((*hour[:2], own.digest, hour.started_us))
        if _is_stale(hour, before, now):
            stale.append(StaleHour(hour, own, before is not None))
    random.shuffle(stale)
    return sorted(stale, key=lambda one: one.is_counted)


def recount(store: EvidenceStore, stale: StaleHour, *, rest: Callable[[], bool]) -> bool:
    """Count an hour and store that in place of what was. rest: called after each page of a hundred
    decisions; False ends it, and nothing is stored. Raises StoreUnavailableError.
    """
    tally = stale.own.shape.empty()
    for page in outcomes(store, stale.hour):
        stale.own.shape.count(page, tally)
        if not rest():
            return False
    values = {
        **stale.hour._asdict(),
        "digest": stale.own.digest,
        "counted_us": microseconds(datetime.now(UTC)),
        "counts": _packed(tally),
    }
    insert = sqlite.insert if store.is_sqlite else postgresql.insert
    statement = insert(performance_windows)
    changed = {name: statement.excluded[name] for name in values if name not in _KEY}
    statement = statement.on_conflict_do_update(index_elements=_KEY, set_=changed)
    with store.changing(waits_for_disk=False) as connection:
        connection.execute(statement, [values])
    return True


def versions(store: EvidenceStore, *, since: datetime) -> list[tuple[str, int]]:
    """Models and versions with counted hours. Raises StoreUnavailableError."""
    query = select(_own.model, _own.version).where(_own.started_us >= microseconds(since))
    with store.reading() as connection:
        return sorted({(row.model, row.version) for row in connection.execute(query)})


class Summed(NamedTuple):
    """What was counted of a time. first_us: when the first hour with labels began."""

    tally: Tally
    first_us: int | None


def summed(store: EvidenceStore, own: Measured, *, since: datetime) -> Summed:
    """All counted hours of a version from `since` on. Raises StoreUnavailableError."""
    query = (
        select(_own.started_us, _own.counts)
        .where(
            _own.model == own.model,
            _own.version == own.version,
            _own.digest == own.digest,
            _own.started_us >= microseconds(since),
        )
        .order_by(_own.started_us)
    )
    total, first = own.shape.empty(), None
    with store.reading() as connection:
        for started_us, counts in connection.execute(query):
            tally = _unpacked(counts, own.shape)
            if tally is not None:
                total += tally
                first = started_us if first is None else first
    return Summed(total, first)


def reference(store: EvidenceStore, own: Measured) -> Tally | None:
    """What later windows are compared with, None as long as there is none."""
    kept = performance_references.c
    query = select(kept.counts).where(
        kept.model == own.model, kept.version == own.version, kept.digest == own.digest
    )
    with store.reading() as connection:
        counts = connection.execute(query).scalar_one_or_none()
    return None if counts is None else _unpacked(counts, own.shape)


def keep_reference(
    store: EvidenceStore, own: Measured, tally: Tally, period: tuple[datetime, datetime]
) -> bool:
    """Freeze the reference of a version; False if there is one. Raises StoreUnavailableError."""
    since, until = map(microseconds, period)
    insert = sqlite.insert if store.is_sqlite else postgresql.insert
    values = {
        "model": own.model,
        "version": own.version,
        "digest": own.digest,
        "since_us": since,
        "until_us": until,
        "counts": _packed(tally),
    }
    statement = insert(performance_references).values(values).on_conflict_do_nothing()
    kept = statement.returning(performance_references.c.model)
    with store.changing() as connection:
        return connection.execute(kept).scalar_one_or_none() is not None


def forget(store: EvidenceStore, *, before: datetime) -> int:
    """Delete hours that began earlier; how many. Raises StoreUnavailableError."""
    query = delete(performance_windows).where(_own.started_us < microseconds(before))
    with store.changing(waits_for_disk=False) as connection:
        return connection.execute(query).rowcount


class _Counted(NamedTuple):
    label_events: int
    last_event: str
    counted_us: int


def _is_stale(hour: LabelledHour, counted: _Counted | None, now: datetime) -> bool:
    if counted is None:
        return True
    if counted[:2] == (hour.label_events, hour.last_event):
        return False
    is_small = hour.label_events < SMALL_HOUR or hour.label_events > GROWN * counted.label_events
    return is_small or microseconds(now) - counted.counted_us > RECOUNT_SECONDS * 1e6


def _packed(tally: Tally) -> bytes:
    return zlib.compress(tally.astype("<f8").tobytes(), 1)


def _unpacked(counts: bytes, shape: Shape) -> Tally | None:
    """None for a tally of another length, which another release wrote."""
    tally = np.frombuffer(zlib.decompress(counts), dtype="<f8").astype(np.float64)
    return tally if len(tally) == shape.size else None
