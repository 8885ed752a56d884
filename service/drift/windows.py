"""Tallies of an hour each, kept in the evidence database: they survive restarts, and those of all
replicas add up.
"""

import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from service.drift.baseline import Baseline
from service.drift.bins import Tally
from service.evidence import EvidenceStore
from service.evidence.events import microseconds
from service.evidence.tables import drift_windows

HOUR_US = 3_600_000_000
_KEY = ("model", "version", "started_us", "baseline", "replica")


class WindowKey(NamedTuple):
    """Which version was asked in which hour, and in whose bins that is counted."""

    model: str
    version: int
    started_us: int
    baseline: str


def hour_of(microsecond: int) -> int:
    """When the hour of a moment began."""
    return microsecond - microsecond % HOUR_US


class Counted(Protocol):
    """All that was counted for a key under one name."""

    @property
    def tally(self) -> Tally: ...
    @property
    def replica(self) -> str: ...


def save(store: EvidenceStore, windows: Mapping[WindowKey, Counted]) -> None:
    """Store all that was counted in these windows, in place of what was stored under their names
    before: doing so twice, or not knowing whether it was done, counts nothing twice.

    Raises StoreUnavailableError.
    """
    if not windows:
        return
    values = [
        {**key._asdict(), "replica": window.replica, "counts": _packed(window.tally)}
        for key, window in windows.items()
    ]
    insert = sqlite.insert if store.is_sqlite else postgresql.insert
    statement = insert(drift_windows)
    statement = statement.on_conflict_do_update(
        index_elements=_KEY, set_={"counts": statement.excluded.counts}
    )
    with store.changing(waits_for_disk=False) as connection:
        connection.execute(statement, values)


def summed(store: EvidenceStore, baseline: Baseline, since: datetime, until: datetime) -> Tally:
    """All that every replica counted in the hours that began in [since, until).

    What was counted in other bins is left out. Raises StoreUnavailableError.
    """
    own = drift_windows.c
    query = select(own.counts).where(
        own.model == baseline.model,
        own.version == baseline.version,
        own.started_us >= microseconds(since),
        own.started_us < microseconds(until),
        own.baseline == baseline.digest,
    )
    total = baseline.bins.empty()
    with store.reading() as connection:
        for (counts,) in connection.execute(query):
            total += _unpacked(counts)
    return total


def forget(store: EvidenceStore, *, before: datetime) -> int:
    """Delete windows that began earlier; how many rows. Raises StoreUnavailableError."""
    query = delete(drift_windows).where(drift_windows.c.started_us < microseconds(before))
    with store.changing(waits_for_disk=False) as connection:
        return connection.execute(query).rowcount


def look_since(now: datetime, hours: float) -> datetime:
    """From when the windows of the last so many hours begin; the oldest one is whole."""
    return now - timedelta(hours=hours, microseconds=microseconds(now) % HOUR_US)


def _packed(tally: Tally) -> bytes:
    return zlib.compress(tally.astype("<i8").tobytes(), 1)


def _unpacked(counts: bytes) -> Tally:
    return np.frombuffer(zlib.decompress(counts), dtype="<i8").astype(np.int64)
