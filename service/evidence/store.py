"""The evidence database without an event loop: insert, read, probe. The CLI uses it as it is."""

import enum
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from service.databases import connect, create_file
from service.evidence import sampling
from service.evidence.engines import (
    bind_keys,
    database_url,
    prepare,
    translated_errors,
)
from service.evidence.errors import ErasedError, EventRefusedError, StoreUnavailableError
from service.evidence.events import Event, FinalEvent, Row
from service.evidence.following import PendingRequest, pending_of, select_pending
from service.evidence.inserting import Insertion
from service.evidence.listing import (
    EVERY_DECISION,
    DecisionFilter,
    ListedDecision,
    Page,
    page_of,
    select_page,
)
from service.evidence.openings import (
    ProvenEvent,
    proven_events,
    select_events,
    select_request,
)
from service.evidence.reading import (
    Record,
    RequestKey,
    StoredDecision,
    UnreadableRecord,
    erased_in,
    read_record,
    records_of,
    select_decision,
    select_records,
    stored_decision,
    unerased,
)
from service.evidence.sealing import Ready, Sealed, Sealer
from service.evidence.tables import INSERTED_COLUMNS, events, meta
from service.evidence.transactions import Transactions
from service.keystore import KeyStore

_HUNG_SECONDS = 1.0
_REQUEST = slice(INSERTED_COLUMNS.index("tenant"), INSERTED_COLUMNS.index("request_id") + 1)
_EVENT_ID = INSERTED_COLUMNS.index("event_id")
_REFUSALS_OF_VALUES = (
    DataError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    OverflowError,
    ValueError,
)
"""What drivers raise for a value they cannot store, as opposed to a store that is away."""


class AppendOutcome(enum.Enum):
    """What became of an event: durable, or refused because its request ID has a decision; where
    the store may be away, durable in the spool, or kept nowhere.
    """

    STORED = "stored"
    CONFLICT = "conflict"
    SPOOLED = "spooled"
    NOT_KEPT = "none"


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """What became of a final event: stored, or there was one; counted: its outcome is the one."""

    stored: bool
    counted: bool


Outcome = AppendOutcome | StoreUnavailableError
Outcomes = list[Outcome]


