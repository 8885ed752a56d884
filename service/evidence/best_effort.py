"""Events whose answer may leave without the store: to the store first, to the spool instead."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from service.evidence.errors import (
    EventRefusedError,
    NothingWrittenError,
    StoreBusyError,
    StoreUnavailableError,
)
from service.evidence.events import Event, idempotency_key
from service.evidence.sealing import Ready, Sealed
from service.evidence.spool import Spool
from service.evidence.store import AppendOutcome
from service.evidence.writer import Answer, CommitObserver, EventWriter, Pending
from service.logs import log

_SILENT = "it has not answered in time"


class SpoolObserver(CommitObserver, Protocol):
    """Told of commits to the spool, and of what becomes of events that are or should be there."""

    def on_not_kept(self) -> None:
        """An event is neither in the store nor in the spool."""
        ...

    def on_damaged(self) -> None:
        """A file of the spool is damaged and put aside. Called by any thread."""
        ...

    def on_drained(self, stored: int, twins: int, refused: int, erased: int) -> None:
        """So many events are in the store now, of them so many beside another process's answer to
        the same request; so many the store does not take for what they are, and so many no more as
        what they are about was erased meanwhile.
        """
        ...


@dataclass(slots=True, eq=False)
class _Claim:
    """An event on its way into store or spool, and who waits for it.

    may_be_stored, may_be_spooled: it has been given to it, which has not said that it has it not.
    """

    sealed: Sealed
    answer: Answer
    stored: Answer
    is_diverted: bool = False
    may_be_stored: bool = False
    may_be_spooled: bool = False

    @property
    def key(self) -> str:
        event = self.sealed.event
        return idempotency_key(event.tenant, event.request_id, event.event_type)


class BestEffort:
    """Gives every event an outcome soon: STORED or CONFLICT by the store, SPOOLED, or NOT_KEPT.

    After a failure of the store, or a long silence, events go straight to the spool until
    `resume`. One that is in both places in the end is stored once, by its event ID. Belongs to one
    event loop.
    """

    def __init__(
        self,
        store: EventWriter,
        spooling: EventWriter,
        spool: Spool,
        *,
        give_back: Callable[[Iterable[Sealed]], None],
        observer: SpoolObserver | None = None,
    ) -> None:
        """give_back: told what is neither in the store nor in the spool, nor will be."""
        self._give_back = give_back
        self._observer = observer
        self._store = store
        self._spooling = spooling
        self._spool = spool
        self._claims: dict[str, _Claim] = {}
        self.is_diverting = False
        """The store is passed by."""

        self.on_need = asyncio.Event()
        """Set when the store begins to be passed by, and when something has been spooled."""

        store.call_when_slow(self._on_slow)

    def submit(self, sealed: Sequence[tuple[Sealed, Answer]]) -> None:
        """Queue sealed events; each future gets its outcome, and no exception.

        An event about a request that has one here, on its way or spooled, is in CONFLICT.
        """
        loop = asyncio.get_running_loop()
        claims = []
        for one, answer in sealed:
            claim = _Claim(one, answer, loop.create_future())
            key = claim.key
            if key in self._claims or self._spool.holds(key):
                self._give_back([one])
                _tell(answer, AppendOutcome.CONFLICT)
                continue
            self._claims[key] = claim
            claims.append(claim)
        if self._store.is_slow:
            self._open(_SILENT)
        if self.is_diverting:
            self._divert(claims)
            return
        try:
            self._store.submit([(claim.sealed, claim.stored) for claim in claims])
        except (StoreBusyError, StoreUnavailableError) as error:
            self._open(str(error))
            self._divert(claims)
            return
        for claim in claims:
            claim.may_be_stored = True
            claim.stored.add_done_callback(partial(self._on_outcome, claim))

    def is_claimed(self, key: str) -> bool:
        """An event of this idempotency key is on its way."""
        return key in self._claims

    def resume(self) -> None:
        """The store works: events go there first again."""
        if self.is_diverting:
            self.is_diverting = False
            log.info("evidence_store_back", spooled=self._spool.records())

    def _on_slow(self) -> None:
        if any(not claim.stored.done() for claim in self._claims.values()):
            self._open(_SILENT)

    def _on_outcome(self, claim: _Claim, stored: Answer) -> None:
        error = stored.exception()
        if error is None:
            claim.may_be_stored = stored.result() is AppendOutcome.STORED
            self._end(claim, stored.result())
            return
        claim.may_be_stored = not isinstance(error, NothingWrittenError)
        if isinstance(error, EventRefusedError):
            self._lose(claim, error)  # it would never leave the spool
            return
        self._open(str(error))
        if claim.is_diverted:  # the spool says what becomes of it, or has
            self._settle(claim)
        else:
            self._divert([claim])

    def _open(self, reason: str) -> None:
        """Pass the store by from now on; what waits for it is spooled."""
        if self.is_diverting:
            return
        self.is_diverting = True
        log.warning("evidence_store_passed_by", reason=reason)
        self.on_need.set()
        self._divert([claim for claim in self._claims.values() if not claim.stored.done()])

    def _divert(self, claims: Sequence[_Claim]) -> None:
        loop = asyncio.get_running_loop()
        spooled: list[Pending[Sealed | Ready]] = []
        claims = [claim for claim in claims if not claim.is_diverted]
        for claim in claims:
            claim.is_diverted = True
            claim.may_be_spooled = True
            answer: Answer = loop.create_future()
            answer.add_done_callback(partial(self._on_spooled, claim))
            spooled.append((claim.sealed, answer))
        try:
            self._spooling.submit(spooled)
        except (StoreBusyError, StoreUnavailableError) as error:
            for claim in claims:
                claim.may_be_spooled = False
                self._lose(claim, error)

    def _on_spooled(self, claim: _Claim, spooled: Answer) -> None:
        error = spooled.exception()
        if error is None:
            self._end(claim, spooled.result())
            self.on_need.set()
        else:
            claim.may_be_spooled = not isinstance(error, NothingWrittenError)
            self._lose(claim, error)

    def lose(self, event: Event, answer: Answer, error: BaseException) -> None:
        """Say that an event is kept nowhere."""
        log.error("evidence_not_kept", event_id=event.event_id, reason=str(error))
        if self._observer is not None:
            self._observer.on_not_kept()
        _tell(answer, AppendOutcome.NOT_KEPT)

    def _lose(self, claim: _Claim, error: BaseException) -> None:
        if self._is_open(claim):  # else its outcome has been told
            self.lose(claim.sealed.event, claim.answer, error)
        self._end(claim, AppendOutcome.NOT_KEPT)

    def _end(self, claim: _Claim, outcome: AppendOutcome) -> None:
        if self._is_open(claim):
            del self._claims[claim.key]
        self._settle(claim)
        _tell(claim.answer, outcome)

    def _is_open(self, claim: _Claim) -> bool:
        """Nothing has been said of it yet."""
        return self._claims.get(claim.key) is claim

    def _settle(self, claim: _Claim) -> None:
        """Give its keys back once neither has it."""
        if not claim.may_be_stored and not claim.may_be_spooled:
            self._give_back([claim.sealed])


def _tell(answer: Answer, outcome: AppendOutcome) -> None:
    if not answer.done():  # the client may have gone away
        answer.set_result(outcome)
