"""Whom a record is filed under, compared with what its payload, which is committed to, says."""

from collections.abc import Sequence

import orjson
from sqlalchemy import Connection, Row, select, tuple_

from service.evidence import ProvenEvent
from service.evidence.sections import joined
from service.evidence.tables import erasures, events
from service.verify import MALFORMED

PART = b'"subjects":'
FOLLOWING = frozenset({"explanation", "feedback", "label", "counterfactual"})
"""Types of events about the same rows as their request."""

FiledRow = Row[tuple[object, ...]]


def is_misfiled(event: ProvenEvent, filed: str | None) -> bool:
    """The column says other subjects than the payload. False where that does not tell: a record
    from before payloads named them, or one whose common text has been erased.

    filed: JSON text, one keyed name a row. Of a subject that has been erased the payload says null.
    Cost: as of reading the payload as JSON, where it has such a part.
    """
    committed = _committed(event)
    if committed is None:
        return False
    names = [None] * len(committed) if filed is None else orjson.loads(filed)
    assert event.opening is not None
    has_holes = None in event.opening
    return len(names) != len(committed) or any(
        name != said and not (has_holes and said is None)
        for name, said in zip(names, committed, strict=True)
    )


def unlike_their_requests(connection: Connection, rows: Sequence[FiledRow]) -> list[int]:
    """The seqs of those later events that are filed under other subjects than their request."""
    later = [row for row in rows if row.event_type in FOLLOWING]
    if not later:
        return []
    columns = (events.c.tenant, events.c.request_id, events.c.subjects)
    named = tuple_(events.c.tenant, events.c.request_id)
    wanted = {(row.tenant, row.request_id) for row in later}
    query = select(*columns).where(events.c.event_type == "decision", named.in_(list(wanted)))
    filed = {(row.tenant, row.request_id): row.subjects for row in connection.execute(query)}
    return [
        row.seq
        for row in later
        if filed.get((row.tenant, row.request_id), row.subjects) != row.subjects
        and not _is_former_ending(connection, row)
    ]


def _is_former_ending(connection: Connection, row: FiledRow) -> bool:
    """An erasure or purge put it in the place of an explanation that was still to come, and filed
    it under nobody, as they once did: it tells of no row, and what is stored stays.
    """
    if row.event_type != "explanation" or row.subjects is not None:
        return False
    query = (
        select(events.c.header)
        .join(erasures, erasures.c.event_id == events.c.event_id)
        .where(erasures.c.tenant == row.tenant, erasures.c.request_id == row.request_id)
    )
    try:
        own = orjson.loads(row.header)
        ending = (own["status"], own["actor"], own["completed_at"])
        said = [orjson.loads(header) for header in connection.scalars(query)]
        return ending in [("failed", each["actor"], each["completed_at"]) for each in said]
    except MALFORMED:
        return False


def _committed(event: ProvenEvent) -> Sequence[str | None] | None:
    texts = [None if section is None else section.text for section in event.opening or ()]
    if not texts or texts[0] is None or PART not in texts[0]:
        return None
    payload = texts[0] if len(texts) == 1 else joined(texts)[0]
    found: Sequence[str | None] | None = orjson.loads(payload).get("subjects")
    return found
