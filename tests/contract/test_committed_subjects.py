"""Whom a record is about is committed to: who files it under nobody, or another, is found."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from decisions import change, decision, drop_rails, final, pending
from disposals import ERASURE
from ledgers import KEYRING, sequencer

from service.bundles.inspecting import Inspector
from service.disposal import erase, of_subject
from service.evidence import DecisionEvent, EvidenceStore, laid_out
from service.keystore import Kek, KeyStore
from service.ledger import Ledger
from service.verify import CONSISTENT, Json

ANNA, BERT = "4d7e-anna", "9f21-bert"
FINDING = "its payload is about other subjects than it is filed under"
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
    finding = {"seq": 1, "problem": "it is filed under other subjects than its request"}
    assert finding in inspected()["findings"]


def test_erasing_one_of_two_subjects_leaves_a_record_that_passes(
    store: EvidenceStore, inspected: Inspected
) -> None:
    store.append(about(ANNA, BERT))
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    assert inspected()["findings"] == []
