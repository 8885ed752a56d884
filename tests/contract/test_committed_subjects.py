"""Whom a record is about is committed to: who files it under nobody, or another, is found."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from decisions import change, decision, drop_rails, final, pending
from disposals import ERASURE, EXPIRY, add_beside
from ledgers import KEYRING, query, sequencer

from service.bundles import Exporter, Selection
from service.bundles.inspecting import Inspector
from service.disposal import PURGE_GRACE, Erasing, erase, of_subject, purge
from service.errors import UnknownError
from service.evidence import DecisionEvent, EvidenceStore, laid_out
from service.keystore import Kek, KeyStore
from service.ledger import Ledger
from service.verify import CONSISTENT, Json

ANNA, BERT = "4d7e-anna", "9f21-bert"
FINDING = "its payload is about other subjects than it is filed under"
ELSEWHERE = "it is filed under other subjects than its request"
LONG_AFTER = EXPIRY + 2 * PURGE_GRACE
Inspected = Callable[[], Json]


@pytest.fixture(params=["encrypted", "plain"])
def store(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[EvidenceStore]:
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        own = keys if request.param == "encrypted" else None
        with EvidenceStore.open(url, keys=own) as store:
            store.sealer.fill()
            yield store


@pytest.fixture
def inspected(store: EvidenceStore, tmp_path: Path) -> Inspected:
    def inspect() -> Json:
        sequencer(store).run(is_last=True)
        verdict = Inspector(store, Ledger(store, KEYRING), tmp_path).inspect()
        found: Json = verdict["logs"]["evidence"]
        return found

    return inspect


def about(*subjects: str | None, says: bool = True) -> DecisionEvent:
    """A decision about as many rows. says: its payload names them, as of today."""
    texts: dict[str, Any] = {"instances": [{"age": n, "subjects": n} for n in range(len(subjects))]}
    if says:
        texts["subjects"] = subjects
    pieces = [b'{"answer":{"request_id":"about-them"}']
    for name, value in texts.items():
        pieces += [b',"%s":' % name.encode(), orjson.dumps(value)]
    pieces.insert(1, b"")  # no part's, to begin with
    payload, parts = laid_out([b"".join(pieces[:3]), *pieces[3:], b"}"], list(texts))
    keyed = orjson.dumps(subjects).decode()
    return replace(decision("about-them"), payload=payload, parts=parts, subjects=keyed)


def refiled(url: str, subjects: str | None) -> None:
    drop_rails(url)
    value = "NULL" if subjects is None else f"'{subjects}'"
    change(url, "UPDATE events SET subjects = VALUE".replace("VALUE", value))
    change(url, "DELETE FROM event_subjects")
    EvidenceStore.open(url).close()


@pytest.mark.parametrize("subjects", [(ANNA,), (ANNA, None), (ANNA, BERT), (None, None)])
def test_what_is_filed_as_it_was_stored_passes(
    store: EvidenceStore, inspected: Inspected, subjects: tuple[str | None, ...]
) -> None:
    store.append(about(*subjects))
    assert inspected()["verdict"] == CONSISTENT, inspected()


def test_a_record_from_before_payloads_named_subjects_passes(
    store: EvidenceStore, inspected: Inspected
) -> None:
    store.append(about(ANNA, BERT, says=False))
    assert inspected()["verdict"] == CONSISTENT, inspected()


@pytest.mark.parametrize("subjects", [(ANNA,), (ANNA, ANNA), (ANNA, None), (ANNA, BERT)])
def test_a_record_filed_under_nobody_is_found(
    store: EvidenceStore, url: str, inspected: Inspected, subjects: tuple[str | None, ...]
) -> None:
    store.append(about(*subjects))
    sequencer(store).run(is_last=True)
    refiled(url, None)
    verdict = inspected()
    assert (verdict["verdict"], verdict["findings"]) == (
        "failed",
        [{"seq": 0, "problem": FINDING}],
    )


@pytest.mark.parametrize("other", [[BERT, BERT], [ANNA, "x"], [ANNA], [ANNA, None]])
def test_a_record_filed_under_another_is_found(
    store: EvidenceStore, url: str, inspected: Inspected, other: list[str | None]
) -> None:
    store.append(about(ANNA, BERT))
    sequencer(store).run(is_last=True)
    refiled(url, orjson.dumps(other).decode())
    assert {"seq": 0, "problem": FINDING} in inspected()["findings"]


@pytest.mark.parametrize("other", [None, [BERT, BERT]])
def test_an_explanation_filed_elsewhere_than_its_request_is_found(
    store: EvidenceStore, url: str, inspected: Inspected, other: list[str] | None
) -> None:
    request = replace(pending("about-them"), subjects=orjson.dumps([ANNA]).decode())
    store.append(request)
    assert store.append_final(replace(final(request), subjects=request.subjects)).stored
    assert inspected()["findings"] == []
    drop_rails(url)
    value = "NULL" if other is None else f"'{orjson.dumps(other).decode()}'"
    statement = "UPDATE events SET subjects = VALUE WHERE event_type = 'explanation'"
    change(url, statement.replace("VALUE", value))
    EvidenceStore.open(url).close()
    assert {"seq": 1, "problem": ELSEWHERE} in inspected()["findings"]


def test_erasing_one_of_two_subjects_leaves_a_record_that_passes(
    store: EvidenceStore, inspected: Inspected
) -> None:
    store.append(about(ANNA, BERT))
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    assert inspected()["findings"] == []


def asked_later(*subjects: str | None) -> DecisionEvent:
    """The same with an explanation still to come."""
    rows = [{"age": number} for number in range(len(subjects))]
    asked: dict[str, Any] = {"explanation": {"status": "pending"}, "provenance": {"seed": None}}
    pieces = [b"{"]
    for name, value in {"instances": rows, "subjects": subjects, **asked}.items():
        pieces[-1] += b'"%s":' % name.encode()
        pieces += [orjson.dumps(value), b","]
    texts = [*pieces[:-1], b"}"]
    payload, parts = laid_out(texts, ["instances", "subjects", *asked])
    keyed = orjson.dumps(subjects).decode()
    return replace(pending("about-them"), payload=payload, parts=parts, subjects=keyed)


def filed_under_nobody(url: str) -> None:
    """The explanation, as releases before this one filed what an erasure put in its place."""
    drop_rails(url)
    endings = "(SELECT event_id FROM events WHERE event_type = 'explanation')"
    change(url, f"DELETE FROM event_subjects WHERE event_id IN {endings}")  # noqa: S608
    change(url, "UPDATE events SET subjects = NULL WHERE event_type = 'explanation'")
    EvidenceStore.open(url).close()


@pytest.mark.parametrize("subjects", [(ANNA,), (ANNA, BERT)])
@pytest.mark.parametrize("release", ["this", "former"])
def test_erasing_a_subject_of_a_pending_record_leaves_one_that_passes(
    store: EvidenceStore, url: str, inspected: Inspected, subjects: tuple[str, ...], release: str
) -> None:
    store.append(asked_later(*subjects))
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    if release == "former":
        filed_under_nobody(url)
    both = "event_type IN ('decision', 'explanation')"
    filed = query(url, f"SELECT subjects FROM events WHERE {both}")  # noqa: S608
    assert len(filed) == 2
    assert len(set(filed)) == (1 if release == "this" else 2)
    assert inspected()["findings"] == []


def test_purging_a_pending_record_leaves_one_that_passes(
    store: EvidenceStore, inspected: Inspected
) -> None:
    store.append(asked_later(ANNA, BERT))
    assert purge(store, "purge", now=LONG_AFTER).total == 1
    assert inspected()["findings"] == []


@pytest.mark.parametrize(
    "alike", [{"actor": ERASURE.order.principal}, {"completed_at": ERASURE.order.at}]
)
def test_a_failure_of_its_own_filed_under_nobody_is_found_also_in_an_erased_record(
    store: EvidenceStore, url: str, inspected: Inspected, alike: dict[str, Any]
) -> None:
    request = asked_later(ANNA)
    store.append(request)
    failed = final(request, status="failed", outcome="failed")
    assert store.append_final(replace(failed, subjects=request.subjects, **alike)).stored
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    assert inspected()["findings"] == []
    filed_under_nobody(url)
    assert inspected()["findings"] == [{"seq": 1, "problem": ELSEWHERE}]


def test_what_an_erasure_ended_filed_under_another_is_found(
    store: EvidenceStore, url: str, inspected: Inspected
) -> None:
    store.append(asked_later(ANNA))
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    drop_rails(url)
    other = orjson.dumps([BERT]).decode()
    change(url, f"UPDATE events SET subjects = '{other}' WHERE event_type = 'explanation'")  # noqa: S608
    EvidenceStore.open(url).close()
    assert {"seq": 1, "problem": ELSEWHERE} in inspected()["findings"]


CLEO = "c1e0-cleo"
FOUND = "it can be found by a subject that it is not filed under"


def filed_too(url: str, row: str) -> None:
    """A row more in the index of subjects; EVENT is the only event's ID."""
    change(url, f"INSERT INTO event_subjects SELECT {row} FROM events".replace("EVENT", "event_id"))  # noqa: S608


