"""Keys and content destroyed, and the events that say so stored: one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, Row, insert, select, update

from service.disposal.facts import Fact, FactType, Order, tell, us
from service.disposal.targets import Target
from service.evidence import FinalEvent, HeaderTemplate, Parts, StoreUnavailableError
from service.evidence.boxes import refs_of
from service.evidence.events import idempotency_key, seal
from service.evidence.reading import moment_of
from service.evidence.tables import INSERTED_COLUMNS, erasures, events
from service.keystore import KeyStoreError

Content = Sequence[Row[tuple[object, ...]]]
WHOLE = ""
"""Stands for the subject where a record is erased whatever it is about."""


class Keys(Protocol):
    """What destroys the keys of payloads, for good before it returns."""

    def destroy(self, refs: Iterable[bytes]) -> None:
        """Destroy the keys with these references; unknown ones are destroyed already."""
        ...


@dataclass(frozen=True, slots=True)
class Destruction:
    """What is to be destroyed and why. keys: where they are, unless it is the evidence store's own
    key store. subject: the keyed name of the only one whose part is meant.
    """

    kind: FactType
    order: Order
    keys: Keys | None = None
    subject: str = WHOLE


def destroy(
    connection: Connection, targets: Sequence[Target], content: Content, what: Destruction
) -> None:
    """Destroy the content of these records, for good, and say so in an event for each.

    content: rows of `events_about` them. Call it in a transaction that excludes other writers. The
    keys go first: should the process end between, the content can be read no more, and the next
    attempt finds the record again and completes it. Raises StoreUnavailableError.
    """
    destroy_content(connection, content, what.keys)
    explained = {(row.tenant, row.request_id) for row in content if row.event_type == "explanation"}
    for target in targets:
        if target.status == "pending" and target.key not in explained:
            end_pending(connection, target, what.order)
    destroyed: dict[tuple[str, str], list[str]] = {}
    for row in content:
        destroyed.setdefault((row.tenant, row.request_id), []).append(row.event_id)
    facts = [
        Fact(
            what.kind,
            each,
            what.order,
            {"destroys": sorted(destroyed.get(each.key, ()))},
            is_only=True,
        )
        for each in targets
    ]
    note_erased(connection, facts, WHOLE)


def destroy_content(connection: Connection, content: Content, keys: Keys | None) -> None:
    """Destroy keys, payloads and whatever named the keys. Raises StoreUnavailableError."""
    destroy_keys(keys, [ref for row in content for ref in refs_of(row)])
    event_ids = [row.event_id for row in content]
    nothing = update(events).values(payload=None, record_key=None)
    connection.execute(nothing.where(events.c.event_id.in_(event_ids)))


def destroy_keys(keys: Keys | None, refs: Sequence[bytes]) -> None:
    """Destroy keys that are apart. Raises StoreUnavailableError, also where they cannot be
    reached: without its key destroyed, nothing of a payload counts as erased.
    """
    if not refs:
        return
    if keys is None:
        raise StoreUnavailableError("the payloads are encrypted, and no key store was given")
    try:
        keys.destroy(refs)
    except KeyStoreError as error:
        raise StoreUnavailableError(f"key store: {error}") from error


def note_erased(connection: Connection, facts: Sequence[Fact], subject: str) -> None:
    """Store what was erased, as events and where it is looked up."""
    rows = [
        {
            "tenant": fact.target.tenant,
            "request_id": fact.target.request_id,
            "subject": subject,
            "kind": fact.type,
            "event_id": event_id,
            "erased_us": us(fact.order),
        }
        for fact, event_id in zip(facts, tell(connection, facts), strict=True)
    ]
    if rows:
        connection.execute(insert(erasures), rows)


def end_pending(
    connection: Connection,
    target: Target,
    order: Order,
    content: tuple[bytes, Parts] = (b"{}", {}),
) -> None:
    """Take the place of the explanation that is still to come, so that no worker's finds one.

    content: payload and parts of what stands there instead.
    """
    payload, parts = content
    final = FinalEvent(
        template=HeaderTemplate.from_header(target.header),
        tenant=target.tenant,
        request_id=target.request_id,
        parent_request_id=target.parent_request_id,
        actor=order.principal,
        received_at=moment_of(target.received_us),
        completed_at=order.at,
        status="failed",
        outcome="rejected",
        payload=payload,
        parts=parts,
    )
    for event in (final, final.counted()):
        key = idempotency_key(event.tenant, event.request_id, event.event_type)
        found = select(events.c.event_id).where(events.c.idempotency_key == key)
        if connection.execute(found).first() is None:
            row = dict(zip(INSERTED_COLUMNS, seal(event), strict=True))
            connection.execute(insert(events), row)
