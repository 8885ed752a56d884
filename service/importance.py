"""Mean importance of a model's columns over stored explanations, without saying anything of one
person.

What is published is fixed per UTC day that is over: the mean over that day's people, if there are
at least k of them, each counting once and up to a bound, plus Laplace noise that follows from the
day and the records behind it. A window is the mean of its days. So windows that overlap differ by
whole days of k people, asking again tells nothing new, and erasing a person's record draws new
noise. docs/privacy.md says what that does not cover.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import orjson

from explainers.base import FloatArray
from schemas import Violation
from service.errors import InvalidRequestError, StoreAwayError
from service.evidence import Among, EvidenceError, EvidenceLog, ListedDecision, Record
from service.keyed_hash import keyed_hash
from service.registry import RegisteredModel
from service.secrets import AGGREGATE_KEYS, Keyring, review_rank

MOST_DAYS = 31
DEFAULT_DAYS = 7
DAY_SAMPLE = 500
"""Explained requests looked at of each day, drawn by a keyed hash of their IDs."""

SETTLED_AFTER = timedelta(hours=1)
"""What is explained later than that after its day does not count: else each late explanation would
draw the day's noise again, and enough of them would average it out.
"""

RECORDS_AT_ONCE = 100
BOUND_FACTOR = 3.0
"""A person's share in a column's mean counts up to so many times the largest |value| of the golden
rows, which are fixed at registration: a bound that followed the data would tell of them.
"""
EPSILON = 1.0
"""Of each column's mean of each day."""

TOO_FEW = "too few people"
NO_EXPLANATIONS = "this model is not explained"


@dataclass(frozen=True, slots=True, eq=False)
class DayMeans:
    """Of one day: how many people, and (F,) mean importances, noisy."""

    people: int
    means: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """One model's importances as far as they are shown.

    means: (F,), in the units of output_space; None with the reason. withheld_days: those of the
    window that had explanations of fewer than k people, or are not over.
    """

    people: int
    days: int
    withheld_days: int
    means: FloatArray | None
    reason: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Importances:
    """Computes them; one per process. k: people a day must have."""

    evidence: EvidenceLog
    keyring: Keyring
    k: int
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def of(
        self, tenant: str, model: RegisteredModel, window: tuple[date, date]
    ) -> Importance:
        """Over the days [since, until). Cost: a millisecond for each explanation of the sample.

        Raises StoreAwayError.
        """
        if model.largest_value is None:
            return Importance(0, 0, 0, None, NO_EXPLANATIONS)
        shown: list[DayMeans] = []
        for day in _days(window):
            means = await self._day(tenant, model, day)
            if means is not None:
                shown.append(means)
        withheld = (window[1] - window[0]).days - len(shown)
        people = sum(day.people for day in shown)
        if not shown:
            return Importance(0, 0, withheld, None, TOO_FEW)
        means = np.sum([day.people * day.means for day in shown], axis=0) / people
        return Importance(people, len(shown), withheld, means, None)

    async def _day(self, tenant: str, model: RegisteredModel, day: date) -> DayMeans | None:
        """None where fewer than k people stand behind that day, or it is not over."""
        start = datetime.combine(day, time(), UTC)
        period = (start, start + timedelta(days=1))
        settled_at = period[1] + SETTLED_AFTER
        if settled_at > self.now():
            return None
        rank = review_rank(self.keyring, tenant, model.name, AGGREGATE_KEYS)
        try:
            sample = await self.evidence.sample(
                tenant,
                model.name,
                period=period,
                size=DAY_SAMPLE,
                rank=rank,
                among=Among(stored_by=settled_at),
            )
            records = await self._records(tenant, model, sample)
        except EvidenceError:
            raise StoreAwayError from None
        assert model.largest_value is not None
        bound = BOUND_FACTOR * model.largest_value
        shares = await asyncio.to_thread(_shares, records, len(model.schema.columns))
        if len(shares) < self.k:
            return None
        means = np.minimum(np.array(list(shares.values())), bound).mean(axis=0)
        facts = [model.digest, day.isoformat(), sorted(r.decision.event_id for r in records)]
        key = self.keyring.key(tenant, AGGREGATE_KEYS)
        noise = laplace(key, facts, len(means), scale=bound / (len(shares) * EPSILON))
        return DayMeans(len(shares), means + noise)

    async def _records(
        self, tenant: str, model: RegisteredModel, sample: Sequence[ListedDecision]
    ) -> list[Record]:
        ids = [item.request_id for item in sample if item.model_digest == model.digest]
        records: list[Record] = []
        for start in range(0, len(ids), RECORDS_AT_ONCE):
            some = ids[start : start + RECORDS_AT_ONCE]
            found = await self.evidence.records([(tenant, request_id) for request_id in some])
            records += [record for record in found if isinstance(record, Record)]
        return records


