"""The evidence log of a running service: append durably, read without waiting for the writer."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Self, TypeVar

from service.evidence.counterfactuals import counterfactuals_of
from service.evidence.errors import StoreBusyError, StoreUnavailableError
from service.evidence.events import (
    Answered,
    AnswerEvent,
    DecisionEvent,
    Event,
    FinalEvent,
    OutcomeEvent,
    Row,
    idempotency_key,
)
from service.evidence.exclusive import insert_accesses
from service.evidence.following import PendingRequest
from service.evidence.listing import EVERY_DECISION, DecisionFilter, ListedDecision, Page
from service.evidence.reading import (
    Record,
    RequestKey,
    StoredDecision,
    StoredRepeatable,
    UnreadableRecord,
)
from service.evidence.sampling import ALL_EXPLAINED, Among, Rank
from service.evidence.sealing import ROOM_BYTES
from service.evidence.spooling import Spooling, SpoolState
from service.evidence.store import AppendOutcome, EvidenceStore, FinalOutcome
from service.evidence.votes import votes_of
from service.evidence.writer import Answer, CommitObserver, EventWriter, GroupWriter
from service.keystore import KeyStore

_READERS = 4
_PROBE_SECONDS = 2.0
_READ_SECONDS = 5.0
"""For one record; a listing over millions may take longer."""

_ANSWER_SECONDS = 2.0
"""Beyond the wait for another's lock, after which an insert has failed for who waits for it."""

_SEALED_TOGETHER = 64
"""Events appended in one turn that reach the writer together: it commits them during the next."""

Result = TypeVar("Result")


