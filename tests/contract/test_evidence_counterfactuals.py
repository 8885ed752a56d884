"""Counterfactuals about a record: as many as are asked for, erased with whom they are about."""

from dataclasses import replace
from pathlib import Path

import orjson
from decisions import STORED, change, decision, drop_rails
from disposals import ERASURE
from ledgers import KEYRING, sequencer
from tellings import told_later

from service.bundles.inspecting import Inspector
from service.disposal import erase, of_requests, of_subject
from service.evidence import (
    AppendOutcome,
    CounterfactualEvent,
    DecisionEvent,
    EvidenceStore,
    StoredDecision,
)
from service.evidence.counterfactuals import counterfactuals_of
from service.keystore import Kek, KeyStore
from service.ledger import Ledger
from service.verify import CONSISTENT

SUBJECTS = orjson.dumps(["anna", "bert"]).decode()


def told(about: DecisionEvent, *rows: object, actor: str = "ann") -> CounterfactualEvent:
    return told_later(about, CounterfactualEvent, {"counterfactuals": rows}, actor=actor)


def stored(store: EvidenceStore, about: DecisionEvent) -> StoredDecision:
    found = store.get(about.tenant, about.request_id)
    assert found is not None
    return found


def found(store: EvidenceStore, about: StoredDecision) -> list[object]:
    return [orjson.loads(each.part("counterfactuals")) for each in counterfactuals_of(store, about)]


def test_what_was_told_is_found_oldest_first_and_nothing_of_others(url: str) -> None:
    about = decision("request-one")
    twin = replace(decision("request-two"), received_at=about.received_at)
    with EvidenceStore.open(url) as store:
        first, again = (told(about, {"status": status}) for status in ("none_found", "found"))
        for event in (about, twin, first, again, told(twin, {})):
            assert store.append(event) is STORED
        assert store.append(again) is STORED  # once
        assert found(store, stored(store, about)) == [
            [{"status": "none_found"}],
            [{"status": "found"}],
        ]


def test_of_very_many_the_newest_are_found(url: str) -> None:
    about = decision("request-one")
    with EvidenceStore.open(url) as store:
        for event in (about, *(told(about, {"number": number}) for number in range(102))):
            assert store.append(event) is STORED
        numbers = [[{"number": number}] for number in range(2, 102)]
        assert found(store, stored(store, about)) == numbers


def test_it_goes_with_the_subject_of_its_instance_and_no_other(url: str, tmp_path: Path) -> None:
    about = replace(decision("request-one"), subjects=SUBJECTS)
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        for event in (about, told(about, {"to": "for anna"}, None), told(about, None, {"to": 1})):
            assert store.append(event) is STORED
        known = stored(store, about)
        order = replace(ERASURE, subject="anna")
        assert erase(store, of_subject(store, "default", "anna"), order).erased == 1
        assert found(store, known) == [[None, None], [None, {"to": 1}]]


def test_it_goes_with_its_record_and_none_comes_after(url: str) -> None:
    about = decision("request-one")
    with EvidenceStore.open(url) as store:
        for event in (about, told(about, {"status": "found"})):
            store.append(event)
        known = stored(store, about)
        assert erase(store, of_requests(store, "default", ["request-one"]), ERASURE).erased == 1
        assert found(store, known) == []
        assert store.append(told(about, {"status": "found"})) is AppendOutcome.CONFLICT
        assert found(store, known) == []


def test_an_inspection_finds_nothing_wrong_with_it(url: str, tmp_path: Path) -> None:
    about = replace(decision("request-one"), subjects=SUBJECTS)
    with EvidenceStore.open(url) as store:
        for event in (about, told(about, {"to": 1}, None), told(about, None, {"to": 2})):
            assert store.append(event) is STORED
        sequencer(store).run(is_last=True)
        verdict = Inspector(store, Ledger(store, KEYRING), tmp_path).inspect()
    assert verdict["verdict"] == CONSISTENT, verdict


def test_one_filed_under_other_subjects_than_its_record_is_found(url: str, tmp_path: Path) -> None:
    about = replace(decision("request-one"), subjects=SUBJECTS)
    other = replace(told(about, {"to": 1}, None), subjects=orjson.dumps(["bert", "anna"]).decode())
    with EvidenceStore.open(url) as store:
        for event in (about, other):
            assert store.append(event) is STORED
        sequencer(store).run(is_last=True)
        verdict = Inspector(store, Ledger(store, KEYRING), tmp_path).inspect()
    finding = {"seq": 1, "problem": "it is filed under other subjects than its request"}
    assert finding in verdict["logs"]["evidence"]["findings"]


def test_one_filed_as_if_there_could_be_no_other_is_found(url: str, tmp_path: Path) -> None:
    about = decision("request-one")
    with EvidenceStore.open(url) as store:
        for event in (about, told(about, {"to": 1})):
            assert store.append(event) is STORED
        sequencer(store).run(is_last=True)
        drop_rails(url)
        key = "'counterfactual/default/request-one'"
        change(
            url,
            f"UPDATE events SET idempotency_key = {key} WHERE event_type = 'counterfactual'",  # noqa: S608
        )
        verdict = Inspector(store, Ledger(store, KEYRING), tmp_path).inspect()
    assert any(
        finding["seq"] == 1 and "idempotency_key" in finding["problem"]
        for finding in verdict["logs"]["evidence"]["findings"]
    ), verdict
