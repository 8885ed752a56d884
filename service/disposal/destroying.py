"""Content destroyed, its keys doomed, and the events that say so stored: one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, tuple_, update

from service.disposal.facts import Fact, FactType, Order, tell, us
from service.disposal.forgetting import Keys, doom
from service.disposal.targets import Target
from service.evidence import FinalEvent, HeaderTemplate, Parts, RequestKey
from service.evidence.boxes import refs_of
from service.evidence.events import idempotency_key, seal
from service.evidence.reading import moment_of
from service.evidence.tables import INSERTED_COLUMNS, erasures, events

Content = Sequence[Row[tuple[object, ...]]]
WHOLE = ""
"""Stands for the subject where a record is erased whatever it is about."""


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
    """Destroy the content of these records, for good, and say so in an event for each that has
    none of that kind yet.

    content: rows of `events_about` them. Call it in a transaction that excludes other writers, and
    `forget_keys` once it has committed. Raises StoreUnavailableError.
    """
    destroy_content(connection, content, what.keys)
    explained = {(row.tenant, row.request_id) for row in content if row.event_type == "explanation"}
    for target in targets:
        if target.status == "pending" and target.key not in explained:
            end_pending(connection, target, what.order)
    told = erased_among(connection, targets)
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
        if each.key not in told
    ]
    note_erased(connection, facts, WHOLE)


def erased_among(
    connection: Connection, targets: Sequence[Target], subject: str = WHOLE
) -> set[RequestKey]:
    """Those of which an event says already that they are erased, or that subject's part in them."""
    keys = [target.key for target in targets]
    query = select(erasures.c.tenant, erasures.c.request_id).where(
        tuple_(erasures.c.tenant, erasures.c.request_id).in_(keys), erasures.c.subject == subject
    )
    return {(row.tenant, row.request_id) for row in connection.execute(query)}


def destroy_content(connection: Connection, content: Content, keys: Keys | None) -> None:
    """Destroy payloads and whatever named their keys, and doom those. StoreUnavailableError."""
    doom(connection, keys, [ref for row in content for ref in refs_of(row)])
    event_ids = [row.event_id for row in content]
    nothing = update(events).values(payload=None, record_key=None)
    connection.execute(nothing.where(events.c.event_id.in_(event_ids)))


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
        subjects=target.subjects,
    )
    for event in (final, final.counted()):
        key = idempotency_key(event.tenant, event.request_id, event.event_type)
        found = select(events.c.event_id).where(events.c.idempotency_key == key)
        if connection.execute(found).first() is None:
            row = dict(zip(INSERTED_COLUMNS, seal(event), strict=True))
            connection.execute(insert(events), row)
