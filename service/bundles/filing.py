"""What an event is filed under, compared with what its header, which is proven, says."""

from datetime import datetime

from sqlalchemy import Connection, Row, select, tuple_

from service.evidence.events import idempotency_key, microseconds
from service.evidence.tables import event_subjects
from service.ledger import EVIDENCE
from service.verify import Json

_ALIKE = {
    "evidence": (
        *("event_id", "event_type", "tenant", "request_id", "parent_request_id", "actor"),
        *("model", "version", "status", "lane"),
    ),
    "access": ("event_id", "tenant", "principal", "request_id", "kind"),
}
_TIMES = {"received_us": "received_at", "expires_us": "expires_at"}
_EXPIRY_STEP_US = 1000
"""A database taken over from schema version 1 knows when records expire to a millisecond."""

FiledRow = Row[tuple[object, ...]]


def misfiled(log: str, row: FiledRow, header: Json) -> list[str]:
    """Names of columns that say something else than the header, which may say less."""
    values = row._mapping  # noqa: SLF001  # SQLAlchemy's documented way to read a row by name
    found = [name for name in _ALIKE[log] if name in header and header[name] != values[name]]
    if log != EVIDENCE.name:
        return found
    for column, name in _TIMES.items():
        if name not in header:
            continue
        told = microseconds(datetime.fromisoformat(header[name]))
        if values[column] is None or abs(values[column] - told) > _EXPIRY_STEP_US * (
            column == "expires_us"
        ):
            found.append(column)
    key = idempotency_key(header["tenant"], header["request_id"], header["event_type"])
    if values["idempotency_key"] != key and not str(values["idempotency_key"]).startswith(
        f"{key}/"
    ):
        found.append("idempotency_key")
    return found


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
