"""Decisions that were labelled, with the last labels of each: read hour by hour, in pages."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Row, exists, func, literal_column, select, tuple_

from service.evidence.errors import ErasedError, UnreadablePayloadError
from service.evidence.events import idempotency_key
from service.evidence.reading import erased_in, stored_decision, stored_repeatable, unerased
from service.evidence.store import EvidenceStore
from service.evidence.tables import ALL_ERASED, IS_LABEL, SOMETHING_ERASED, events, holds
from service.evidence.unsealing import Unsealed

PAGE = 100
"""Decisions opened at once: of 1,000 instances each they are some 10 MB."""

HOUR_US = 3_600_000_000
_IN_QUARANTINE = exists().where(
    holds.c.tenant == events.c.tenant,
    holds.c.request_id == events.c.request_id,
    holds.c.kind == "quarantine",
)
OpenedRow = tuple[Row[tuple[object, ...]], Unsealed | UnreadablePayloadError | None]


class LabelledHour(NamedTuple):
    """The decisions of one version received in one hour, and how many label events are about them.

    last_event: the ID of the youngest.
    """

    model: str
    version: int
    started_us: int
    label_events: int
    last_event: str


class Outcome(NamedTuple):
    """What was predicted of the instances of one decision and what they turned out to be, each as
    JSON says it; None for an instance without one.
    """

    predictions: Sequence[dict[str, object] | None]
    labels: Sequence[object]


def labelled_hours(store: EvidenceStore, *, since_us: int) -> list[LabelledHour]:
    """All hours with labels that begin at since_us or later.

    Cost: an index entry for each label event of that time. Raises StoreUnavailableError.
    """
    started = (events.c.received_us - events.c.received_us % HOUR_US).label("started_us")
    query = (
        select(
            events.c.model,
            events.c.version,
            started,
            func.count().label("label_events"),
            func.max(events.c.event_id).label("last_event"),
        )
        .where(IS_LABEL, events.c.received_us >= since_us)
        .group_by(events.c.model, events.c.version, literal_column("started_us"))
    )
    with store.reading() as connection:
        return [LabelledHour(*row) for row in connection.execute(query)]


def outcomes(store: EvidenceStore, hour: LabelledHour) -> Iterator[list[Outcome]]:
    """Pages of that hour's labelled decisions, each once, with whoever's labels came last.

    Only these payloads are opened. What was erased, is in quarantine or cannot be opened is left
    out.
    Raises StoreUnavailableError.
    """
    after: tuple[int, str, str] | None = None
    while True:
        names = _last_labels(store, hour, after)
        if names:
            yield _opened_outcomes(store, names)
            after = names[-1].received_us, names[-1].tenant, names[-1].request_id
        if len(names) < PAGE:
            return


def _last_labels(
    store: EvidenceStore, hour: LabelledHour, after: tuple[int, str, str] | None
) -> Sequence[Row[int, str, str, str]]:
    place = events.c.received_us, events.c.tenant, events.c.request_id
    query = select(*place, func.max(events.c.event_id).label("event_id")).where(
        IS_LABEL,
        events.c.received_us >= (hour.started_us if after is None else after[0]),
        events.c.received_us < hour.started_us + HOUR_US,
        events.c.model == hour.model,
        events.c.version == hour.version,
        ~_IN_QUARANTINE,
    )
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*after))
    with store.reading() as connection:
        return connection.execute(query.group_by(*place).order_by(*place).limit(PAGE)).all()


def _opened_outcomes(
    store: EvidenceStore, names: Sequence[Row[int, str, str, str]]
) -> list[Outcome]:
    labels = _opened(store, "event_id", [row.event_id for row in names])
    keys = [idempotency_key(row.tenant, row.request_id) for row in names]
    decisions = _opened(store, "idempotency_key", keys)
    found = []
    for name, key in zip(names, keys, strict=True):
        if name.event_id in labels and key in decisions:
            outcome = _outcome(decisions[key], labels[name.event_id])
            found += [] if outcome is None else [outcome]
    return found


def _opened(store: EvidenceStore, column: str, wanted: Sequence[str]) -> dict[str, OpenedRow]:
    query = select(events, SOMETHING_ERASED, ALL_ERASED).where(events.c[column].in_(wanted))
    with store.reading() as connection:
        rows = connection.execute(query).all()
    each = store.sealer.open_each(rows, erased=erased_in(rows))
    return {str(getattr(row, column)): (row, found) for row, found in zip(rows, each, strict=True)}


def _outcome(decision: OpenedRow, label: OpenedRow) -> Outcome | None:
    (decided, prediction), (voted, vote) = decision, label
    if isinstance(prediction, UnreadablePayloadError) or isinstance(vote, UnreadablePayloadError):
        return None
    try:
        predicted = stored_decision(unerased(decided), prediction).part("predictions")
        said = stored_repeatable(voted, vote).part("labels")
    except (ErasedError, KeyError):
        return None
    outcome = Outcome(orjson.loads(predicted), orjson.loads(said))
    return outcome if len(outcome.predictions) == len(outcome.labels) else None
