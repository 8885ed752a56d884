"""Triggers and their webhook calls: once an episode, whoever looks, on both databases."""

import hmac
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from labelling import Receiver, receiving

from service.errors import UnknownError, UsageError
from service.evidence import EvidenceStore
from service.retraining import telling, triggers
from service.retraining.telling import Webhook
from service.retraining.triggers import Decided, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
REASON = Reason("credit", 3, "performance", {"measure": "auc", "worse": 0.11})
KEY = b"k" * 32


@pytest.fixture
def replicas(url: str) -> Iterator[list[EvidenceStore]]:
    with EvidenceStore.open(url) as one, EvidenceStore.open(url) as other:
        yield [one, other]


@pytest.fixture
def store(replicas: list[EvidenceStore]) -> EvidenceStore:
    return replicas[0]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def raised(store: EvidenceStore) -> str:
    trigger_id = triggers.raise_once(store, REASON, NOW)
    assert trigger_id is not None
    return trigger_id


def at(receiver: Receiver, seconds: float = 0) -> Webhook:
    return Webhook(receiver.url, KEY, lambda: NOW + timedelta(seconds=seconds))


def said(verdict: triggers.Verdict) -> Decided:
    return Decided(verdict, "cli:ann", "case 7", NOW + timedelta(hours=1))


def test_of_two_replicas_one_raises_and_one_tells(
    replicas: list[EvidenceStore], receiver: Receiver
) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = replicas * 4
        found = list(pool.map(lambda s: triggers.raise_once(s, REASON, NOW), stores))
        taken = list(pool.map(at(receiver).tell, stores))
    assert sum(one is not None for one in found) == 1
    assert (sum(taken), len(receiver.calls)) == (1, 1)


def test_calls_that_replicas_claim_at_once_are_made_once(
    replicas: list[EvidenceStore], receiver: Receiver
) -> None:
    for version in range(20):
        triggers.raise_once(replicas[0], replace(REASON, version=version), NOW)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(at(receiver).tell, replicas * 4))
    assert (sum(taken), len(receiver.calls)) == (20, 20)


def test_a_restart_neither_raises_nor_tells_again(url: str, receiver: Receiver) -> None:
    for turn in range(3):
        with EvidenceStore.open(url) as store:
            assert (triggers.raise_once(store, REASON, NOW) is not None) == (turn == 0)
            at(receiver, 3600 * turn).tell(store)
    assert len(receiver.calls) == 1


def test_a_call_is_signed_with_its_time_and_says_what_was_measured(
    store: EvidenceStore, receiver: Receiver
) -> None:
    trigger_id = raised(store)
    at(receiver).tell(store)
    ((headers, body),) = receiver.calls
    signed = headers["explaind-timestamp"].encode() + b"." + body
    expected = hmac.new(KEY, signed, "sha256").hexdigest()
    assert headers["explaind-signature"] == f"sha256={expected}"
    assert headers["explaind-delivery"] == f"{trigger_id}/raised"
    assert json.loads(body) == {
        "format": "explaind-retrain/1",
        "trigger": trigger_id,
        "event": "raised",
        "at": "2026-03-01T12:00:00Z",
        "model": "credit",
        "version": 3,
        "cause": "performance",
        "facts": {"measure": "auc", "worse": 0.11},
    }


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_refused_call_is_made_again_later_by_whoever_is_there(
    replicas: list[EvidenceStore], receiver: Receiver, status: int
) -> None:
    raised(replicas[0])
    receiver.statuses = [status, status]
    assert at(receiver).tell(replicas[0]) == 0
    assert at(receiver, 9).tell(replicas[1]) == 0
    assert len(receiver.calls) == 1
    assert at(receiver, 11).tell(replicas[1]) == 0
    assert at(receiver, 25).tell(replicas[1]) == 0  # the second pause is twice as long
    assert len(receiver.calls) == 2
    assert telling.waiting(replicas[0], NOW) == 1
    assert at(receiver, 32).tell(replicas[0]) == 1
    assert at(receiver, 9999).tell(replicas[0]) == 0
    assert (len(receiver.calls), telling.waiting(replicas[0], NOW)) == (3, 0)


def test_a_receiver_that_is_away_for_a_week_is_given_up(
    store: EvidenceStore, receiver: Receiver
) -> None:
    raised(store)
    away = replace(at(receiver), url="http://127.0.0.1:9/")
    assert away.tell(store) == 0
    assert telling.waiting(store, NOW) == 1
    assert replace(away, clock=lambda: NOW + timedelta(days=7, hours=1)).tell(store) == 0
    assert telling.waiting(store, NOW) == 0


