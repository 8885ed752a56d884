"""Holds: records that nobody may destroy, and in quarantine nobody read, until they are released.

A record may be under several holds, each with its reason; it is free when the last one is released.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, delete, insert, select, tuple_

from service.disposal.facts import Fact, Order, tell, us
from service.disposal.targets import in_batches, load
from service.evidence import EvidenceStore, Hold, RequestKey
from service.evidence.exclusive import exclusively
from service.evidence.reading import moment_of
from service.evidence.tables import holds

Progress = Callable[[int], None]
"""Told how many records have been dealt with so far."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What came of wanting records held or released.

    changed: now held, or released; unchanged: were so before; gone: nothing is left to hold.
    """

    changed: int = 0
    unchanged: int = 0
    gone: int = 0

    def __add__(self, other: "Holding") -> "Holding":
        return Holding(
            self.changed + other.changed, self.unchanged + other.unchanged, self.gone + other.gone
        )


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A hold in force."""

    tenant: str
    request_id: str
    kind: Hold
    reason: str
    since: datetime
    event_id: str


def hold(
    store: EvidenceStore,
    keys: Iterable[RequestKey],
    order: Order,
    *,
    kind: Hold = "hold",
    progress: Progress = lambda _: None,
) -> Holding:
    """Place a hold on the records, with an event for each one that was not under it.

    Raises StoreUnavailableError; called again, it goes on where it was.
    """
    total, dealt_with = Holding(), 0
    for batch in in_batches(keys):
        with exclusively(store) as connection:
            total += _place(connection, batch, order, kind)
        dealt_with += len(batch)
        progress(dealt_with)
    return total


def _place(connection: Connection, batch: list[RequestKey], order: Order, kind: Hold) -> Holding:
    targets = load(connection, batch)
    standing = {
        (found.tenant, found.request_id)
        for found in _standing(connection, batch)
        if (found.kind, found.reason) == (kind, order.reason)
    }
    wanted = [each for each in targets if not each.is_gone and each.key not in standing]
    event_ids = tell(connection, [Fact(kind, target, order, {}) for target in wanted])
    rows = [
        {
            "tenant": target.tenant,
            "request_id": target.request_id,
            "kind": kind,
            "reason": order.reason,
            "event_id": event_id,
            "since_us": us(order),
        }
        for target, event_id in zip(wanted, event_ids, strict=True)
    ]
    if rows:
        connection.execute(insert(holds), rows)
    gone = sum(target.is_gone for target in targets)
    return Holding(len(rows), len(targets) - len(rows) - gone, gone)


def release(
    store: EvidenceStore,
    keys: Iterable[RequestKey],
    order: Order,
    *,
    kind: Hold = "hold",
    placed_for: str | None = None,
    progress: Progress = lambda _: None,
) -> Holding:
    """Release the records from holds of that kind: from those of one reason, or from all.

    Raises StoreUnavailableError; called again, it goes on where it was.
    """
    total, dealt_with = Holding(), 0
    for batch in in_batches(keys):
        with exclusively(store) as connection:
            total += _lift(connection, batch, order, kind, placed_for)
        dealt_with += len(batch)
        progress(dealt_with)
    return total


def _lift(
    connection: Connection,
    batch: list[RequestKey],
    order: Order,
    kind: Hold,
    placed_for: str | None,
) -> Holding:
    targets = {target.key: target for target in load(connection, batch)}
    lifted = [
        found
        for found in _standing(connection, batch)
        if found.kind == kind and placed_for in {None, found.reason}
    ]
    facts = [
        Fact(
            "release",
            targets[found.tenant, found.request_id],
            order,
            {"releases": found.event_id, "placed_for": found.reason},
        )
        for found in lifted
    ]
    tell(connection, facts)
    # By the primary key, which names a hold for good only as long as it stands.
    for found in lifted:
        connection.execute(
            delete(holds).where(
                holds.c.tenant == found.tenant,
                holds.c.request_id == found.request_id,
                holds.c.kind == found.kind,
                holds.c.reason == found.reason,
            )
        )
    released = {(found.tenant, found.request_id) for found in lifted}
    return Holding(len(released), len(targets) - len(released))


def _standing(connection: Connection, keys: list[RequestKey]) -> list[StandingHold]:
    wanted = tuple_(holds.c.tenant, holds.c.request_id).in_(keys)
    return [_hold_of(row) for row in connection.execute(select(holds).where(wanted))]


def standing_holds(store: EvidenceStore, tenant: str | None = None) -> list[StandingHold]:
    """All holds in force, of one tenant or of all, by request and kind."""
    query = select(holds).order_by(holds.c.tenant, holds.c.request_id, holds.c.kind, holds.c.reason)
    if tenant is not None:
        query = query.where(holds.c.tenant == tenant)
    with store.reading() as connection:
        return [_hold_of(row) for row in connection.execute(query)]


def _hold_of(row: Row[tuple[object, ...]]) -> StandingHold:
    return StandingHold(
        row.tenant, row.request_id, row.kind, row.reason, moment_of(row.since_us), row.event_id
    )
