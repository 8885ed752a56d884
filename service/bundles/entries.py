"""Entries of a log as bundles and proofs carry them: header, proof of its place, opened payload."""

from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection, Row, select

from service.evidence.openings import Open, Opening, Section
from service.evidence.tables import accesses, events, log_entries
from service.ledger import ACCESS, EVIDENCE, Ledger, LogMismatchError, hashes_text
from service.verify import HIDING

Json = dict[str, object]
Ranges = Sequence[tuple[int, int]]
"""Seqs as ranges of the first and the last, ascending."""

PAGE = 500
SOURCES = {EVIDENCE.name: events, ACCESS.name: accesses}


def pages(ranges: Ranges) -> Iterator[list[int]]:
    """The seqs of ranges, up to PAGE at a time."""
    seqs = (seq for first, last in ranges for seq in range(first, last + 1))
    while page := list(islice(seqs, PAGE)):
        yield page


def logged_rows(
    connection: Connection, log: str, seqs: Sequence[int]
) -> Sequence[Row[tuple[object, ...]]]:
    """The rows at these places in order of seq, with the entry's own event ID as `logged_id`.

    The event's columns are NULL where an entry has none.
    """
    source = SOURCES[log]
    entry = (log_entries.c.seq, log_entries.c.leaf, log_entries.c.event_id.label("logged_id"))
    found = select(*entry, *source.c).select_from(
        log_entries.outerjoin(source, source.c.event_id == log_entries.c.event_id)
    )
    chosen = found.where(log_entries.c.log == log, log_entries.c.seq.in_(seqs))
    return connection.execute(chosen.order_by(log_entries.c.seq)).all()


def entry_of(row: Row[tuple[object, ...]], proof: Sequence[bytes], opening: Opening | None) -> Json:
    """One line of a bundle. Raises UnicodeDecodeError for bytes that are no text.

    opening: None for an entry without a payload of its own.
    """
    entry: Json = {
        "seq": row.seq,
        "header": bytes(row.header).decode(),
        "proof": hashes_text(proof),
    }
    if opening is not None and opening.is_cut:
        return entry | {"sections": [_shown(section) for section in opening.sections]}
    shown = _shown(None if opening is None else opening.sections[0]) or {}
    return entry | {"payload": shown.get("text"), "key": shown.get("key")}


def _shown(section: Section | None) -> dict[str, str] | None:
    if section is None:
        return None
    return {"key": section.key.hex(), "text": section.text.decode()}


def opened(
    log: str, rows: Sequence[Row[tuple[object, ...]]], open_payloads: Open
) -> Sequence[Opening | None]:
    """What opens the payloads of rows; those of the access log have none."""
    return open_payloads(rows) if log == EVIDENCE.name else [None] * len(rows)


def entries(
    ledger: Ledger,
    log: str,
    size: int,
    rows: Sequence[Row[tuple[object, ...]]],
    open_payloads: Open,
) -> list[Json]:
    """The lines of rows, proven in the tree of that size. Cost: 30 us each.

    Raises LogMismatchError for an entry without its event, or one that is no text.
    """
    for row in rows:
        if row.header is None:
            raise LogMismatchError(f"entry {row.seq} of the log {log} has lost its event")
    proofs = ledger.inclusions(log, [row.seq for row in rows], size)
    found = zip(rows, proofs, opened(log, rows, open_payloads), strict=True)
    try:
        return [entry_of(row, proof, opening) for row, proof, opening in found]
    except UnicodeDecodeError:
        raise LogMismatchError(f"an entry of the log {log} is no text") from None


def is_erased_later(connection: Connection, row: Row[tuple[object, ...]], *, size: int) -> bool:
    """What hides the row's payload has happened, but has no place in the tree of that size."""
    about = select(log_entries.c.seq).select_from(
        events.outerjoin(
            log_entries,
            (log_entries.c.event_id == events.c.event_id) & (log_entries.c.log == EVIDENCE.name),
        )
    )
    places = connection.scalars(
        about.where(
            events.c.tenant == row.tenant,
            events.c.event_type.in_(HIDING),
            events.c.received_us == row.received_us,
            events.c.request_id == row.request_id,
        )
    ).all()
    return bool(places) and all(place is None or place >= size for place in places)