@pytest.mark.parametrize(
    ("row", "finding"),
    [
        (f"'default', '{CLEO}', EVENT", {"seq": 0, "problem": FOUND}),
        (f"'other', '{ANNA}', EVENT", {"seq": 0, "problem": FOUND}),
        (
            f"'default', '{ANNA}', 'x'",
            {"seq": None, "problem": "the index of subjects has an event that there is not: x"},
        ),
    ],
    ids=["subject", "tenant", "event"],
)
def test_a_row_too_many_in_the_index_of_subjects_is_found(
    store: EvidenceStore,
    url: str,
    inspected: Inspected,
    monkeypatch: pytest.MonkeyPatch,
    row: str,
    finding: Json,
) -> None:
    monkeypatch.setattr("service.bundles.filing.PAGE", 1)
    store.append(about(ANNA, BERT))
    assert inspected()["findings"] == []
    filed_too(url, row)
    assert inspected()["findings"] == [finding]


def test_subjects_that_are_no_list_are_a_finding_and_all_else_is_checked(
    store: EvidenceStore, url: str, inspected: Inspected
) -> None:
    store.append(about(ANNA, BERT))
    drop_rails(url)
    change(url, "UPDATE events SET subjects = '[1'")
    filed_too(url, f"'default', '{CLEO}', 'x'")
    found = inspected()["findings"]
    problems = {one["problem"] for one in found if one["seq"] == 0}
    assert "changed: its subjects are no JSON list" in problems
    assert found[-1]["problem"].endswith("an event that there is not: x")


