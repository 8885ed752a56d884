"""Holds, releases, erasures and purges as events: facts about a record, without content."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, insert

from service.disposal.targets import Target
from service.errors import UsageError
from service.evidence import HeaderTemplate
from service.evidence.events import HEADER_VERSION, Row, commitment, microseconds
from service.evidence.reading import moment_of
from service.evidence.tables import INSERTED_COLUMNS, events
from service.uuid7 import uuid7

FactType = Literal["hold", "release", "quarantine", "erasure", "purge"]
REASON = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")
_NOTHING = b"{}"


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants something done with records, since when and why.

    reason: a code, no prose: it stands in headers, which stay and hold nothing personal. Raises
    UsageError for another.
    """

    principal: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        if not REASON.fullmatch(self.reason):
            raise UsageError(
                "a reason is a code of 1 to 64 letters, digits and . _ : / # - (such as a case "
                "number): it is kept for good, so it must not tell anything of a person"
            )
        if self.at.tzinfo is not UTC:
            raise ValueError("an order's time must be in datetime.UTC")


@dataclass(frozen=True, slots=True)
class Fact:
    """One event about one record. is_only: there can be no second of its type.

    said: further fields of the header.
    """

    type: FactType
    target: Target
    order: Order
    said: Mapping[str, object]
    is_only: bool = field(default=False, kw_only=True)

    def sealed(self) -> tuple[str, Row]:
        """Its event ID, and the row to insert; it never expires."""
        event_id, record_key, target = uuid7(), os.urandom(32), self.target
        key = f"{self.type}/{target.tenant}/{target.request_id}"
        row = (
            event_id,
            key if self.is_only else f"{key}/{event_id}",
            self.type,
            target.tenant,
            target.request_id,
            target.parent_request_id,
            self.order.principal,
            None,
            target.model,
            target.version,
            None,
            None,
            target.received_us,
            None,
            record_key,
            "json",
            self._header(event_id, record_key),
            _NOTHING,
        )
        return event_id, row

    def _header(self, event_id: str, record_key: bytes) -> bytes:
        target, order = self.target, self.order
        received_at = moment_of(target.received_us)
        own = {
            "schema_version": HEADER_VERSION,
            "event_id": event_id,
            "event_type": self.type,
            "request_id": target.request_id,
            "parent_request_id": target.parent_request_id,
            "tenant": target.tenant,
            "actor": order.principal,
            "auth_method": "none",
            "received_at": received_at,
            "completed_at": order.at,
            "clock_skewed": order.at < received_at,
            "expires_at": None,
            "status": None,
            "lane": None,
            "reason": order.reason,
            **self.said,
            "payload": {
                "commitment": commitment(record_key, _NOTHING),
                "size": len(_NOTHING),
                "parts": {},
            },
        }
        return HeaderTemplate.from_header(target.header).join(own, is_brief=True)


def tell(connection: Connection, facts: Sequence[Fact]) -> list[str]:
    """Store facts in the connection's transaction: their event IDs."""
    sealed = [fact.sealed() for fact in facts]
    if sealed:
        rows = [dict(zip(INSERTED_COLUMNS, row, strict=True)) for _, row in sealed]
        connection.execute(insert(events), rows)
    return [event_id for event_id, _ in sealed]


def us(order: Order) -> int:
    """When, in microseconds since 1970."""
    return microseconds(order.at)
