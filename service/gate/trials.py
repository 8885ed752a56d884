"""What a rollout showed, from the evidence store: the candidate beside the serving version.

A shadow has answered the very requests the serving version has, so its answers are compared pair
by pair; a canary has answered others, so only shares and means are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import orjson
from sqlalchemy import Row, literal, select, tuple_

from explainers.base import FloatArray
from service.accesses import at_the_machine, note
from service.drift.statistics import psi_expected
from service.errors import UnavailableError
from service.evidence import (
    DecisionFilter,
    EvidenceError,
    EvidenceStore,
    Record,
    StoredDecision,
)
from service.evidence.events import microseconds
from service.evidence.reading import erased_in
from service.evidence.tables import SOMETHING_ERASED, events
from service.gate.rows import may_be_used
from service.gate.statistics import PSI_BINS, correlation, psi, shares_of, spearman
from service.registry.rollouts import Rollout
from service.trials import fisher_greater

PAGE = 200


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """One stored answer: scores (N, K), values (N, F, C) or None, and how its explanation ended."""

    request_id: str
    version: int
    status: str | None
    seconds: float
    scores: FloatArray
    values: FloatArray | None


def trial_document(
    store: EvidenceStore, tenant: str, model: str, rollout: Rollout, *, most: int
) -> Mapping[str, object]:
    """The report on at most so many of its last requests. That they are read is in the access log.

    Raises UnavailableError.
    """
    try:
        note(store, at_the_machine("compare", tenant, model=model, most=most))
        until = rollout.ended_at or datetime.now(UTC)
        served = _decisions(store, tenant, model, (rollout.started_at, until), most)
        tried = [each for each in served if each.version == rollout.version]
        others = [each for each in served if each.version != rollout.version]
        if rollout.mode == "shadow":
            tried = _shadows(store, tenant, model, (rollout.started_at, until), most)
    except EvidenceError as error:
        raise UnavailableError(f"evidence store: {error}") from error
    return {
        "model": model,
        "mode": rollout.mode,
        "since": rollout.started_at,
        "until": until,
        "ended": rollout.reason,
        "serving": _arm(others),
        "candidate": {"version": rollout.version, **_arm(tried)},
        "comparison": _compared(others, tried, is_paired=rollout.mode == "shadow"),
    }


def _decisions(
    store: EvidenceStore, tenant: str, model: str, period: tuple[datetime, datetime], most: int
) -> list[Answered]:
    since, until = period
    matching = DecisionFilter(model=model, since=since, until=until)
    found: list[Answered] = []
    cursor, now = None, datetime.now(UTC)
    while len(found) < most:
        page = store.list(tenant, matching=matching, limit=PAGE, cursor=cursor)
        for record in store.records([(tenant, item.request_id) for item in page.items]):
            if isinstance(record, Record) and may_be_used(record, now):
                explained = record.part("explanation") if record.status else b"null"
                scores = record.decision.part("scores")
                found += _answered(record.decision, record.status, scores, explained)
        cursor = page.next_cursor
        if cursor is None:
            break
    return found[:most]


def _shadows(
    store: EvidenceStore, tenant: str, model: str, period: tuple[datetime, datetime], most: int
) -> list[Answered]:
    since, until = map(microseconds, period)
    place = tuple_(events.c.received_us, events.c.event_id)
    wanted = select(events, SOMETHING_ERASED).where(
        events.c.tenant == tenant,
        events.c.event_type == "shadow",
        events.c.received_us >= since,
        events.c.received_us < until,
        events.c.model == model,
    )
    wanted = wanted.order_by(events.c.received_us.desc(), events.c.event_id.desc()).limit(PAGE)
    found: list[Answered] = []
    page = wanted
    while len(found) < most:
        with store.reading() as connection:
            rows = connection.execute(page).all()
        found += _opened(store, tenant, rows)
        if len(rows) < PAGE:
            break
        last = literal(rows[-1].received_us), literal(rows[-1].event_id)
        page = wanted.where(place < tuple_(*last))
    return found[:most]


def _opened(
    store: EvidenceStore, tenant: str, rows: Sequence[Row[tuple[object, ...]]]
) -> list[Answered]:
    """What shadows answered to requests whose own records may be used."""
    found: list[Answered] = []
    now = datetime.now(UTC)
    usable = {
        record.decision.request_id
        for record in store.records([(tenant, row.request_id) for row in rows])
        if isinstance(record, Record) and may_be_used(record, now)
    }
    for row, unsealed in zip(rows, store.sealer.open(rows, erased=erased_in(rows)), strict=True):
        if unsealed is not None and row.request_id in usable:
            parts = {name: unsealed.payload[a:b] for name, (a, b) in unsealed.parts.items()}
            found += _answered(row, row.status, parts["scores"], parts["explanation"])
    return found


def _answered(
    event: StoredDecision | Row[tuple[object, ...]],
    status: str | None,
    scores: bytes,
    explained: bytes,
) -> list[Answered]:
    """Nothing where a subject's part of it is erased."""
    header, rows = orjson.loads(event.header), orjson.loads(scores)
    if rows is None or any(row is None for row in rows):
        return []
    explanation = orjson.loads(explained) if status == "complete" else None
    values = None if explanation is None else np.array(explanation["values"], np.float64)
    seconds = _moment(header["completed_at"]) - _moment(header["received_at"])
    answered = Answered(
        *(event.request_id, event.version, status, seconds),
        np.array(rows, np.float64),
        values,
    )
    return [answered]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _arm(answers: Sequence[Answered]) -> dict[str, object]:
    if not answers:
        return {"requests": 0}
    scores, seconds = _scores(answers), [each.seconds for each in answers]
    statuses = [each.status for each in answers]
    return {
        "requests": len(answers),
        "rows": len(scores),
        "explained": statuses.count("complete"),
        "failed_explanations": statuses.count("failed"),
        "median_seconds": float(np.median(seconds)),
        "p95_seconds": float(np.quantile(seconds, 0.95)),
        "mean_scores": scores.mean(axis=0).tolist(),
    }