@pytest.mark.parametrize("subjects", [(ANNA,), (ANNA, BERT)])
def test_a_row_too_many_neither_erases_nor_hands_out_somebody_elses_record(
    store: EvidenceStore, url: str, tmp_path: Path, subjects: tuple[str, ...]
) -> None:
    store.append(about(*subjects))
    filed_too(url, f"'default', '{CLEO}', EVENT")
    filed_too(url, f"'other', '{ANNA}', EVENT")
    assert of_subject(store, "default", CLEO) == of_subject(store, "other", ANNA) == []
    keys = [("default", "about-them")]
    assert erase(store, keys, replace(ERASURE, subject=CLEO)) == Erasing()
    record = store.record("default", "about-them")
    assert record is not None
    assert not record.decision.is_parted
    sequencer(store).run(is_last=True)
    exporter = Exporter(store=store, ledger=Ledger(store, KEYRING), wait_seconds=0.1)
    selection = Selection(subject=CLEO, tenant="default")
    with pytest.raises(UnknownError):
        exporter.export(tmp_path / "bundle", selection)
    selection = Selection(subject=ANNA, tenant="default")
    assert exporter.export(tmp_path / "bundle", selection).count == 1


def test_a_second_answer_about_somebody_else_can_be_erased_by_that_subject(
    store: EvidenceStore,
) -> None:
    event = about(ANNA)
    store.append(event)
    add_beside(store, replace(event, subjects=orjson.dumps([BERT]).decode()))
    keys = of_subject(store, "default", BERT)
    assert keys == [("default", "about-them")]
    assert erase(store, keys, replace(ERASURE, subject=BERT)).erased == 1
    assert of_subject(store, "default", BERT) == []
