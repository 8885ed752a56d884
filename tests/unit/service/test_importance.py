"""Mean importances: right on average, of whole days of k people, and of nobody in particular."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import orjson
import pytest
from decisions import START, TEMPLATE, decision

from service.errors import InvalidRequestError
from service.evidence import DecisionEvent, EvidenceLog, laid_out
from service.importance import (
    BOUND_FACTOR,
    DAY_SAMPLE,
    Importance,
    Importances,
    importance_document,
    laplace,
    window_of,
)
from service.registry import RegisteredModel
from service.secrets import Keyring
from service.uuid7 import Uuid7Source

K, COLUMNS, LARGEST = 20, 2, 1.0
DAY = START.date()
ONE_DAY = (DAY, DAY + timedelta(days=1))
KEYRING = Keyring(b"k" * 32)
DIGEST = "sha256:" + "0" * 64


def model(largest: float | None = LARGEST, digest: str = DIGEST) -> RegisteredModel:
    """What importances need of a model: a name, a digest, a bound, columns."""
    explainer = SimpleNamespace(output_space="log_odds")
    return cast(
        "RegisteredModel",
        SimpleNamespace(
            name="credit",
            version=3,
            digest=digest,
            largest_value=largest,
            schema=SimpleNamespace(columns=("a", "b"), names=("a", "b")),
            manifest=SimpleNamespace(explainer=explainer),
        ),
    )


def explained(
    *rows: Sequence[float],
    subjects: Sequence[str | None] | None = None,
    day: int = 0,
    late: timedelta = timedelta(),
    parent: str | None = None,
) -> DecisionEvent:
    """A complete record of these contributions (N, F), made on a day after DAY's noon."""
    values = [[[value] for value in row] for row in rows]
    payload, parts = laid_out(
        [b'{"explanation":', orjson.dumps({"values": values}), b"}"], ["explanation"]
    )
    event = decision(minute=day * 24 * 60)
    return replace(
        event,
        payload=payload,
        parts=parts,
        parent_request_id=parent,
        subjects=None if subjects is None else orjson.dumps(subjects).decode(),
        event_id=event_id_at(event.received_at + late),
    )


def event_id_at(moment: datetime) -> str:
    return Uuid7Source(clock_nanoseconds=lambda: int(moment.timestamp() * 10**9))()


def people(count: int, *, day: int = 0, row: Sequence[float] = (0.2, -0.4)) -> list[DecisionEvent]:
    return [explained(row, subjects=[f"{day}-{n}"], day=day) for n in range(count)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EvidenceLog]:
    log = await EvidenceLog.open(f"sqlite:///{tmp_path / 'evidence.db'}")
    yield log
    await log.close()


async def found(
    log: EvidenceLog,
    *events: DecisionEvent,
    window: tuple[date, date] = ONE_DAY,
    of: RegisteredModel | None = None,
    keyring: Keyring = KEYRING,
) -> Importance:
    for event in events:
        await log.append(event)
    return await Importances(log, keyring, K).of("default", of or model(), window)


async def test_fewer_than_k_people_are_withheld(log: EvidenceLog) -> None:
    few = await found(log, *people(K - 1))
    assert (few.means, few.reason, few.people, few.withheld_days) == (None, "too few people", 0, 1)
    enough = await found(log, explained((0.2, -0.4), subjects=["one more"]))
    assert enough.means is not None
    assert (enough.people, enough.days, enough.withheld_days) == (K, 1, 0)


async def test_many_rows_of_few_people_are_few_people(log: EvidenceLog) -> None:
    rows = [(0.2, -0.4)] * 50
    same = explained(*rows, subjects=["ann"] * 50)
    unnamed = explained(*rows)
    half = explained(*rows, subjects=["ann", None] * 25)
    again = [explained(*rows, parent=unnamed.request_id) for _ in range(K)]
    assert (await found(log, same, unnamed, half, *again)).means is None


async def test_each_person_counts_once_and_up_to_the_bound(log: EvidenceLog) -> None:
    crowd = people(400, row=(0.0, 0.0))
    loud = explained(*[(1000.0, 0.0)] * 300, subjects=["loud"] * 300)
    means = (await found(log, *crowd, loud)).means
    assert means is not None
    assert abs(means[0]) < 40 * BOUND_FACTOR * LARGEST / 401


async def test_means_are_right_up_to_noise_of_the_stated_scale(log: EvidenceLog) -> None:
    events = people(100)
    errors = []
    for n in range(60):
        keyring = Keyring(n.to_bytes(32, "big"))
        means = (await found(log, *(events if n == 0 else ()), keyring=keyring)).means
        assert means is not None
        errors += list(means - [0.2, 0.4])
    scale = BOUND_FACTOR * LARGEST / 100
    assert 0.6 * scale < float(np.mean(np.abs(errors))) < 1.6 * scale
    assert abs(float(np.mean(errors))) < 0.6 * scale


async def test_asking_again_averages_nothing_out(log: EvidenceLog) -> None:
    first = await found(log, *people(K))
    second = await found(log)
    assert first.means is not None
    assert second.means is not None
    assert first.means.tolist() == second.means.tolist() != [0.2, 0.4]


