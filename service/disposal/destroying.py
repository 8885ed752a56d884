"""Keys and content destroyed, the event that says so stored: one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, Row, insert, select, update

from service.disposal.facts import Fact, FactType, Order, tell, us
from service.disposal.targets import Target
from service.evidence import FinalEvent, HeaderTemplate
from service.evidence.events import idempotency_key, seal
from service.evidence.reading import moment_of
from service.evidence.tables import INSERTED_COLUMNS, erasures, events

Content = Sequence[Row[tuple[object, ...]]]


class Keys(Protocol):
    """What destroys the keys of payloads, durably before it returns."""

    def destroy(self, refs: Sequence[bytes]) -> None:
        """Destroy the keys with these references; unknown ones are destroyed already."""
        ...


@dataclass(frozen=True, slots=True)
class Destruction:
    """What is to be destroyed and why. keys: None where every key stands beside its payload."""

    kind: FactType
    order: Order
    keys: Keys | None = None


def destroy(
    connection: Connection, targets: Sequence[Target], content: Content, what: Destruction
) -> None:
    """Destroy the content of these records, for good, and say so in an event for each.

    content: rows of `events_about` them. Call it in a transaction that excludes other writers. The
    keys go first: should the process end between, the content can be read no more, and the next
    attempt finds the record again and completes it.
    """
    destroy_content(connection, content, what.keys)
    _end_pending(connection, targets, content, what.order)
    of_target: dict[tuple[str, str], list[str]] = {}
    for row in content:
        of_target.setdefault((row.tenant, row.request_id), []).append(row.event_id)
    facts = [
        Fact(what.kind, each, what.order, {"destroys": sorted(of_target.get(each.key, ()))}, True)
        for each in targets
    ]
    rows = [
        {
            "tenant": target.tenant,
            "request_id": target.request_id,
            "subject": "",
            "kind": what.kind,
            "event_id": event_id,
            "erased_us": us(what.order),
        }
        for target, event_id in zip(targets, tell(connection, facts), strict=True)
    ]
    if rows:
        connection.execute(insert(erasures), rows)


def destroy_content(connection: Connection, content: Content, keys: Keys | None) -> None:
    """Destroy keys, payloads and whatever named the keys."""
    refs = [row.record_key for row in content if row.encoding != "json"]
    if refs and keys is not None:
        keys.destroy(refs)
    event_ids = [row.event_id for row in content]
    nothing = update(events).values(payload=None, record_key=None)
    connection.execute(nothing.where(events.c.event_id.in_(event_ids)))


def _end_pending(
    connection: Connection, targets: Sequence[Target], content: Content, order: Order
) -> None:
    """Take the place of the explanations that are still to come, so that no worker's finds one."""
    explained = {(row.tenant, row.request_id) for row in content if row.event_type == "explanation"}
    for target in targets:
        if target.status != "pending" or target.key in explained:
            continue
        final = _no_explanation(target, order)
        for event in (final, final.counted()):
            row = dict(zip(INSERTED_COLUMNS, seal(event), strict=True))
            key = idempotency_key(event.tenant, event.request_id, event.event_type)
            if not _is_there(connection, key):
                connection.execute(insert(events), row)


def _no_explanation(target: Target, order: Order) -> FinalEvent:
    received_at = moment_of(target.received_us)
    return FinalEvent(
        template=HeaderTemplate.from_header(target.header),
        tenant=target.tenant,
        request_id=target.request_id,
        parent_request_id=target.parent_request_id,
        actor=order.principal,
        received_at=received_at,
        completed_at=order.at,
        status="failed",
        outcome="rejected",
        payload=b"{}",
        parts={},
    )


def _is_there(connection: Connection, key: str) -> bool:
    found = select(events.c.event_id).where(events.c.idempotency_key == key)
    return connection.execute(found).first() is not None