class EvidenceLog:
    """Events of one database, for one event loop."""

    def __init__(
        self,
        store: EvidenceStore,
        writer: EventWriter,
        access_writer: GroupWriter[Row],
    ) -> None:
        self._store = store
        self._writer = writer
        self._access_writer = access_writer
        writer.call_when_slow(self._tell_idle)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="evidence-reader")
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="evidence-probe")
        self._probing: asyncio.Future[None] | None = None
        self._on_idle: list[Callable[[], None]] = []
        self._spooling: Spooling | None = None
        self._appended: list[tuple[Event, Answer]] = []

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
        overdue_seconds = busy_timeout_seconds + _ANSWER_SECONDS
        writer = GroupWriter(
            store.store,
            loop=loop,
            queue_limit=queue_limit,
            observer=observer,
            overdue_seconds=overdue_seconds,
        )
        return cls(store, writer, _access_writer(store, loop, queue_limit, overdue_seconds))

    async def start_spooling(self, spooling: Spooling) -> None:
        """Have events of best effort spooled when need be, and what is in the spool stored."""
        await spooling.start(self._writer, self._store, self.is_writable)
        self._spooling = spooling

    async def close(self, *, timeout_seconds: float = 10.0) -> None:
        """Commit what was appended and finish reads, each within the timeout, then let go."""
        self._submit_appended()
        self._store.give_back(await self._writer.close(timeout_seconds=timeout_seconds))
        await self._access_writer.close(timeout_seconds=timeout_seconds)
        if self._spooling is not None:  # what the store did not take is spooled
            await self._spooling.close(timeout_seconds=timeout_seconds)
        self._prober.shutdown(wait=False)
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
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        if not self._appended:
            loop.call_soon(self._submit_appended)
        self._appended.append((event, answer))
        return await answer

    def _submit_appended(self) -> None:
        """What was appended in one turn of the loop: sealed together it costs half as much, as the
        writer does not take the interpreter's lock between one event and the next.
        """
        appended, self._appended = self._appended, []
        for start in range(0, len(appended), _SEALED_TOGETHER):
            self._submit_or_tell(appended[start : start + _SEALED_TOGETHER])

    def _submit_or_tell(self, events: Sequence[tuple[Event, Answer]]) -> None:
        """`submit`, but who waits is told what it raises; an event that cannot be sealed at all
        fails alone.
        """
        try:
            self.submit(events)
        except Exception as error:  # noqa: BLE001 - nobody but these can be told
            if len(events) > 1 and not isinstance(error, (StoreBusyError, StoreUnavailableError)):
                for each in events:
                    self._submit_or_tell([each])
                return
            for _, answer in events:
                if not answer.done():
                    answer.set_exception(error)

    async def append_final(self, event: FinalEvent) -> FinalOutcome:
        """Store an explanation and its outcome, both or none, as `append` stores one event.

        A later final of the same request changes nothing (stored is False); the outcome of one
        counted as timed out is not counted again (counted is False).
        """
        loop = asyncio.get_running_loop()
        answers: list[Answer] = [loop.create_future(), loop.create_future()]
        self.submit(list(zip((event, event.counted()), answers, strict=True)))
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
        sealer, room = self._store.sealer, ROOM_BYTES
        sealed = []
        try:
            for event, answer in events:
                sealed.append((sealer.seal(event, room=room), answer))
                room -= len(event.payload)
            self._writer.submit(sealed)
        except Exception:
            sealer.give_back(one for one, _ in sealed)
            raise

    async def append_access(self, row: Row) -> None:
        """Return once an entry of the access log is durable; those of the same moment share a
        commit. Raises StoreBusyError, StoreUnavailableError.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._access_writer.submit([(row, answer)])
        await answer

    def submit_best_effort(self, events: Sequence[tuple[Event, Answer]]) -> None:
        """As `submit`, of events that are spooled (SPOOLED) when the store does not take them soon,
        or kept nowhere (NOT_KEPT) where that fails too; raises nothing. Without a spool it is
        `submit`.
        """
        if self._spooling is None:
            self.submit(events)
        else:
            self._spooling.submit(events)

    async def append_best_effort(self, event: Event) -> AppendOutcome:
        """As `append`, by `submit_best_effort`."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self.submit_best_effort([(event, answer)])
        return await answer

    def holds(self, tenant: str, request_id: str) -> bool:
        """A decision about that request is on its way into store or spool, or waits in the spool.
        Cost: 1 us.
        """
        key = idempotency_key(tenant, request_id)
        return self._spooling is not None and self._spooling.holds(key)

    async def spooled(self, tenant: str, request_id: str) -> StoredDecision | None:
        """The decision of that request that waits in the spool, None if none does."""
        if self._spooling is None or not self.holds(tenant, request_id):
            return None
        key = idempotency_key(tenant, request_id)
        return await asyncio.to_thread(self._spooling.decision, key)

    @property
    def spool(self) -> SpoolState | None:
        """How it is about the spool; None without one."""
        return None if self._spooling is None else self._spooling.state()

    def call_when_drained(self, callback: Callable[[datetime], None]) -> None:
        """Call on the loop with the time of receipt of the oldest of some events that have come
        from the spool into the store, later than events do otherwise.
        """
        if self._spooling is not None:
            self._spooling.call_when_drained(callback)

    @property
    def is_slow(self) -> bool:
        """Events wait for the store so long that none should wait for their end."""
        return self._writer.is_slow

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call on the loop each time everything that was submitted has its outcome, and while that
        takes too long to wait for.
        """
        self._on_idle.append(callback)
        self._writer.call_when_idle(callback)

    def _tell_idle(self) -> None:
        for callback in self._on_idle:
            callback()

    async def get(self, tenant: str, request_id: str) -> StoredDecision | None:
        """The decision of that request, None if there is none. Raises StoreUnavailableError."""
        return await self._read_soon(partial(self._store.get, tenant, request_id))

    async def record(self, tenant: str, request_id: str) -> Record | None:
        """As `EvidenceStore.record`."""
        return await self._read_soon(partial(self._store.record, tenant, request_id))

    async def records(self, keys: Sequence[RequestKey]) -> Sequence[Record | UnreadableRecord]:
        """As `EvidenceStore.records`."""
        return await self._read(partial(self._store.records, keys))

    async def votes(self, decision: StoredDecision) -> Sequence[StoredRepeatable]:
        """As `votes_of`."""
        return await self._read(partial(votes_of, self._store, decision))

    async def counterfactuals(self, decision: StoredDecision) -> Sequence[StoredRepeatable]:
        """As `counterfactuals_of`."""
        return await self._read(partial(counterfactuals_of, self._store, decision))

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
        among: Among = ALL_EXPLAINED,
    ) -> Sequence[ListedDecision]:
        """As `EvidenceStore.sample`."""
        drawn = partial(self._store.sample, tenant, model, period=period, size=size, rank=rank)
        call = partial(drawn, among=among)
        return await self._read(call)

    @property
    def store(self) -> EvidenceStore:
        """The database itself, for parts that have threads of their own; closed with this."""
        return self._store

    async def read(self, call: Callable[[EvidenceStore], Result]) -> Result:
        """What the call reads, in one of the threads for reading."""
        return await self._read(partial(call, self._store))

    async def is_writable(self) -> bool:
        """A commit works now, and keys are left. Cost: one commit; False after 2 s without an
        answer.
        """
        if not self._writer.is_alive() or not self._store.sealer.can_seal:
            return False
        if self._probing is None or self._probing.done():
            # One at a time, in a thread of its own: a store that hangs holds up no reader.
            loop = asyncio.get_running_loop()
            self._probing = loop.run_in_executor(self._prober, self._store.probe)
            self._probing.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await asyncio.shield(self._probing)
        except (StoreUnavailableError, TimeoutError):
            return False
        return True

    def backlog(self) -> int:
        """How many submitted events have no outcome yet."""
        return self._writer.backlog()

    async def _read_soon(self, call: Callable[[], Result]) -> Result:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await self._read(call)
        except TimeoutError:
            raise StoreUnavailableError("the evidence store does not answer") from None

    async def _read(self, call: Callable[[], Result]) -> Result:
        if not self._writer.is_alive():
            raise StoreUnavailableError("the evidence log is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)


def _look_at(probing: asyncio.Future[None]) -> None:
    """Its error has been seen, also where nobody waits for the probe any more."""
    if not probing.cancelled():
        probing.exception()


def _access_writer(
    store: EvidenceStore,
    loop: asyncio.AbstractEventLoop,
    queue_limit: int,
    overdue_seconds: float,
) -> GroupWriter[Row]:
    return GroupWriter(
        partial(insert_accesses, store),
        loop=loop,
        queue_limit=queue_limit,
        name="access-writer",
        overdue_seconds=overdue_seconds,
    )