def window_of(since: date | None, until: date | None) -> tuple[date, date]:
    """The days asked for; the last DEFAULT_DAYS that are over where nothing is said.

    Raises InvalidRequestError for none, or more than MOST_DAYS.
    """
    end = until or datetime.now(UTC).date()
    begin = since or end - min(timedelta(days=DEFAULT_DAYS), end - date.min)
    if not 1 <= (end - begin).days <= MOST_DAYS:
        detail = f"since and until must be 1 to {MOST_DAYS} days apart"
        raise InvalidRequestError("see errors", errors=[Violation("?since", detail, "bad_window")])
    return begin, end


def laplace(key: bytes, facts: object, count: int, *, scale: float) -> FloatArray:
    """(count,) draws that follow from the key and the facts: the same for the same facts."""
    message = hashlib.sha256(orjson.dumps(facts)).digest()
    draws = []
    for number in range(count):
        code = keyed_hash(key, message + number.to_bytes(4, "big"))
        u = (int.from_bytes(code[:7], "big") >> 3) / 2.0**53 - 0.5  # in [-0.5, 0.5)
        draws.append(
            -scale * math.copysign(1.0, u) * math.log1p(-2.0 * min(abs(u), 0.5 - 2.0**-54))
        )
    return np.array(draws)


def _days(window: tuple[date, date]) -> list[date]:
    since, until = window
    return [since + timedelta(days=n) for n in range((until - since).days)]


def _shares(records: Sequence[Record], n_columns: int) -> dict[str, FloatArray]:
    """By person, (F,) the mean over his rows of |value|, summed over outputs.

    A person is a keyed subject; rows that name none count as one person per request, together with
    what explains the same request again.
    """
    rows: dict[str, list[FloatArray]] = {}
    for record in records:
        explanation = orjson.loads(record.part("explanation"))
        values = explanation["values"] or ()
        for person, row in zip(_people(record, len(values)), values, strict=True):
            if row is not None and len(row) == n_columns:  # None: of a subject that was erased
                rows.setdefault(person, []).append(np.abs(np.array(row)).sum(axis=1))
    return {person: np.mean(weights, axis=0) for person, weights in rows.items()}


def _people(record: Record, n_rows: int) -> list[str]:
    decision = record.decision
    request = "request/" + (decision.parent_request_id or decision.request_id)
    if decision.subjects is None or not n_rows:
        return [request] * n_rows
    subjects = orjson.loads(decision.subjects)
    return [request if subject is None else subject for subject in subjects]


def importance_document(
    model: RegisteredModel, window: tuple[date, date], found: Importance, k: int
) -> Mapping[str, object]:
    """GET /models/{name}/importance."""
    since, until = window
    means = None
    if found.means is not None:
        shown = [max(0.0, float(f"{mean:.4g}")) for mean in found.means]
        means = dict(zip(model.schema.names, shown, strict=True))
    return {
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
        "since": since,
        "until": until,
        "output_space": model.manifest.explainer.output_space,
        "people": found.people,
        "days": found.days,
        "withheld_days": found.withheld_days,
        "importance": means,
        "reason": found.reason,
        "k": k,
        "epsilon": EPSILON,
    }