async def test_windows_that_overlap_differ_by_whole_days(log: EvidenceLog) -> None:
    await found(log, *people(30), *people(50, day=1), *people(K - 1, day=2))
    one, other = DAY, DAY + timedelta(days=1)
    days = [(await found(log, window=(d, d + timedelta(days=1)))) for d in (one, other)]
    both = await found(log, window=(one, other + timedelta(days=1)))
    wider = await found(log, window=(one - timedelta(days=3), other + timedelta(days=3)))
    assert both.means is not None
    joined = (30 * days[0].means + 50 * days[1].means) / 80  # type: ignore[operator]
    assert both.means == pytest.approx(joined)
    assert wider.means is not None
    assert wider.means.tolist() == both.means.tolist()
    assert (wider.people, wider.days, wider.withheld_days) == (80, 2, 5)


async def test_erasing_somebody_draws_new_noise(log: EvidenceLog, tmp_path: Path) -> None:
    rows = people(30)
    before = (await found(log, *rows)).means
    other = await EvidenceLog.open(f"sqlite:///{tmp_path / 'other.db'}")
    try:
        after = (await found(other, *rows[1:])).means
    finally:
        await other.close()
    assert before is not None
    assert after is not None
    gone = (30 * before - 29 * after).tolist()
    assert abs(gone[0] - 0.2) > 1e-3
    assert abs(gone[1] - 0.4) > 1e-3


async def test_rows_of_an_erased_subject_do_not_count(log: EvidenceLog) -> None:
    gone = explained((0.2, -0.4), (0.2, -0.4), subjects=["anna", "bert"])
    payload, parts = laid_out(
        [b'{"explanation":', orjson.dumps({"values": [None, [[0.2], [-0.4]]]}), b"}"],
        ["explanation"],
    )
    left = replace(gone, payload=payload, parts=parts)
    nothing = replace(
        explained(), payload=b'{"explanation":{"values":null}}', parts={"explanation": (15, 30)}
    )
    assert (await found(log, *people(K - 1), left, nothing)).people == K


async def test_what_was_explained_much_later_does_not_count(log: EvidenceLog) -> None:
    before = await found(log, *people(K))
    late = explained((9.0, 9.0), subjects=["late"], late=timedelta(hours=14))
    after = await found(log, late)
    assert before.means is not None
    assert after.means is not None
    assert after.means.tolist() == before.means.tolist()


async def test_a_day_that_is_not_over_is_withheld(log: EvidenceLog) -> None:
    now = datetime.now(UTC)
    events = [
        replace(event, received_at=now, completed_at=now, event_id=event_id_at(now))
        for event in people(K + 5)
    ]
    today = await found(log, *events, window=(now.date(), now.date() + timedelta(days=1)))
    assert (today.means, today.withheld_days) == (None, 1)


async def test_other_versions_and_models_do_not_count(log: EvidenceLog) -> None:
    events = people(K)
    other = await found(log, *events, of=model(digest="sha256:" + "1" * 64))
    assert other.means is None
    assert events[0].template is TEMPLATE
    assert (await found(log)).means is not None


async def test_a_model_without_explanations_says_so(log: EvidenceLog) -> None:
    nothing = await found(log, of=model(None))
    assert (nothing.means, nothing.reason) == (None, "this model is not explained")


async def test_a_day_is_sampled(log: EvidenceLog) -> None:
    assert (await found(log, *people(DAY_SAMPLE + 30))).people == DAY_SAMPLE


@pytest.mark.parametrize(
    ("since", "until"),
    [(DAY, DAY), (DAY + timedelta(days=1), DAY), (DAY, DAY + timedelta(days=32))],
)
def test_a_window_has_1_to_31_days(since: date, until: date) -> None:
    with pytest.raises(InvalidRequestError):
        window_of(since, until)
    assert window_of(DAY, DAY + timedelta(days=31)) == (DAY, DAY + timedelta(days=31))
    assert window_of(None, DAY) == (DAY - timedelta(days=7), DAY)
    assert window_of(None, date(1, 1, 3)) == (date(1, 1, 1), date(1, 1, 3))


def test_noise_follows_from_key_and_facts_and_is_laplace() -> None:
    draws = laplace(b"k" * 32, ["a"], 4000, scale=2.0)
    assert draws.tolist() == laplace(b"k" * 32, ["a"], 4000, scale=2.0).tolist()
    assert not np.isclose(draws, laplace(b"k" * 32, ["b"], 4000, scale=2.0)).any()
    assert not np.isclose(draws, laplace(b"l" * 32, ["a"], 4000, scale=2.0)).any()
    assert float(np.mean(np.abs(draws))) == pytest.approx(2.0, rel=0.1)
    assert float(np.median(draws)) == pytest.approx(0.0, abs=0.15)
    assert float(np.mean(np.abs(draws) > 2.0)) == pytest.approx(np.exp(-1), abs=0.03)


def test_the_document_shows_nothing_below_zero() -> None:
    shown = importance_document(
        model(), ONE_DAY, Importance(K, 1, 0, np.array([-0.01, 0.123456]), None), K
    )
    assert shown["importance"] == {"a": 0.0, "b": 0.1235}
    assert (
        importance_document(model(), ONE_DAY, Importance(0, 0, 1, None, "x"), K)["importance"]
        is None
    )
