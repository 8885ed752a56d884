"""One subject erased from a record about several: his sections go, the others' stay."""

from collections.abc import Sequence
from typing import cast

import orjson
from sqlalchemy import Connection, Row, select, update

from service.disposal.destroying import (
    WHOLE,
    Destruction,
    destroy,
    end_pending,
    erased_among,
    note_erased,
)
from service.disposal.facts import Fact
from service.disposal.forgetting import doom
from service.disposal.targets import DESTROYED, Target, events_about, is_own_decision
from service.evidence import Parts, final_payload
from service.evidence.boxes import refs_of, without
from service.evidence.sealing import NOTHING, Sealer
from service.evidence.sections import sections_about, subjects_of
from service.evidence.tables import erasures, events

PARTED = "the record was erased in part"
StoredEvent = Row[tuple[object, ...]]


def destroy_parts(
    connection: Connection, targets: Sequence[Target], what: Destruction, sealer: Sealer
) -> None:
    """Destroy what is a subject's in these records; as a whole those that are about nobody else
    any more. Of what is not in sections, such as records from before there were any, everything is
    everybody's. As `destroy` otherwise.
    """
    whole = [each for each in targets if _others(connection, each, what.subject) == set()]
    parted = [each for each in targets if each not in whole]
    destroy(connection, whole, events_about(connection, whole), what)
    for target in parted:
        _destroy_part(connection, target, what, sealer)


def _others(connection: Connection, target: Target, subject: str) -> set[str | None]:
    """The subjects of a record that are left without this one; None stands for rows without one."""
    if what_is_left := set(subjects_of(target)) - {subject}:
        known = select(erasures.c.subject).where(
            erasures.c.tenant == target.tenant, erasures.c.request_id == target.request_id
        )
        return what_is_left - set(connection.scalars(known))
    return set()


def _destroy_part(
    connection: Connection, target: Target, what: Destruction, sealer: Sealer
) -> None:
    content = events_about(connection, [target])
    rows = {row.event_id: _with_payload(connection, row.event_id) for row in content}
    decision = next((row for row in rows.values() if is_own_decision(row)), None)
    if decision is None or len(refs_of(decision)) < 2:
        destroy(connection, [target], content, what)
        return
    is_open = not any(row.event_type == "explanation" for row in rows.values())
    ended = _ended(decision, sealer) if target.status == "pending" and is_open else None
    sections = {event_id: _sections(row, what.subject) for event_id, row in rows.items()}
    doom(
        connection,
        what.keys,
        [ref for event_id, row in rows.items() for ref in _refs(row, sections[event_id])],
    )
    for event_id, row in rows.items():
        _shrink(connection, row, sections[event_id])
    if ended is not None:
        end_pending(connection, target, what.order, ended)
    if erased_among(connection, [target], what.subject):
        return
    destroyed = sorted(event_id for event_id, gone in sections.items() if gone)
    said = {"destroys": destroyed, "scope": "subject"}
    note_erased(connection, [Fact(what.kind, target, what.order, said)], what.subject or WHOLE)


def _with_payload(connection: Connection, event_id: str) -> StoredEvent:
    query = select(*DESTROYED, events.c.payload).where(events.c.event_id == event_id)
    return cast("StoredEvent", connection.execute(query).one())


def _sections(row: StoredEvent, subject: str) -> frozenset[int]:
    n_sections = max(1, len(refs_of(row)))
    if row.subjects is not None:
        subjects_of(row)  # raises where it is no list of names
        return sections_about(row.subjects, subject, n_sections)
    return frozenset() if row.payload == NOTHING else frozenset(range(n_sections))


def _refs(row: StoredEvent, sections: frozenset[int]) -> list[bytes]:
    refs = refs_of(row)
    return [refs[number] for number in sorted(sections) if number < len(refs)]


def _shrink(connection: Connection, row: StoredEvent, sections: frozenset[int]) -> None:
    if not sections:
        return
    left = without(row, sections)
    if left == row.payload:
        return
    values = {"payload": left} if left is not None else {"payload": None, "record_key": None}
    connection.execute(update(events).where(events.c.event_id == row.event_id).values(values))


def _ended(decision: StoredEvent, sealer: Sealer) -> tuple[bytes, Parts] | None:
    """What stands in the place of an explanation that is still to come: made of what the rows have
    in common, since of a pending one everything else is null.
    """
    (unsealed,) = sealer.open([decision], erased=[decision.event_id])
    if unsealed is None:
        return None
    explanation, provenance = (
        orjson.loads(unsealed.payload[slice(*unsealed.parts[name])])
        for name in ("explanation", "provenance")
    )
    explanation |= {"status": "failed", "reason": PARTED}
    return final_payload(orjson.dumps(explanation), orjson.dumps(provenance))