class EvidenceStore(Transactions):
    """A database of events. Safe to call from several threads, `readers` of them at once."""

    def __init__(
        self,
        writing: Engine,
        reading: Engine,
        sealer: Sealer,
        *,
        busy_timeout_seconds: float = 3.0,
    ) -> None:
        super().__init__(writing, reading)
        self.sealer = sealer
        self._bounds = _postgresql_bounds(writing, busy_timeout_seconds)
        self._insertion: Connection | None = None
        self.doomed: set[bytes] = set()
        """References that transactions of this store have doomed, and that may be keys still."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        keys: KeyStore | None = None,
        encrypts: bool = True,
        readers: int = 4,
        busy_timeout_seconds: float = 3.0,
    ) -> Self:
        """Open or create the database at a SQLAlchemy URL.

        keys: for encrypting payloads, unless encrypts is False, and for reading them; without it
        they are stored as JSON. It is not closed with this.
        busy_timeout_seconds: how long a SQLite write waits for another process's.
        Raises SchemaVersionError, StoreUnavailableError, EvidenceError for an unusable URL or the
        keys of another database.
        """
        address = database_url(url)
        if address.get_backend_name() == "sqlite":
            with translated_errors():
                create_file(Path(str(address.database)))
        # For the writer, the probe and the ledger, so that none of them waits for a reader.
        writing = connect(address, connections=3, busy_timeout_seconds=busy_timeout_seconds)
        reading = connect(address, connections=readers, busy_timeout_seconds=busy_timeout_seconds)
        sealer = Sealer(keys, encrypts=encrypts)
        store = cls(writing, reading, sealer, busy_timeout_seconds=busy_timeout_seconds)
        try:
            with translated_errors(), writing.connect() as connection:
                prepare(connection)
                if keys is not None:
                    bind_keys(connection, keys.identity)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close all connections; the last one of SQLite folds the write-ahead log back in."""
        if self._inserting.acquire(timeout=_HUNG_SECONDS):  # else its process ends it
            self._end_insertion()
            self._inserting.release()
        self._reading.dispose()
        self._writing.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, event: Event) -> AppendOutcome:
        """Store one event, durably before it returns. Raises StoreUnavailableError."""
        return _raised(*self.store([self.sealer.seal(event)]))

    def append_final(self, event: FinalEvent) -> FinalOutcome:
        """Store an explanation with its outcome, both or none. Raises StoreUnavailableError."""
        sealed = [self.sealer.seal(event), self.sealer.seal(event.counted())]
        stored, counted = map(_raised, self.store(sealed))
        return FinalOutcome(stored is AppendOutcome.STORED, counted is AppendOutcome.STORED)

    def store(self, sealed: Sequence[Sealed | Ready]) -> Outcomes:
        """As `insert`, of events that are compressed and encrypted first. The keys of what is not
        stored, and will not be, are given back.
        """
        outcomes = self.sealer.insert(sealed, self.insert)
        if outcomes.count(AppendOutcome.STORED) < len(outcomes):
            # Of events of which it is not known the whole batch says so, by raising.
            each = zip(sealed, outcomes, strict=True)
            self.give_back(one for one, outcome in each if outcome is not AppendOutcome.STORED)
        return outcomes

    def give_back(self, sealed: Iterable[Sealed | Ready]) -> None:
        """Have the keys destroyed of events that this will not store, unless the spool may have
        them too: then it is for who knows of both.
        """
        own = (one for one in sealed if isinstance(one, Sealed) and not one.may_be_spooled)
        self.sealer.give_back(own)

    def insert(self, rows: Sequence[Row]) -> Outcomes:
        """Store rows in one transaction and say of each what became of it.

        A row that the database cannot hold fails alone: the others are retried in halves. Only
        neighbours of one request fail together, so that no outcome is counted without its final.
        Raises StoreUnavailableError when the store does not work; then no row counts as stored.
        """
        with translated_errors():
            try:
                return self._insert(rows)
            except _REFUSALS_OF_VALUES as error:
                half = _middle(rows)
                if half == 0:
                    reason = type(error).__name__
                    refusal = EventRefusedError(f"the event cannot be stored ({reason})")
                    return [refusal] * len(rows)
            return self.insert(rows[:half]) + self.insert(rows[half:])

    def get(self, tenant: str, request_id: str) -> StoredDecision | None:
        """The decision of that request, None if there is none.

        Raises StoreUnavailableError, UnreadablePayloadError, ErasedError.
        """
        with translated_errors(), self._reading.connect() as connection:
            row = connection.execute(select_decision(tenant, request_id)).one_or_none()
        if row is None:
            return None
        return stored_decision(unerased(row), *self.sealer.open([row], erased=erased_in([row])))

    def record(self, tenant: str, request_id: str) -> Record | None:
        """The decision of that request with what became of it, None if there is none.

        Raises StoreUnavailableError, UnreadablePayloadError, ErasedError, InQuarantineError.
        """
        with translated_errors(), self._reading.connect() as connection:
            return read_record(connection, (tenant, request_id), self.sealer)

    def records(self, keys: Sequence[RequestKey]) -> Sequence[Record | UnreadableRecord]:
        """As `record` of several requests (up to some hundreds) in one query, in their order; one
        that cannot be opened says so alone. Unknown and erased ones are left out, those in
        quarantine are not: it is for whoever completes records, not for who shows them.
        """
        return [found for found in self._records(keys) if not isinstance(found, ErasedError)]

    def request_events(self, tenant: str, request_id: str) -> Sequence[ProvenEvent]:
        """All events about one request, as they are proven; none for an unknown one.

        Raises StoreUnavailableError, UnreadablePayloadError.
        """
        with self.reading() as connection:
            rows = connection.execute(select_request(tenant, request_id)).all()
        return proven_events(rows, self.sealer)

    def events(self, event_ids: Sequence[str]) -> Sequence[ProvenEvent]:
        """Up to some thousands of events, as they are proven, in any order; unknown ones are left
        out. Raises StoreUnavailableError, UnreadablePayloadError.
        """
        with self.reading() as connection:
            rows = connection.execute(select_events(event_ids)).all()
        return proven_events(rows, self.sealer)

    def pending(self, *, since: datetime, until: datetime, limit: int) -> Sequence[PendingRequest]:
        """The first decisions, of all tenants, received in [since, until), whose explanation is
        still to come; oldest first. Raises StoreUnavailableError.

        Cost: two index entries for each decision in that time that was ever pending, so callers
        move `since` on past those that have their end.
        """
        with translated_errors(), self._reading.connect() as connection:
            query = select_pending(since=since, until=until, limit=limit)
            rows = connection.execute(query).all()
        return [pending_of(row) for row in rows]

    def list(
        self,
        tenant: str,
        *,
        matching: DecisionFilter = EVERY_DECISION,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of decisions, newest first, that starts after the cursor.

        Following next_cursor gives every decision that was stored when the first page was read
        exactly once, however many arrive meanwhile. limit >= 1.
        Raises BadCursorError, StoreUnavailableError.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        query = select_page(tenant, matching=matching, limit=limit, cursor=cursor)
        with translated_errors(), self._reading.connect() as connection:
            rows = connection.execute(query).all()
        return page_of(rows, limit=limit)

    def sample(
        self,
        tenant: str,
        model: str,
        *,
        period: tuple[datetime, datetime],
        size: int,
        rank: sampling.Rank,
        among: sampling.Among = sampling.ALL_EXPLAINED,
    ) -> Sequence[ListedDecision]:
        """The `size` lowest-ranked explained requests received in [since, until).

        By a keyed hash of the request ID this is a uniform sample: the same on every replica and
        at every call, and a smaller one is the beginning of a larger one. Cost: 7 us for each
        explanation of that time. Raises StoreUnavailableError.
        """
        with translated_errors():
            found = sampling.explained(self._reading.connect, tenant, model, period, among)
            chosen = sampling.lowest(found, size=size, rank=rank)
            with self._reading.connect() as connection:
                return sampling.listed(connection, chosen)

    def probe(self) -> None:
        """Commit a write that carries nothing; StoreUnavailableError if the store takes none."""
        now = {"value": str(time.time_ns())}
        with translated_errors(), self._writing.connect() as connection:
            if self._bounds is not None:
                connection.exec_driver_sql(self._bounds)
            connection.execute(update(meta).where(meta.c.name == "probed_at").values(now))

    def _records(
        self, keys: Sequence[RequestKey]
    ) -> Sequence[Record | UnreadableRecord | ErasedError]:
        with translated_errors(), self._reading.connect() as connection:
            rows = connection.execute(select_records(keys)).all()
        return records_of(rows, keys, self.sealer)

    def _insert(self, rows: Sequence[Row]) -> Outcomes:
        insertion = Insertion.of(rows)
        with self._inserting:
            try:
                return self._insert_ordered(rows, insertion)
            except DBAPIError as error:
                self._end_insertion()
                if not error.connection_invalidated:
                    raise
            # The server went away since the last insert. What it did take is not taken again.
            return self._insert_ordered(rows, insertion)

    def _insert_ordered(self, rows: Sequence[Row], insertion: Insertion) -> Outcomes:
        # Kept open: opening and closing one costs a lone insert as much as SQLite itself does.
        if self._insertion is None:
            self._insertion = self._writing.connect()
            if self._bounds is not None:
                self._insertion.exec_driver_sql(self._bounds)
        connection = self._insertion
        if insertion.run(connection) == len(rows):
            return [AppendOutcome.STORED] * len(rows)
        ids = [row[_EVENT_ID] for row in rows]
        present = select(events.c.event_id).where(events.c.event_id.in_(ids))
        stored = set(connection.scalars(present))
        return [
            AppendOutcome.STORED if event_id in stored else AppendOutcome.CONFLICT
            for event_id in ids
        ]

    def _end_insertion(self) -> None:
        if self._insertion is not None:
            self._insertion.close()
            self._insertion = None


def _postgresql_bounds(engine: Engine, seconds: float) -> str | None:
    """What keeps an insert from waiting for another's lock without end, as SQLite's busy timeout
    does; only there, because making the tables may have to wait for a longer one.
    """
    if engine.dialect.name == "sqlite":
        return None
    return f"SET lock_timeout = {round(seconds * 1000)}"


def _middle(rows: Sequence[Row]) -> int:
    """The cut nearest the middle that separates no neighbours of one request, 0 without one."""
    cuts = [n for n in range(1, len(rows)) if rows[n - 1][_REQUEST] != rows[n][_REQUEST]]
    return min(cuts, key=lambda n: abs(2 * n - len(rows)), default=0)


def _raised(outcome: Outcome) -> AppendOutcome:
    if isinstance(outcome, StoreUnavailableError):
        raise outcome
    return outcome
