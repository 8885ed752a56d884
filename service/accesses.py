"""Who has looked: the access log, written before what was asked for leaves.

An entry is a header without personal data and without content; the ledger gives it a place in the
log `access`.
"""

import asyncio
import getpass
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import orjson
from sqlalchemy import Select, select, tuple_

from service.auth import Caller
from service.errors import StoreAwayError
from service.evidence import EvidenceError, EvidenceLog, EvidenceStore
from service.evidence.events import HEADER_VERSION, Row, microseconds
from service.evidence.exclusive import insert_accesses
from service.evidence.tables import accesses
from service.logs import log
from service.secrets import Keyring
from service.uuid7 import uuid7

AccessKind = Literal[
    "read",
    "list",
    "review",
    "cost",
    "proof",
    "importance",
    "checkpoint",
    "replay",
    "explain_again",
    "counterfactual",
    "export",
    "compare",
    "hold",
    "release",
    "quarantine",
    "erasure",
    "purge",
    "rollback",
    "refused",
]
ALL_TENANTS = "*"
"""Stands for the tenant where a command is about what belongs to all of them."""

MOST_NAMED = 20
"""Unknown IDs told of one principal and minute; all are counted."""

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One look at evidence, or one deed with it. facts: what else is said, nothing personal."""

    kind: AccessKind
    tenant: str
    principal: str
    request_id: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    event_id: str = field(default_factory=uuid7)

    def row(self) -> Row:
        """The row to insert."""
        own = {
            "schema_version": HEADER_VERSION,
            "event_id": self.event_id,
            "event_type": f"access/{self.kind}",
            "at": self.at,
            "tenant": self.tenant,
            "principal": self.principal,
            "request_id": self.request_id,
            **self.facts,
        }
        header = orjson.dumps(own, option=orjson.OPT_UTC_Z)
        at_us = microseconds(self.at)
        return (
            self.event_id,
            self.tenant,
            self.principal,
            self.request_id,
            self.kind,
            at_us,
            header,
        )


def note(store: EvidenceStore, access: Access) -> None:
    """Store an entry, durably before it returns. Raises StoreUnavailableError: then nothing may
    leave.
    """
    insert_accesses(store, [access.row()])


def person_at_the_machine() -> str:
    """The principal of commands: who runs them, as the operating system knows him."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli:unknown"


def at_the_machine(
    kind: AccessKind, tenant: str, request_id: str | None = None, **facts: object
) -> Access:
    """What somebody does by command."""
    return Access(
        kind=kind,
        tenant=tenant,
        principal=person_at_the_machine(),
        request_id=request_id,
        facts={"auth_method": "os", **facts},
    )


@dataclass(slots=True, eq=False)
class _Refusals:
    count: int = 0
    ids: dict[str, None] = field(default_factory=dict)


_Refused = tuple[str, str, int, datetime]
"""Tenant, principal, status and minute."""


class AccessLog:
    """The access log of a running service; for one event loop."""

    def __init__(self, evidence: EvidenceLog, keyring: Keyring) -> None:
        self._evidence = evidence
        self._keyring = keyring
        self._refused: dict[_Refused, _Refusals] = {}

    async def note(
        self,
        caller: Caller,
        kind: AccessKind,
        request_id: str | None = None,
        **facts: object,
    ) -> None:
        """Return once the entry is durable; StoreAwayError if it is not: then nothing may leave."""
        access = Access(
            kind=kind,
            tenant=caller.tenant,
            principal=caller.principal,
            request_id=request_id,
            facts={"auth_method": caller.auth_method, **facts},
        )
        try:
            await self._evidence.append_access(access.row())
        except EvidenceError as error:
            log.warning("access_not_logged", kind=kind, reason=str(error))
            raise StoreAwayError("the access log cannot be written, so nothing is shown") from None

    def refused(self, caller: Caller, status: int, request_id: str | None = None) -> None:
        """Count a refusal; it is told with the others of its principal and minute. The ID asked
        for is kept as a keyed hash, for it may be anything.
        """
        minute = datetime.now(UTC).replace(second=0, microsecond=0)
        key = (caller.tenant, caller.principal, status, minute)
        refusals = self._refused.setdefault(key, _Refusals())
        refusals.count += 1
        if request_id is not None and len(refusals.ids) < MOST_NAMED:
            keyed = self._keyring.digest(caller.tenant, "access", request_id.encode())
            refusals.ids[keyed] = None

    async def tell_refusals(self, *, until: datetime | None = None) -> None:
        """Store what was refused in the minutes before, by default in all; StoreUnavailableError,
        StoreBusyError when it is kept for the next time.
        """
        for key in [key for key in self._refused if until is None or key[3] < until]:
            tenant, principal, status, minute = key
            refusals = self._refused[key]
            facts = {"status": status, "minute": minute, "count": refusals.count}
            entry = Access(
                kind="refused",
                tenant=tenant,
                principal=principal,
                facts={**facts, "keyed_ids": list(refusals.ids)},
            )
            await self._evidence.append_access(entry.row())
            self._refused.pop(key)

    async def run(self, every_seconds: float = 5.0) -> None:
        """Tell the refusals of each minute once it is over, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            now = datetime.now(UTC).replace(second=0, microsecond=0)
            try:
                await self.tell_refusals(until=now)
            except EvidenceError as error:
                log.warning("refusals_not_logged", reason=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFilter:
    """Which entries to list; all by default."""

    tenant: str | None = None
    principal: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def listed(store: EvidenceStore, matching: AccessFilter) -> Iterator[Mapping[str, object]]:
    """The headers of the entries that match, oldest first, in pages."""
    after: tuple[int, str] | None = None
    while True:
        with store.reading() as connection:
            rows = connection.execute(_select(matching, after)).all()
        for row in rows:
            yield orjson.loads(row.header)
            after = row.at_us, row.event_id
        if len(rows) < _PAGE:
            break


def _select(
    matching: AccessFilter, after: tuple[int, str] | None
) -> Select[tuple[int, str, bytes]]:
    columns = accesses.c
    query = select(columns.at_us, columns.event_id, columns.header)
    for name in ("tenant", "principal", "request_id"):
        wanted = getattr(matching, name)
        if wanted is not None:
            query = query.where(columns[name] == wanted)
    if matching.since is not None:
        query = query.where(columns.at_us >= microseconds(matching.since))
    if matching.until is not None:
        query = query.where(columns.at_us < microseconds(matching.until))
    if after is not None:
        query = query.where(tuple_(columns.at_us, columns.event_id) > tuple_(*after))
    return query.order_by(columns.at_us, columns.event_id).limit(_PAGE)
