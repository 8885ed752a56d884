"""What an event is filed under, compared with what its header, which is proven, says."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, Row, select, tuple_

from service.bundles.entries import PAGE
from service.evidence import EvidenceStore, UnreadableSubjectsError
from service.evidence.doomed import doomed_refs, in_use
from service.evidence.events import idempotency_key, microseconds
from service.evidence.sections import Filed, is_about
from service.evidence.tables import BESIDE, event_subjects, events, log_entries
from service.ledger import EVIDENCE
from service.verify import Json

_ALIKE = {
    "evidence": (
        *("event_id", "event_type", "tenant", "request_id", "parent_request_id", "actor"),
        *("model", "version", "status", "lane"),
    ),
    "access": ("event_id", "tenant", "principal", "request_id"),
}
_TIMES = {
    "evidence": {"received_us": "received_at", "expires_us": "expires_at"},
    "access": {"at_us": "at"},
}
_ONE_EACH = {"decision", "explanation", "outcome", "answer", "shadow", "erasure", "purge"}
_ANY_NUMBER = {"feedback", "label", "counterfactual", "hold", "release", "quarantine"}
_SPOOLED = {"decision"}
"""What may stand beside another: only what is stored with best effort waits in a spool."""

_EXPIRY_STEP_US = 1000
"""A database taken over from schema version 1 knows when records expire to a millisecond."""

FiledRow = Row[tuple[object, ...]]


def misfiled(log: str, row: FiledRow, header: Json) -> list[str]:
    """Names of columns that say something else than the header, which may say less."""
    values = row._mapping  # noqa: SLF001  # SQLAlchemy's documented way to read a row by name
    found = [name for name in _ALIKE[log] if name in header and header[name] != values[name]]
    for column, name in _TIMES[log].items():
        if name in header and not _is_at(header[name], values[column], column):
            found.append(column)
    if log != EVIDENCE.name:
        kinds = {f"access/{values['kind']}", None}
        return [*found, "kind"] if header.get("event_type") not in kinds else found
    forms = _filed_forms(header)
    return found if values["idempotency_key"] in forms else [*found, "idempotency_key"]


def _filed_forms(header: Json) -> list[str]:
    """What an event may be filed under: of some types there is one about a request, of others any
    number.
    """
    key = idempotency_key(header["tenant"], header["request_id"], header["event_type"])
    several = f"{key}/{header['event_id']}"
    if header.get("beside") is True and header["event_type"] in _SPOOLED:
        return [f"{BESIDE}{header['event_id']}"]
    is_apart = header["event_type"] == "purge" and header.get("apart")
    if header["event_type"] in _ANY_NUMBER or header.get("scope") == "subject" or is_apart:
        return [several]
    if header["event_type"] in _ONE_EACH:
        return [key]
    return [key, several]  # of a release that knows more types


def _is_at(told: str | None, filed: int | None, column: str) -> bool:
    if told is None or filed is None:
        return told is None and filed is None
    step = _EXPIRY_STEP_US if column == "expires_us" else 0
    return abs(filed - microseconds(datetime.fromisoformat(told))) <= step


def unfiled_subjects(connection: Connection, rows: list[tuple[FiledRow, list[str]]]) -> list[int]:
    """The seqs of those rows that cannot be found by one of these subjects of theirs."""
    wanted = {
        (row.tenant, subject, row.event_id): row.seq for row, names in rows for subject in names
    }
    if not wanted:
        return []
    key = tuple_(event_subjects.c.tenant, event_subjects.c.subject, event_subjects.c.event_id)
    found = connection.execute(select(event_subjects).where(key.in_(list(wanted)))).all()
    filed = {(row.tenant, row.subject, row.event_id) for row in found}
    return sorted({seq for name, seq in wanted.items() if name not in filed})


def strangers(store: EvidenceStore) -> Iterator[tuple[int | None, str]]:
    """What is found by a subject it is not filed under: its seq, and what is wrong.

    Of the whole index: a row too many would have somebody else's record erased or handed out.
    Cost: 3 us a row.
    """
    own = (event_subjects.c.tenant, event_subjects.c.subject, event_subjects.c.event_id)
    placed = (log_entries.c.event_id == events.c.event_id) & (log_entries.c.log == EVIDENCE.name)
    joined = event_subjects.outerjoin(events, events.c.event_id == event_subjects.c.event_id)
    filed = (events.c.tenant.label("filed_tenant"), events.c.subjects, log_entries.c.seq)
    query = select(*own, *filed).select_from(joined.outerjoin(log_entries, placed))
    page = query = query.order_by(*own).limit(PAGE)
    while True:
        with store.reading() as connection:
            rows = connection.execute(page).all()
        for row in rows:
            if row.filed_tenant is None:
                yield None, f"the index of subjects has an event that there is not: {row.event_id}"
            elif row.filed_tenant != row.tenant or not _is_about(row, row.subject):
                yield row.seq, "it can be found by a subject that it is not filed under"
        if len(rows) < PAGE:
            return
        page = query.where(tuple_(*own) > tuple_(*rows[-1][:3]))


def doomed_in_use(store: EvidenceStore) -> Iterator[tuple[int | None, str]]:
    """What still has content under a key that is to be destroyed, so that the next erasure of
    anything would take it: its seq, and what is wrong. Cost: as of `in_use`, where any are.
    """
    placed = select(log_entries.c.seq).where(log_entries.c.log == EVIDENCE.name)
    found = {event_id for refs in doomed_refs(store) for event_id, _ in in_use(store, refs)}
    for event_id in sorted(found):  # one by one: there may be more than fit into a statement
        with store.reading() as connection:
            seq = connection.scalar(placed.where(log_entries.c.event_id == event_id))
        yield seq, "its key is to be destroyed, and nothing has erased it"


def _is_about(filed: Filed, subject: str) -> bool:
    try:
        return is_about(filed, subject)
    except UnreadableSubjectsError:
        return False  # what it is instead is reported where entries are checked
