"""What comes back from the evidence store of one request: its decision and what followed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Literal, TypeVar, cast

import orjson
from sqlalchemy import (
    Connection,
    Row,
    ScalarSelect,
    Select,
    exists,
    func,
    literal_column,
    select,
)

from service.evidence.errors import ErasedError, InQuarantineError, UnreadablePayloadError
from service.evidence.events import (
    EPOCH,
    Answered,
    FinalStatus,
    HeaderTemplate,
    Lane,
    Parts,
    Status,
    idempotency_key,
)
from service.evidence.sealing import Sealer
from service.evidence.tables import (
    ALL_ERASED,
    INSERTED_COLUMNS,
    SOMETHING_ERASED,
    erasures,
    events,
    holds,
    log_entries,
)
from service.evidence.unsealing import Unsealed

Hold = Literal["hold", "quarantine"]

RequestKey = tuple[str, str]
"""Tenant and request ID."""

_OF_A_RECORD = ("decision", "explanation", "answer")


@dataclass(frozen=True, slots=True)
class _Stored:
    """record_key: that of the commitment; empty where the payload is in several sections."""

    event_id: str
    tenant: str
    request_id: str
    parent_request_id: str | None
    actor: str
    subjects: str | None
    model: str
    version: int
    status: str | None
    lane: Lane | None
    received_at: datetime
    expires_at: datetime | None
    record_key: bytes
    header: bytes
    payload: bytes
    parts: Parts
    is_parted: bool = False  # erased as far as it was about somebody

    def part(self, name: str) -> bytes:
        """The exact bytes stored under that name; KeyError if the event has no such part."""
        start, end = self.parts[name]
        return self.payload[start:end]

    @property
    def template(self) -> HeaderTemplate:
        """For the headers of later events about the request. Cost: about 20 us."""
        return HeaderTemplate.from_header(self.header)


@dataclass(frozen=True, slots=True)
class StoredDecision(_Stored):
    """A decision as it was stored: the bytes themselves and the columns they were filed under."""

    status: Status | None


@dataclass(frozen=True, slots=True)
class StoredFinal(_Stored):
    """The explanation that a pending decision got later."""

    status: FinalStatus


@dataclass(frozen=True, slots=True)
class StoredRepeatable(_Stored):
    """What was told of a request later, as it was stored: feedback, labels, counterfactuals."""


Kind = TypeVar("Kind", bound=_Stored)


@dataclass(frozen=True, slots=True)
class Record:
    """One request's decision and what became of it.

    final: None where nothing is pending, and as long as it is.
    hold: the strictest one it is under.
    answered: what the first answer to the client carried, its `final` explanation or a `pending`
    one; None while that is open, or where it was never in question.
    is_sequenced: its events have their places in the log.
    """

    decision: StoredDecision
    final: StoredFinal | None
    answered: Answered | None
    hold: Hold | None = None
    is_sequenced: bool = False

    @property
    def key(self) -> RequestKey:
        """Its request."""
        return self.decision.tenant, self.decision.request_id

    def is_expired(self, now: datetime) -> bool:
        """Its time is over, and nothing keeps it."""
        expires_at = self.decision.expires_at
        return self.hold is None and expires_at is not None and expires_at <= now

    @property
    def status(self) -> Status | None:
        """Of the explanation, by now."""
        return self.decision.status if self.final is None else self.final.status

    @property
    def is_pending(self) -> bool:
        """Its explanation is still to come."""
        return self.status == "pending"

    @property
    def was_unasked(self) -> bool:
        """Policy had its explanation made, of a prediction that came without."""
        if self.decision.parent_request_id is None or "ask" not in self.decision.parts:
            return False
        return bool(orjson.loads(self.decision.part("ask"))["priority"] == "low")

    @property
    def was_counted(self) -> bool:
        """That its explanation is wanted has been counted where it was asked for."""
        ask = self.decision.part("ask") if "ask" in self.decision.parts else b"{}"
        return bool(orjson.loads(ask).get("is_counted", True))

    def part(self, name: str) -> bytes:
        """The final event's bytes where it has them, else the decision's; KeyError for neither."""
        if self.final is not None and name in self.final.parts:
            return self.final.part(name)
        return self.decision.part(name)


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """One request whose payloads cannot be opened: what the columns of its decision tell.

    reason: what is wrong, without any content.
    """

    tenant: str
    request_id: str
    parent_request_id: str | None
    subjects: str | None
    received_at: datetime
    header: bytes
    is_pending: bool
    reason: str

    @property
    def key(self) -> RequestKey:
        """Its request."""
        return self.tenant, self.request_id

    @property
    def was_counted(self) -> bool:
        """As `Record.was_counted`."""
        return bool((orjson.loads(self.header).get("ask") or {}).get("is_counted", True))


def select_decision(tenant: str, request_id: str) -> Select[tuple[object, ...]]:
    """The query for one decision, all columns."""
    key = idempotency_key(tenant, request_id)
    return select(events, SOMETHING_ERASED, ALL_ERASED).where(events.c.idempotency_key == key)


def select_records(keys: Iterable[RequestKey]) -> Select[tuple[object, ...]]:
    """The query for the decisions of these requests and what a Record needs beside them."""
    wanted = [idempotency_key(*key, event_type) for key in keys for event_type in _OF_A_RECORD]
    place = exists().where(
        log_entries.c.log == literal_column("'evidence'"),
        log_entries.c.event_id == events.c.event_id,
    )
    query: Select[tuple[object, ...]] = select(
        events,
        SOMETHING_ERASED,
        ALL_ERASED,
        place.label("is_sequenced"),
        _strictest_hold().label("hold"),
    )
    return query.where(events.c.idempotency_key.in_(wanted))


def _strictest_hold() -> ScalarSelect[str]:
    """By the primary key of a small table; `quarantine` comes after `hold` in the alphabet."""
    found = select(func.max(holds.c.kind)).where(
        holds.c.tenant == events.c.tenant, holds.c.request_id == events.c.request_id
    )
    return found.correlate(events).scalar_subquery()


def as_queried(values: Sequence[object]) -> Row[tuple[object, ...]]:
    """A row to insert as one that a query gives: its values by name."""
    named = SimpleNamespace(**dict(zip(INSERTED_COLUMNS, values, strict=True)))
    return cast("Row[tuple[object, ...]]", named)


def stored_decision(row: Row[tuple[object, ...]], unsealed: Unsealed | None) -> StoredDecision:
    """A row of `select_decision` with its payload. Raises ErasedError where that is None."""
    return _stored(StoredDecision, row, unsealed)


def unerased(row: Row[tuple[object, ...]]) -> Row[tuple[object, ...]]:
    """The decision's row itself. Raises ErasedError where the record was erased as a whole: what
    stands there all the same was put back.
    """
    if row.is_all_erased:
        raise ErasedError(row.header)
    return row


def read_record(connection: Connection, key: RequestKey, sealer: Sealer) -> Record | None:
    """The record of one request, None if there is none.

    Raises ErasedError, InQuarantineError, and as `records_of`.
    """
    rows = connection.execute(select_records([key])).all()
    decision = next((row for row in rows if row.event_type == "decision"), None)
    if decision is None:
        return None
    if decision.payload is None or decision.is_all_erased:
        raise _erased(connection, decision, key)
    if decision.hold == "quarantine":
        raise InQuarantineError(decision.header)
    (found,) = records_of(rows, [key], sealer)
    if isinstance(found, ErasedError):
        raise found
    if isinstance(found, UnreadableRecord):
        raise UnreadablePayloadError(found.reason)
    return found


def _erased(
    connection: Connection, decision: Row[tuple[object, ...]], key: RequestKey
) -> ErasedError:
    tenant, request_id = key
    wanted = select(erasures.c.kind, erasures.c.erased_us).where(
        erasures.c.tenant == tenant,
        erasures.c.request_id == request_id,
        erasures.c.subject == "",
    )
    stands = connection.execute(wanted).one_or_none()
    kind, at = (None, None) if stands is None else (stands.kind, moment_of(stands.erased_us))
    return ErasedError(decision.header, kind=kind, at=at)


def stored_repeatable(row: Row[tuple[object, ...]], unsealed: Unsealed | None) -> StoredRepeatable:
    """A row of `told_of` with its payload. Raises ErasedError where that is None."""
    return _stored(StoredRepeatable, row, unsealed)


def records_of(
    rows: Sequence[Row[tuple[object, ...]]], keys: Iterable[RequestKey], sealer: Sealer
) -> list[Record | UnreadableRecord | ErasedError]:
    """The records in `select_records`' rows, in the order of the keys, without unknown ones.

    Raises StoreUnavailableError, and UnreadablePayloadError where none could be read.
    """
    each = sealer.open_each(rows, erased=erased_in(rows))
    opened = dict(zip((row.event_id for row in rows), each, strict=True))
    found = {(row.tenant, row.request_id, row.event_type): row for row in rows}
    records: list[Record | UnreadableRecord | ErasedError] = []
    for key in keys:
        decision, final, answer = (found.get((*key, name)) for name in _OF_A_RECORD)
        if decision is None:
            continue
        try:
            told = stored_decision(unerased(decision), _readable(opened[decision.event_id]))
            explained = None
            if final is not None:
                explained = _stored(StoredFinal, final, _readable(opened[final.event_id]))
            is_sequenced = bool(decision.is_sequenced and (final is None or final.is_sequenced))
            record = Record(told, explained, _answered(answer), decision.hold, is_sequenced)
            records.append(record)
        except ErasedError as error:
            records.append(error)
        except UnreadablePayloadError as error:
            is_pending = final is None and decision.status == "pending"
            records.append(_unreadable(decision, is_pending=is_pending, reason=str(error)))
    return records


def erased_in(rows: Iterable[Row[tuple[object, ...]]]) -> frozenset[str]:
    """The IDs of events that may lack keys, of a query with SOMETHING_ERASED."""
    return frozenset(row.event_id for row in rows if row.is_erased)


def _readable(found: Unsealed | UnreadablePayloadError | None) -> Unsealed | None:
    if isinstance(found, UnreadablePayloadError):
        raise found
    return found


def _unreadable(
    decision: Row[tuple[object, ...]], *, is_pending: bool, reason: str
) -> UnreadableRecord:
    return UnreadableRecord(
        tenant=decision.tenant,
        request_id=decision.request_id,
        parent_request_id=decision.parent_request_id,
        subjects=decision.subjects,
        received_at=moment_of(decision.received_us),
        header=decision.header,
        is_pending=is_pending,
        reason=reason,
    )


def moment_of(microseconds: int) -> datetime:
    """The time so many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=microseconds)


def _answered(row: Row[tuple[object, ...]] | None) -> Answered | None:
    if row is None:
        return None
    return "final" if row.status is None else "pending"


def _stored(kind: type[Kind], row: Row[tuple[object, ...]], unsealed: Unsealed | None) -> Kind:
    if unsealed is None:
        raise ErasedError(row.header)
    return kind(
        event_id=row.event_id,
        tenant=row.tenant,
        request_id=row.request_id,
        parent_request_id=row.parent_request_id,
        actor=row.actor,
        subjects=row.subjects,
        model=row.model,
        version=row.version,
        status=row.status,
        lane=row.lane,
        received_at=moment_of(row.received_us),
        expires_at=None if row.expires_us is None else moment_of(row.expires_us),
        record_key=unsealed.record_key,
        header=row.header,
        payload=unsealed.payload,
        parts=unsealed.parts,
        is_parted=None in unsealed.sections,
    )