def test_a_claimed_call_of_a_process_that_died_is_another_s_after_a_minute(
    store: EvidenceStore, receiver: Receiver
) -> None:
    raised(store)
    assert telling.claim(store, NOW) is not None
    assert at(receiver, 30).tell(store) == 0
    assert at(receiver, 61).tell(store) == 1


def test_an_approval_is_recorded_and_told_without_who_gave_it(
    store: EvidenceStore, receiver: Receiver
) -> None:
    trigger_id = raised(store)
    at(receiver).tell(store)
    found = triggers.decide(store, trigger_id, said("approved"))
    assert (found.state, found.is_needed, found.decided) == ("approved", True, said("approved"))
    assert triggers.listed(store, 10) == [found]
    at(receiver, 7200).tell(store)
    assert [one["event"] for one in receiver.documents] == ["raised", "approved"]
    assert b"ann" not in receiver.calls[1][1]
    assert b"case" not in receiver.calls[1][1]


def test_a_dismissed_trigger_is_not_told_and_keeps_its_episode_quiet(
    store: EvidenceStore, receiver: Receiver
) -> None:
    found = triggers.decide(store, raised(store), said("dismissed"))
    assert (found.state, found.is_needed) == ("dismissed", False)
    assert triggers.raise_once(store, REASON, NOW) is None
    at(receiver, 7200).tell(store)
    assert [one["event"] for one in receiver.documents] == ["raised"]


def test_a_trigger_is_decided_once_and_only_while_it_stands(store: EvidenceStore) -> None:
    trigger_id = raised(store)
    triggers.decide(store, trigger_id, said("dismissed"))
    with pytest.raises(UsageError, match="is dismissed already"):
        triggers.decide(store, trigger_id, said("approved"))
    with pytest.raises(UnknownError):
        triggers.decide(store, "no-such", said("approved"))
    triggers.close(store, REASON.standing, NOW, "better")
    with pytest.raises(UsageError, match="is closed already"):
        triggers.decide(store, trigger_id, said("approved"))


def test_after_its_end_an_episode_may_begin_again(store: EvidenceStore) -> None:
    first = raised(store)
    assert triggers.close(store, REASON.standing, NOW, "better")
    assert not triggers.close(store, REASON.standing, NOW, "better")
    assert triggers.standing(store) == []
    second = raised(store)
    assert [one.trigger_id for one in triggers.standing(store)] == [second]
    assert [(one.trigger_id, one.state) for one in triggers.listed(store, 10)] == [
        (second, "open"),
        (first, "closed"),
    ]


def test_causes_and_versions_have_episodes_of_their_own(store: EvidenceStore) -> None:
    raised(store)
    for other in (replace(REASON, cause="drift"), replace(REASON, version=4)):
        assert triggers.raise_once(store, other, NOW) is not None
    assert len(triggers.standing(store)) == 3


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:99999/", "http://a..b/", "http://127.0.0.1:9/\u00e9", "http://[x/"],
)
def test_an_address_that_cannot_be_called_is_a_call_to_be_made_again(
    store: EvidenceStore, receiver: Receiver, address: str
) -> None:
    raised(store)
    assert replace(at(receiver), url=address).tell(store) == 0
    assert telling.waiting(store, NOW) == 1


def test_who_turns_the_webhook_on_is_told_what_stands_and_is_young(
    store: EvidenceStore, receiver: Receiver
) -> None:
    old = triggers.raise_once(store, replace(REASON, version=1), NOW - timedelta(days=8))
    triggers.raise_once(store, replace(REASON, version=2), NOW)
    triggers.close(store, replace(REASON, version=2).standing, NOW, "better")
    young = raised(store)
    approved = triggers.raise_once(store, replace(REASON, version=4), NOW - timedelta(days=9))
    assert old is not None
    assert approved is not None
    triggers.decide(store, approved, replace(said("approved"), at=NOW))
    triggers.close(store, replace(REASON, version=4).standing, NOW, "better")
    assert telling.waiting(store, NOW) == 2
    at(receiver).tell(store)
    told = {(one["trigger"], one["event"]) for one in receiver.documents}
    assert told == {(young, "raised"), (approved, "approved")}
