"""Which entries of a log go into a bundle."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from service.bundles.entries import SOURCES, Keys, distinct
from service.evidence import EvidenceStore
from service.evidence.events import idempotency_key, microseconds
from service.evidence.sections import is_about
from service.evidence.tables import accesses, event_subjects, events, log_entries
from service.ledger import EVIDENCE

_PAGE = 10_000
_NAMES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Everything by default; else the requests, or accesses, that match all that is given.

    since, until: when the request was received, or the access happened, in [since, until).
    subject: keyed, with its tenant. Named requests, and those of a subject, bring along those that
    explain them again.
    """

    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    request_ids: Sequence[str] = ()
    subject: str | None = None
    tenant: str | None = None

    @property
    def is_everything(self) -> bool:
        """Nothing is left out."""
        return self == Selection()

    @property
    def names_requests(self) -> bool:
        """By ID or by subject."""
        return bool(self.request_ids or self.subject)

    def document(self) -> dict[str, object] | None:
        """As the manifest says it, the subject keyed."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in given.items() if value} or None


def selected_seqs(store: EvidenceStore, log: str, size: int, selection: Selection) -> Iterator[int]:
    """The places below size of what is selected, ascending.

    Cost: of all entries, 2 us each; but for requests that are named, only theirs.
    """
    if log == EVIDENCE.name and selection.names_requests:
        yield from _places_of(store, _requests(store, selection), size)
        return
    source, after = SOURCES[log], -1
    joined = log_entries.join(source, source.c.event_id == log_entries.c.event_id)
    wanted = _conditions(log, selection)
    while True:
        page = select(log_entries.c.seq).select_from(joined).where(*wanted)
        place = log_entries.c.seq
        page = page.where(log_entries.c.log == log, place > after, place < size)
        with store.reading() as connection:
            found = connection.scalars(page.order_by(place).limit(_PAGE)).all()
        yield from found
        if len(found) < _PAGE:
            return
        after = found[-1]


def count_selected(store: EvidenceStore, log: str, selection: Selection) -> int:
    """How many events or accesses are selected, whether or not they have a place yet."""
    if log == EVIDENCE.name and selection.names_requests:
        return sum(1 for _ in _events_of(store, _requests(store, selection)))
    counted = select(func.count()).select_from(SOURCES[log]).where(*_conditions(log, selection))
    with store.reading() as connection:
        return int(connection.execute(counted).scalar_one())


def ranges_of(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending seqs as ranges of the first and the last."""
    ranges: list[tuple[int, int]] = []
    for seq in seqs:
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def _conditions(log: str, selection: Selection) -> list[ColumnElement[bool]]:
    source = SOURCES[log]
    moment = events.c.received_us if log == EVIDENCE.name else accesses.c.at_us
    found = []
    if selection.since is not None:
        found.append(moment >= microseconds(selection.since))
    if selection.until is not None:
        found.append(moment < microseconds(selection.until))
    if selection.tenant is not None:
        found.append(source.c.tenant == selection.tenant)
    if selection.model is not None:
        found.append(events.c.model == selection.model)
    if selection.request_ids:
        found.append(source.c.request_id.in_(selection.request_ids))
    return found


def _requests(store: EvidenceStore, selection: Selection) -> Keys:
    """The requests named, and all that explain one of them again."""
    columns = (events.c.tenant, events.c.request_id, events.c.event_id, events.c.subjects)
    filed = select(*columns).where(events.c.event_type == "decision")
    filed = filed.where(*_conditions(EVIDENCE.name, selection))
    with store.reading() as connection:
        if selection.subject is not None:
            about = event_subjects.c.subject == selection.subject
            known = select(event_subjects.c.event_id).where(about)
            known = known.where(event_subjects.c.tenant == selection.tenant)
            filed = filed.where(events.c.event_id.in_(known))
        else:
            tenants = distinct(connection, events.c.tenant)
            named = [idempotency_key(t, name) for t in tenants for name in selection.request_ids]
            filed = filed.where(events.c.idempotency_key.in_(named))
        wanted = selection.subject
        found: Keys = {
            (row.tenant, row.request_id)
            for row in connection.execute(filed)
            if wanted is None or is_about(row, wanted)  # the index of them is no evidence
        }
        newest = found
        while newest:
            newest = _children(connection, newest) - found
            found |= newest
    return found


def _children(connection: Connection, keys: Keys) -> Keys:
    found: Keys = set()
    for tenant, names in _by_tenant(keys):
        child = select(events.c.tenant, events.c.request_id).where(
            events.c.tenant == tenant,
            events.c.event_type == "decision",
            events.c.parent_request_id.in_(names),
        )
        found |= {(row.tenant, row.request_id) for row in connection.execute(child)}
    return found


def _by_tenant(keys: Keys) -> Iterator[tuple[str, list[str]]]:
    ordered = sorted(keys)
    for tenant in sorted({tenant for tenant, _ in keys}):
        names = [request_id for owner, request_id in ordered if owner == tenant]
        for start in range(0, len(names), _NAMES):
            yield tenant, names[start : start + _NAMES]


def _events_of(store: EvidenceStore, keys: Keys) -> Iterator[str]:
    """Event IDs of requests: found by the time they were received, which all of them share."""
    with store.reading() as connection:
        for tenant, names in _by_tenant(keys):
            decisions = [idempotency_key(tenant, request_id) for request_id in names]
            times = select(events.c.received_us).where(events.c.idempotency_key.in_(decisions))
            types = distinct(connection, events.c.event_type, events.c.tenant == tenant)
            about = select(events.c.event_id).where(
                events.c.tenant == tenant,
                events.c.event_type.in_(types),
                events.c.received_us.in_(connection.scalars(times).all()),
                events.c.request_id.in_(names),
            )
            yield from [str(event_id) for event_id in connection.scalars(about)]


def _places_of(store: EvidenceStore, keys: Keys, size: int) -> list[int]:
    ids, places = list(_events_of(store, keys)), list[int]()
    with store.reading() as connection:
        for start in range(0, len(ids), _NAMES):
            some = log_entries.c.event_id.in_(ids[start : start + _NAMES])
            of_log = log_entries.c.log == EVIDENCE.name, log_entries.c.seq < size
            places += connection.scalars(select(log_entries.c.seq).where(*of_log, some)).all()
    return sorted(places)
