"""Records of past requests: found by who may read them, and watched until they are final."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Protocol

import orjson

from service.accesses import AccessKind, AccessLog
from service.admission import Admission
from service.auth import Caller
from service.disposal import check_not_expired, refusal_of
from service.errors import (
    GoneError,
    NotFoundError,
    QuarantinedError,
    QuotaExceededError,
    ServiceError,
    SpooledError,
    StoreAwayError,
    UnreadableError,
)
from service.evidence import (
    EvidenceError,
    EvidenceLog,
    InQuarantineError,
    Record,
    RequestKey,
    UnreadablePayloadError,
    WithheldError,
)
from service.http import REQUEST_ID
from service.logs import log
from service.metrics import BACKEND, Metrics
from service.queue import JobQueue, Notice
from service.quotas import Quotas

POLL_SECONDS = 1.0
"""Between two looks into the store while nobody announces anything."""

WAKE_SECONDS = 5.0
"""Between two signs of life while the queue announces, and to see that the service stops."""

UNANNOUNCED_SECONDS = 15.0
"""Between two looks of a follower meanwhile, for what nobody lived to announce: a thousand of them
that looked at each sign of life would take a tenth of a processor.
"""

MOST_FOLLOWED = 1000
"""Event streams at once in one process; each holds a connection."""

Stopping = Callable[[], bool]


class Announcements(Protocol):
    """What `service.queue` tells about one job."""

    async def wait(self, seconds: float) -> bool:
        """True when it is worth looking in the store."""
        ...

    async def next(self, seconds: float) -> Notice | None:
        """The next announcement; None when there is none for so long."""
        ...


class _Silence:
    """Announcements where there is no queue."""

    async def wait(self, seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return False

    async def next(self, seconds: float) -> Notice | None:
        await asyncio.sleep(seconds)
        return None


@dataclass(slots=True, eq=False)
class Watch:
    """Waiting holds no thread and no connection of the store's: it waits for announcements."""

    evidence: EvidenceLog
    queue: JobQueue | None
    metrics: Metrics
    accesses: AccessLog
    quotas: Quotas
    key_backup: timedelta = timedelta(0)
    followed: int = 0
    admission: Admission = field(default_factory=Admission)

    async def find(
        self, caller: Caller, request_id: str, *, what: AccessKind | None = "read"
    ) -> Record:
        """A record the caller may read: his own, or with the scope audit his tenant's. Who reads
        what another made is written down first, as `what`; None where nothing of it is shown.

        Raises NotFoundError, GoneError, QuarantinedError, StoreAwayError, SpooledError.
        """
        record = await self._known(caller, request_id)
        if not _may_read(caller, record):
            raise self._unknown(caller, request_id)
        check_not_expired(record, is_masked=bool(caller.roles))
        if what is not None and record.decision.actor != caller.principal:
            await self.accesses.note(caller, what, request_id)
        self.metrics.audit_reads.labels(BACKEND, "ok").inc()
        return record

    async def shown(self, caller: Caller, request_id: str, *, what: AccessKind = "read") -> Record:
        """As `find`, of a record whose explanation is shown. One that policy had made of the
        caller's own prediction counts for his quota, which he could else pass by not asking.

        Raises QuotaExceededError too.
        """
        record = await self.find(caller, request_id, what=what)
        is_own = record.was_unasked and record.decision.actor == caller.principal
        # A pending one may be complete by the time this answer ends, which waits for it.
        may_be_shown = record.is_pending or record.status == "complete"
        if is_own and may_be_shown and not self.quotas.was_shown(caller, request_id):
            n_rows = len(orjson.loads(record.decision.part("outputs")))
            try:
                self.quotas.take_shown(caller, request_id, n_rows)
            except QuotaExceededError as error:
                model = record.decision.model
                self.metrics.errors.labels(model, "explain", type(error).__name__).inc()
                raise
        return record

    async def _known(self, caller: Caller, request_id: str) -> Record:
        """A record of the caller's tenant. What is withheld is so from who may read it, and is as
        unknown to others as what never was.
        """
        if not REQUEST_ID.fullmatch(request_id):
            raise self._unknown(caller, request_id, "this can be no request ID")
        try:
            record = await self._stored(caller.tenant, request_id)
        except WithheldError as error:
            raise self._refusal(caller, request_id, error) from None
        if record is None and self.evidence.holds(caller.tenant, request_id):
            self.metrics.audit_reads.labels(BACKEND, "error").inc()
            raise SpooledError
        if record is None:
            raise self._unknown(caller, request_id)
        return record

    async def openable(self, caller: Caller, request_id: str) -> tuple[str, Record | None]:
        """The record whose proof the caller asks for, after its model's name; None once it was
        erased or has expired, when its headers can still be proven. Otherwise as `find`.
        """
        try:
            record = await self.shown(caller, request_id, what="proof")
        except GoneError as gone:
            header = gone.members["header"]
            assert isinstance(header, dict)
            return header["model"], None
        return record.decision.model, record

    def _refusal(self, caller: Caller, request_id: str, error: WithheldError) -> ServiceError:
        if not caller.may_read(error.actor, error.parent_request_id):
            return self._unknown(caller, request_id)
        if isinstance(error, InQuarantineError):
            self.accesses.refused(caller, QuarantinedError.status, request_id)
        self.metrics.audit_reads.labels(BACKEND, "gone").inc()
        return refusal_of(error, self.key_backup, is_masked=bool(caller.roles))

    def _unknown(
        self,
        caller: Caller,
        request_id: str,
        reason: str = "no record of this request ID can be read by this caller",
    ) -> NotFoundError:
        self.accesses.refused(caller, NotFoundError.status, request_id)
        self.metrics.audit_reads.labels(BACKEND, "not_found").inc()
        return NotFoundError(reason)

    async def known(self, caller: Caller, request_id: str) -> Record:
        """A record of the caller's tenant, whether or not he may read it: for what he says of it.

        Raises as `find`; of a record he may not read, nothing tells him that it is withheld.
        """
        record = await self._known(caller, request_id)
        if record.is_expired(datetime.now(UTC)) and not _may_read(caller, record):
            raise self._unknown(caller, request_id)
        check_not_expired(record, is_masked=bool(caller.roles))
        self.metrics.audit_reads.labels(BACKEND, "ok").inc()
        return record

    async def until_final(self, record: Record, seconds: float, is_stopping: Stopping) -> Record:
        """The record as soon as it is final, or as it is after that many seconds.

        Raises StoreAwayError, and GoneError as for somebody with a role.
        """
        deadline = monotonic() + seconds
        async with self._announced(_key(record)) as announcements:
            while True:
                current = await self._again(record)
                left = deadline - monotonic()
                if not current.is_pending or left <= 0 or is_stopping():
                    return current
                await announcements.wait(min(left, self._pause_seconds))

    async def follow(
        self, key: RequestKey, seconds: float, is_stopping: Stopping
    ) -> AsyncGenerator[Notice | Record | None, None]:
        """What happens to the record of a tenant and request ID: progress as it is announced, at
        last the final record; None every few seconds of silence. Ends without a final one after
        that many seconds. Holds no record meanwhile: it may be some megabytes.

        Raises StoreAwayError.
        """
        self.followed += 1
        try:
            async with self._announced(key) as announcements:
                deadline = monotonic() + seconds
                final = await self._final(key)
                look_at = monotonic() + self._look_seconds
                while final is None and monotonic() < deadline and not is_stopping():
                    notice = await announcements.next(min(seconds, self._pause_seconds))
                    if notice is not None and notice.kind == "progress":
                        yield notice
                        continue
                    if notice is not None or monotonic() >= look_at:
                        final = await self._final(key)
                        look_at = monotonic() + self._look_seconds
                    yield None
            if final is not None:
                yield final
        finally:
            self.followed -= 1

    @property
    def is_crowded(self) -> bool:
        """No more should be followed in this process."""
        return self.followed >= MOST_FOLLOWED

    @property
    def _is_told(self) -> bool:
        return self.queue is not None and self.queue.is_available

    @property
    def _pause_seconds(self) -> float:
        return WAKE_SECONDS if self._is_told else POLL_SECONDS

    @property
    def _look_seconds(self) -> float:
        return UNANNOUNCED_SECONDS if self._is_told else 0.0

    @asynccontextmanager
    async def _announced(self, key: RequestKey) -> AsyncIterator[Announcements]:
        with self.admission.at_rest():
            if self.queue is None:
                yield _Silence()
                return
            async with self.queue.notices.waiting(*key) as waiting:
                yield waiting

    async def _final(self, key: RequestKey) -> Record | None:
        record = await self._read(*key)
        return None if record is None or record.is_pending else record

    async def _again(self, record: Record) -> Record:
        if not record.is_pending:
            return record
        current = await self._read(*_key(record))
        return record if current is None else current

    async def _read(self, tenant: str, request_id: str) -> Record | None:
        try:
            return await self._stored(tenant, request_id)
        except WithheldError as error:
            raise refusal_of(error, self.key_backup, is_masked=True) from None

    async def _stored(self, tenant: str, request_id: str) -> Record | None:
        try:
            return await self.evidence.record(tenant, request_id)
        except WithheldError:
            raise
        except UnreadablePayloadError as error:
            self.metrics.audit_reads.labels(BACKEND, "error").inc()
            log.error("record_unreadable", request_id=request_id, reason=str(error))
            raise UnreadableError from None
        except EvidenceError:
            self.metrics.audit_reads.labels(BACKEND, "error").inc()
            raise StoreAwayError from None


def _may_read(caller: Caller, record: Record) -> bool:
    return caller.may_read(record.decision.actor, record.decision.parent_request_id)


def _key(record: Record) -> RequestKey:
    return record.decision.tenant, record.decision.request_id
