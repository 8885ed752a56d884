"""Holds: they beat erasure and expiry; quarantine keeps readers out too."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from decisions import START, decision
from disposals import AGES, ERASURE, ORDER, is_gone, types_of

from service.disposal import (
    Order,
    erase,
    hold,
    of_model,
    of_requests,
    purge,
    release,
    standing_holds,
    survey,
)
from service.errors import UsageError
from service.evidence import (
    EvidenceStore,
    InQuarantineError,
)


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as opened:
        yield opened


@pytest.mark.parametrize("age", list(AGES))
@pytest.mark.parametrize("standing", ["no hold", "held", "released"])
@pytest.mark.parametrize("deed", ["erase", "purge"])
def test_a_hold_beats_erasure_and_expiry_and_only_what_is_past_its_grace_is_purged(
    store: EvidenceStore, age: str, standing: str, deed: str
) -> None:
    store.append(decision("of-the-matrix"))
    keys = of_requests(store, "default", ["of-the-matrix"])
    if standing != "no hold":
        assert hold(store, keys, ORDER).changed == 1
    if standing == "released":
        assert release(store, keys, ORDER).changed == 1
    if deed == "erase":
        found = erase(store, keys, ERASURE)
        assert (found.erased, len(found.held)) == ((0, 1) if standing == "held" else (1, 0))
    else:
        purged = purge(store, "purge", now=AGES[age])
        is_due = age == "expired past grace"
        assert purged.total == int(is_due and standing != "held")
        assert purged.held == int(is_due and standing == "held")
    expected = standing != "held" and (deed == "erase" or age == "expired past grace")
    assert is_gone(store, "of-the-matrix") is expected
    assert types_of(store, "of-the-matrix").count({"erase": "erasure"}.get(deed, deed)) == expected


def test_hold_and_release_alternate_and_the_last_of_several_holds_counts(
    store: EvidenceStore,
) -> None:
    store.append(decision("held-often"))
    keys = of_requests(store, "default", ["held-often"])
    other = replace(ORDER, reason="case-8")
    for _ in range(2):
        assert hold(store, keys, ORDER).changed == 1
        assert hold(store, keys, ORDER).unchanged == 1
        assert hold(store, keys, other).changed == 1
        assert release(store, keys, ORDER, placed_for="case-7").changed == 1
        assert [each.reason for each in standing_holds(store)] == ["case-8"]
        assert len(survey(store, keys).held) == 1
        assert release(store, keys, ORDER).changed == 1
        assert release(store, keys, ORDER).unchanged == 1
    assert standing_holds(store, "default") == []
    assert types_of(store, "held-often") == [
        "decision",
        *["hold", "hold", "release", "release"] * 2,
    ]
    assert erase(store, keys, ERASURE).erased == 1
    assert hold(store, keys, ORDER).gone == 1


def test_a_model_is_held_for_a_time_page_by_page(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.targets._PAGE", 3)
    monkeypatch.setattr("service.disposal.targets.BATCH", 2)
    for minute in range(10):
        store.append(decision(f"at-minute-{minute}", minute=minute))
    period = START + timedelta(minutes=2), START + timedelta(minutes=9)
    counts: list[int] = []
    keys = of_model(store, "default", "credit", period)
    held = hold(store, keys, ORDER, progress=counts.append)
    assert (held.changed, counts) == (7, [2, 4, 6, 7])
    assert len(list(of_model(store, "default", "credit", (None, None)))) == 10
    assert list(of_model(store, "default", "other", (None, None))) == []


def test_quarantine_keeps_a_record_and_keeps_everybody_from_it(store: EvidenceStore) -> None:
    store.append(decision("leaked-one"))
    keys = of_requests(store, "default", ["leaked-one"])
    assert hold(store, keys, ORDER, kind="quarantine").changed == 1
    with pytest.raises(InQuarantineError):
        store.record("default", "leaked-one")
    assert erase(store, keys, ERASURE).held == (("default", "leaked-one"),)
    assert purge(store, "purge", now=AGES["expired past grace"]).held == 1
    assert release(store, keys, ORDER).changed == 0
    assert release(store, keys, ORDER, kind="quarantine").changed == 1
    assert not is_gone(store, "leaked-one")


@pytest.mark.parametrize("reason", ["", "Max Mustermann", "a" * 65, "x@y.example", "ü"])
def test_a_reason_is_a_code_and_no_prose(reason: str) -> None:
    with pytest.raises(UsageError):
        Order("cli:test", reason, datetime.now(UTC))