def _scores(answers: Sequence[Answered]) -> FloatArray:
    found: FloatArray = np.concatenate([each.scores for each in answers])
    return found


def _compared(
    serving: Sequence[Answered], tried: Sequence[Answered], *, is_paired: bool
) -> dict[str, object]:
    if not serving or not tried:
        return {}
    found: dict[str, object] = {
        "score_psi": _psi(serving, tried),
        "score_psi_null": _psi_null(serving, tried),
        "p_failed": _p(serving, tried),
    }
    old, new = _values(serving), _values(tried)
    if old is not None and new is not None:
        before, after = shares_of(old), shares_of(new)
        found["spearman"] = spearman(before, after)
        found["share_shift"] = float(np.abs(after - before).max())
    return found | (_paired(serving, tried) if is_paired else {})


def _psi(serving: Sequence[Answered], tried: Sequence[Answered]) -> float:
    old, new = _scores(serving), _scores(tried)
    return max(psi(old[:, k], new[:, k]) for k in range(old.shape[1]))


def _psi_null(serving: Sequence[Answered], tried: Sequence[Answered]) -> float:
    """What the index is on average of so many scores where nothing differs (Yurdakul 2018)."""
    return psi_expected(PSI_BINS, len(_scores(serving)), len(_scores(tried)))


def _p(serving: Sequence[Answered], tried: Sequence[Answered]) -> float:
    """That the candidate's explanations fail so much oftener by chance."""
    counts = []
    for answers in (tried, serving):
        statuses = [each.status for each in answers]
        failed = statuses.count("failed")
        counts += [failed, failed + statuses.count("complete")]
    return fisher_greater(*counts)


def _values(answers: Sequence[Answered]) -> FloatArray | None:
    known = [each.values for each in answers if each.values is not None]
    return np.concatenate(known) if known else None


def _paired(serving: Sequence[Answered], tried: Sequence[Answered]) -> dict[str, object]:
    of_serving = {each.request_id: each for each in serving}
    pairs = [(of_serving[t.request_id], t) for t in tried if t.request_id in of_serving]
    if not pairs:
        return {"pairs": 0}
    old, new = _scores([a for a, _ in pairs]), _scores([b for _, b in pairs])
    found: dict[str, object] = {"pairs": len(old), "mean_gap": float(np.abs(new - old).mean())}
    if old.shape[1] > 1:
        found["label_flips"] = float((old.argmax(axis=1) != new.argmax(axis=1)).mean())
    both = [(a.values, b.values) for a, b in pairs if a.values is not None and b.values is not None]
    if both:
        first, second = (np.concatenate(side).ravel() for side in zip(*both, strict=True))
        found["attribution_correlation"] = correlation(first, second)
    return found
