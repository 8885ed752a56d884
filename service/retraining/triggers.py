"""Triggers in the evidence database: raised once an episode whatever number of replicas look,
decided once, closed when the reason is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson
from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.errors import UnknownError, UsageError
from service.evidence import EvidenceStore
from service.evidence.events import microseconds
from service.evidence.reading import moment_of
from service.evidence.tables import retrain_steps, retrain_triggers
from service.uuid7 import uuid7

Cause = Literal["performance", "drift"]
CAUSES: tuple[Cause, ...] = ("performance", "drift")
Verdict = Literal["approved", "dismissed"]
State = Literal["open", "approved", "dismissed", "closed"]
WATCHER = "watch"
"""Actor of what the service itself raises and closes."""

_trigger, _step = retrain_triggers.c, retrain_steps.c


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a version should be trained again. facts: figures and column names, nobody's data."""

    model: str
    version: int
    cause: Cause
    facts: Mapping[str, object]

    @property
    def standing(self) -> str:
        """What there is one episode of at a time."""
        return standing_of(self.model, self.version, self.cause)


@dataclass(frozen=True, slots=True)
class Decided:
    """What a person said of a trigger."""

    verdict: Verdict
    actor: str
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """One episode."""

    trigger_id: str
    reason: Reason
    raised_at: datetime
    decided: Decided | None
    closed_at: datetime | None

    @property
    def state(self) -> State:
        """As a person sees it."""
        if self.closed_at is not None:
            return "closed"
        return "open" if self.decided is None else self.decided.verdict

    @property
    def is_needed(self) -> bool:
        """Nobody said that it is not, and the reason is still there."""
        return self.state in ("open", "approved")


def standing_of(model: str, version: int, cause: Cause) -> str:
    """The name of an episode while it lasts."""
    return f"{cause}/{version}/{model}"


def raise_once(store: EvidenceStore, reason: Reason, now: datetime) -> str | None:
    """The ID of a new trigger, None where its episode has one. Raises StoreUnavailableError."""
    trigger_id = uuid7()
    values = {
        "trigger_id": trigger_id,
        "model": reason.model,
        "version": reason.version,
        "cause": reason.cause,
        "facts": orjson.dumps(reason.facts).decode(),
        "standing": reason.standing,
    }
    claim = sqlite.insert if store.is_sqlite else postgresql.insert
    statement = claim(retrain_triggers).values(values)
    statement = statement.on_conflict_do_nothing(index_elements=["standing"])
    claimed = statement.returning(_trigger.trigger_id)
    with store.changing() as connection:
        if connection.execute(claimed).scalar_one_or_none() is None:
            return None
        _take_step(connection, trigger_id, "raised", WATCHER, now, is_told=True)
    return trigger_id


def close(store: EvidenceStore, standing: str, now: datetime, note: str) -> bool:
    """End an episode; False where there is none. The next one raises a trigger of its own.

    Raises StoreUnavailableError.
    """
    found = select(_trigger.trigger_id).where(_trigger.standing == standing)
    with store.changing() as connection:
        trigger_id = connection.execute(found).scalar_one_or_none()
        if trigger_id is None:
            return False
        ends = update(retrain_triggers).where(_trigger.standing == standing)
        if not connection.execute(ends.values(standing=None)).rowcount:
            return False
        _take_step(connection, trigger_id, "closed", WATCHER, now, note=note)
    return True


def decide(store: EvidenceStore, trigger_id: str, decided: Decided) -> Trigger:
    """Record what a person said of a trigger that stands; that is said once.

    Raises UnknownError, UsageError for one that is closed or decided, StoreUnavailableError.
    """
    values = {"verdict": decided.verdict, "note": decided.note}
    is_told = decided.verdict == "approved"
    with store.changing() as connection:
        # Locked, so that of two people deciding at once the second is told of the first.
        query = _select_triggers().where(_trigger.trigger_id == trigger_id)
        lock = select(_trigger.trigger_id).where(_trigger.trigger_id == trigger_id)
        connection.execute(lock.with_for_update())
        found = _triggers(connection.execute(query).all())
        if not found:
            raise UnknownError(f"no trigger {trigger_id!r}")
        if found[0].state != "open":
            raise UsageError(f"trigger {trigger_id} is {found[0].state} already")
        _take_step(
            connection, trigger_id, "decided", decided.actor, decided.at, is_told=is_told, **values
        )
        return _triggers(connection.execute(query).all())[0]


def standing(store: EvidenceStore) -> list[Trigger]:
    """Triggers whose episode lasts. Raises StoreUnavailableError."""
    with store.reading() as connection:
        return _triggers(
            connection.execute(_select_triggers().where(_trigger.standing.is_not(None))).all()
        )


def listed(store: EvidenceStore, limit: int) -> list[Trigger]:
    """The youngest triggers, closed ones too, youngest first. Raises StoreUnavailableError."""
    youngest = select(_trigger.trigger_id).order_by(_trigger.trigger_id.desc()).limit(limit)
    query = _select_triggers().where(_trigger.trigger_id.in_(youngest))
    with store.reading() as connection:
        return _triggers(connection.execute(query).all())


def _select_triggers() -> Select[tuple[object, ...]]:
    joined = retrain_triggers.join(retrain_steps, _trigger.trigger_id == _step.trigger_id)
    columns = (
        *(_trigger.trigger_id, _trigger.model, _trigger.version, _trigger.cause, _trigger.facts),
        *(_step.step, _step.at_us, _step.actor, _step.verdict, _step.note),
    )
    found: Select[tuple[object, ...]] = select(*columns)
    return found.select_from(joined).order_by(_trigger.trigger_id.desc(), _step.at_us)


def _triggers(rows: Sequence[Row[tuple[object, ...]]]) -> list[Trigger]:
    steps: dict[str, dict[str, Row[tuple[object, ...]]]] = {}
    for row in rows:
        steps.setdefault(row.trigger_id, {})[row.step] = row
    return [_trigger_of(trigger_id, by_name) for trigger_id, by_name in steps.items()]


def _trigger_of(trigger_id: str, steps: Mapping[str, Row[tuple[object, ...]]]) -> Trigger:
    raised, said, closed = (steps.get(name) for name in ("raised", "decided", "closed"))
    assert raised is not None
    facts = orjson.loads(raised.facts)
    return Trigger(
        trigger_id,
        Reason(raised.model, raised.version, raised.cause, facts),
        moment_of(raised.at_us),
        None
        if said is None
        else Decided(said.verdict, said.actor, said.note or "", moment_of(said.at_us)),
        None if closed is None else moment_of(closed.at_us),
    )


def _take_step(  # noqa: PLR0913 - one row, by name
    connection: Connection,
    trigger_id: str,
    step: str,
    actor: str,
    at: datetime,
    *,
    is_told: bool = False,
    verdict: str | None = None,
    note: str | None = None,
) -> None:
    """Add a step; a told one has its webhook call due at once."""
    at_us = microseconds(at)
    values = {
        "trigger_id": trigger_id,
        "step": step,
        "at_us": at_us,
        "actor": actor,
        "verdict": verdict,
        "note": note,
        "attempts": 0,
        "next_us": at_us if is_told else None,
        "sent_us": None,
    }
    connection.execute(insert(retrain_steps).values(values))
