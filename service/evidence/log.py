"""The evidence log of a running service: append durably, read without waiting for the writer."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Self, TypeVar

from service.evidence.errors import StoreUnavailableError
from service.evidence.events import (
    Answered,
    AnswerEvent,
    DecisionEvent,
    Event,
    FinalEvent,
    OutcomeEvent,
)
from service.evidence.following import PendingRequest
from service.evidence.listing import EVERY_DECISION, DecisionFilter, ListedDecision, Page
from service.evidence.reading import Record, RequestKey, StoredDecision
from service.evidence.sampling import Rank
from service.evidence.store import AppendOutcome, EvidenceStore, FinalOutcome
from service.evidence.writer import Answer, CommitObserver, GroupWriter
from service.keystore import KeyStore

_READERS = 4
_PROBE_SECONDS = 2.0

Result = TypeVar("Result")


class EvidenceLog:
    """Events of one database, for one event loop."""

    def __init__(self, store: EvidenceStore, writer: GroupWriter) -> None:
        self._store = store
        self._writer = writer
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="evidence-reader")

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        keys: KeyStore | None = None,
        encrypts: bool = True,
        observer: CommitObserver | None = None,
        queue_limit: int = 4096,
        busy_timeout_seconds: float = 3.0,
    ) -> Self:
        """Open the database at a SQLAlchemy URL (made if missing) and start the writer.

        keys, encrypts: as of `EvidenceStore.open`. Raises SchemaVersionError,
        StoreUnavailableError, EvidenceError for an unusable URL or the keys of another database.
        """
        store = await asyncio.to_thread(
            EvidenceStore.open,
            url,
            keys=keys,
            encrypts=encrypts,
            readers=_READERS,
            busy_timeout_seconds=busy_timeout_seconds,
        )
        try:
            await asyncio.to_thread(store.sealer.fill)
        except BaseException:
            store.close()
            raise
        loop = asyncio.get_running_loop()
        writer = GroupWriter(store.store, loop=loop, queue_limit=queue_limit, observer=observer)
        return cls(store, writer)

    async def close(self, *, timeout_seconds: float = 10.0) -> None:
        """Commit what was appended and finish reads, each within the timeout, then let go."""
        await self._writer.close(timeout_seconds=timeout_seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._readers.shutdown), timeout_seconds)
        await asyncio.to_thread(self._store.close)

    async def append(self, event: Event) -> AppendOutcome:
        """Return once the event is durable (STORED), or there is one of its kind about the
        request (CONFLICT).

        Cancelled while it waits, the event is stored all the same. The same event appended again
        is STORED again, once. Raises StoreBusyError at once, StoreUnavailableError when the store
        did not confirm it.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self.submit([(event, answer)])
        return await answer

    async def append_final(self, event: FinalEvent) -> FinalOutcome:
        """Store an explanation and its outcome, both or none, as `append` stores one event.

        A later final of the same request changes nothing (stored is False); the outcome of one
        counted as timed out is not counted again (counted is False).
        """
        loop = asyncio.get_running_loop()
        answers: list[Answer] = [loop.create_future(), loop.create_future()]
        seal = self._store.sealer.seal
        sealed = seal(event), seal(event.counted())
        self._writer.submit(list(zip(sealed, answers, strict=True)))
        stored, counted = await asyncio.gather(*answers)
        return FinalOutcome(stored is AppendOutcome.STORED, counted is AppendOutcome.STORED)

    async def mark_timeout(self, pending: PendingRequest, *, actor: str) -> bool:
        """Store that an explanation is late; True if this call does, and therefore counts it."""
        late = OutcomeEvent.about(pending, "timeout", actor=actor, completed_at=datetime.now(UTC))
        return await self.append(late) is AppendOutcome.STORED

    async def mark_answered(
        self, decision: DecisionEvent | StoredDecision, carried: Answered
    ) -> bool:
        """Store what the first answer carries, for replays to carry the same; False if that had
        been decided before.
        """
        status = None if carried == "final" else carried
        answered = AnswerEvent.about(
            decision, status, actor=decision.actor, completed_at=datetime.now(UTC)
        )
        return await self.append(answered) is AppendOutcome.STORED

    def submit(self, events: Sequence[tuple[Event, Answer]]) -> None:
        """Queue events for one commit; each future gets what `append` would return or raise.

        Raises StoreBusyError or StoreUnavailableError at once, for all of them.
        """
        seal = self._store.sealer.seal
        self._writer.submit([(seal(event), answer) for event, answer in events])

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call on the loop each time everything that was submitted has its outcome."""
        self._writer.call_when_idle(callback)

    async def get(self, tenant: str, request_id: str) -> StoredDecision | None:
        """The decision of that request, None if there is none. Raises StoreUnavailableError."""
        return await self._read(partial(self._store.get, tenant, request_id))

    async def record(self, tenant: str, request_id: str) -> Record | None:
        """As `EvidenceStore.record`."""
        return await self._read(partial(self._store.record, tenant, request_id))

    async def records(self, keys: Sequence[RequestKey]) -> Sequence[Record]:
        """As `EvidenceStore.records`."""
        return await self._read(partial(self._store.records, keys))

    async def pending(
        self, *, since: datetime, until: datetime, limit: int
    ) -> Sequence[PendingRequest]:
        """As `EvidenceStore.pending`."""
        return await self._read(partial(self._store.pending, since=since, until=until, limit=limit))

    async def list(
        self,
        tenant: str,
        *,
        matching: DecisionFilter = EVERY_DECISION,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """As `EvidenceStore.list`."""
        call = partial(self._store.list, tenant, matching=matching, limit=limit, cursor=cursor)
        return await self._read(call)

    async def sample(
        self,
        tenant: str,
        model: str,
        *,
        period: tuple[datetime, datetime],
        size: int,
        rank: Rank,
    ) -> Sequence[ListedDecision]:
        """As `EvidenceStore.sample`."""
        call = partial(self._store.sample, tenant, model, period=period, size=size, rank=rank)
        return await self._read(call)

    async def is_writable(self) -> bool:
        """A commit works now, and keys are left. Cost: one commit; False after 2 s without an
        answer.
        """
        if not self._writer.is_alive() or not self._store.sealer.can_seal:
            return False
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._read(self._store.probe)
        except (StoreUnavailableError, TimeoutError):
            return False
        return True

    def backlog(self) -> int:
        """How many submitted events have no outcome yet."""
        return self._writer.backlog()

    async def _read(self, call: Callable[[], Result]) -> Result:
        if not self._writer.is_alive():
            raise StoreUnavailableError("the evidence log is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)
