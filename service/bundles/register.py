"""The registers of holds and of what was destroyed, compared with the facts in the log.

A register is a table of what stands now, which who can write to the database can change without
a trace; the log tells what it must hold.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import func, select, tuple_, type_coerce
from sqlalchemy.types import NullType

from service.bundles.entries import PAGE
from service.evidence import EvidenceStore
from service.evidence.tables import erasures, events, holds, log_entries
from service.ledger import EVIDENCE
from service.verify import MALFORMED, Json, request_of

_HOLDS = ("hold", "quarantine")
_DESTROYS = ("erasure", "purge")
_FACTS = (*_HOLDS, *_DESTROYS, "release")

Report = Callable[[int | None, str], None]
Finding = tuple[int | None, str]


class _Standing(NamedTuple):
    """A hold that nothing has released."""

    seq: int | None
    request: str
    kind: str
    reason: str


class _Told(NamedTuple):
    """A fact in the log that something was destroyed."""

    seq: int
    kind: str
    event_id: str


class Register:
    """Replays the facts in their order. Memory: the holds that stand."""

    def __init__(self, store: EvidenceStore, report: Report) -> None:
        self._store = store
        self._report = report
        self._standing: dict[str, _Standing] = {}
        self._told: dict[_Told, tuple[str, str]] = {}
        self._last = -1

    def take(self, seq: int, header: Json) -> None:
        """The next entry of the log."""
        self._last = max(self._last, seq)
        kind, request = header.get("event_type"), request_of(header)
        if kind in _DESTROYS and any(each.request == request for each in self._standing.values()):
            self._report(seq, f"{_a(kind)} of a record that was under a hold")
        if kind in _DESTROYS and not header.get("apart"):
            told = _Told(seq, str(kind), str(header["event_id"]))
            self._told[told] = str(header["tenant"]), str(header["request_id"])
            if len(self._told) >= PAGE:
                self._check_told()
        _replay(self._standing, seq, header)

    def finish(self) -> None:
        """Compare what stands with the registers.

        Twice, because the service may place and release holds meanwhile: what is wrong stays so.
        """
        self._check_told()
        found = self._differences()
        if found:
            again = set(self._differences())
            for seq, problem in found:
                if (seq, problem) in again:
                    self._report(seq, problem)
        for problem in self._unfounded():
            self._report(None, problem)

    def _check_told(self) -> None:
        """What the log says of so many is in the register: both are stored in one transaction."""
        place = tuple_(erasures.c.tenant, erasures.c.request_id)
        query = select(erasures.c.kind, erasures.c.event_id)
        with self._store.reading() as connection:
            rows = connection.execute(query.where(place.in_(set(self._told.values()))))
            registered = {(row.kind, row.event_id) for row in rows}
        for told in self._told:
            if told[1:] not in registered:
                problem = f"this {told.kind} is not in the register of what was destroyed"
                self._report(told.seq, problem)
        self._told.clear()

    def _differences(self) -> list[Finding]:
        standing = dict(self._standing)
        later = select(log_entries.c.seq, type_coerce(events.c.header, NullType()))
        placed = (log_entries.c.event_id == events.c.event_id) & (
            log_entries.c.log == EVIDENCE.name
        )
        later = later.select_from(events.outerjoin(log_entries, placed)).where(
            events.c.event_type.in_(_FACTS),
            func.coalesce(log_entries.c.seq, self._last + 1) > self._last,
        )
        later = later.order_by(log_entries.c.seq.is_(None), log_entries.c.seq, events.c.event_id)
        with self._store.reading() as connection:
            rows = connection.execute(later).all()
            registered = connection.execute(select(holds)).all()
        for row in rows:
            try:
                _replay(standing, row.seq, orjson.loads(row.header))
            except MALFORMED:
                continue  # reported where entries are checked
        kept = {
            each.event_id: (f"{each.tenant}/{each.request_id}", each.kind, each.reason)
            for each in registered
        }
        found: list[Finding] = [
            (each.seq, f"this {each.kind} stands, and is not in the register of holds")
            for event_id, each in standing.items()
            if kept.get(event_id) != each[1:]
        ]
        return found + [
            (None, f"the register has a {kind} of {request} that no event has placed")
            for event_id, (request, kind, _) in kept.items()
            if event_id not in standing
        ]

    def _unfounded(self) -> list[str]:
        """Rows of the register of what was destroyed that no event tells of."""
        found: list[str] = []
        place = (erasures.c.tenant, erasures.c.request_id, erasures.c.subject)
        told = events.c.event_type, type_coerce(events.c.header, NullType())
        joined = erasures.outerjoin(events, events.c.event_id == erasures.c.event_id)
        query = select(*place, erasures.c.kind, *told).select_from(joined)
        query = query.order_by(*place).limit(PAGE)
        page = query
        while True:
            with self._store.reading() as connection:
                rows = connection.execute(page).all()
            found += [
                f"the register has {_a(row.kind)} of {row.tenant}/{row.request_id} that no event"
                " tells of"
                for row in rows
                if not _is_told(row)
            ]
            if len(rows) < PAGE:
                return found
            page = query.where(tuple_(*place) > tuple_(*rows[-1][:3]))


def _a(kind: object) -> str:
    return f"an {kind}" if kind == "erasure" else f"a {kind}"


def _is_told(row: Sequence[object]) -> bool:
    tenant, request_id, subject, kind, event_type, header = row
    try:
        said = orjson.loads(header)  # type: ignore[arg-type]
        of_whole = said.get("scope") is None or subject != ""
        of_whole = of_whole and not said.get("apart")
        is_alike = kind == event_type == said["event_type"] and kind in _DESTROYS
        return is_alike and of_whole and request_of(said) == f"{tenant}/{request_id}"
    except MALFORMED:
        return False


def _replay(standing: dict[str, _Standing], seq: int | None, header: Json) -> None:
    kind = header.get("event_type")
    if kind in _HOLDS:
        reason = str(header.get("reason"))
        standing[header["event_id"]] = _Standing(seq, request_of(header), str(kind), reason)
    elif kind == "release":
        released = standing.get(str(header.get("releases")))
        if released is not None and released.request == request_of(header):
            del standing[header["releases"]]
