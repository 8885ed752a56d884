"""One subject erased from records about several, with keys in a store of their own."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from decisions import CONFLICT, START, STORED, decision, final, pending
from disposals import ERASURE, EXPIRY, ORDER, add_beside, types_of
from sqlalchemy import create_engine, select

from service.disposal import (
    PURGE_GRACE,
    Erasing,
    erase,
    forget_keys,
    hold,
    of_requests,
    of_subject,
    purge,
)
from service.disposal.forgetting import doom
from service.evidence import (
    DecisionEvent,
    ErasedError,
    EvidenceStore,
    LabelEvent,
    Record,
    StoreUnavailableError,
    laid_out,
)
from service.evidence.boxes import refs_of
from service.evidence.exclusive import exclusively, forget_pages
from service.evidence.tables import events
from service.keystore import Kek, KeyStore
from service.records import record_document

ANNA, BERT = "a" * 64, "b" * 64


def about_two(request_id: str, subjects: tuple[str | None, ...], **changes: Any) -> DecisionEvent:
    """A decision about as many rows as subjects; each row carries its subject's first letter."""
    letters = [(subject or "nobody")[0] for subject in subjects]
    explanation = {"status": "pending", "reason": None, "values": None}
    texts: dict[str, Any] = {
        "instances": [{"name": f"name-{letter}"} for letter in letters],
        "fingerprint": "f00",
        "provenance": {"seed": None, "principal": "local"},
    }
    pieces = [
        b'{"answer":{"model":',
        b'{"name":"credit"}',
        b',"predictions":',
        orjson.dumps([{"label": f"label-{letter}"} for letter in letters]),
        b',"explanation":',
        orjson.dumps(explanation),
        b"}",
    ]
    names = ["model", "predictions", "explanation"]
    for name, value in texts.items():
        pieces[-1] += b',"%s":' % name.encode()
        pieces += [orjson.dumps(value), b""]
        names.append(name)
    pieces[-1] += b"}"
    payload, parts = laid_out(pieces, names)
    event = pending(request_id) if changes.pop("is_pending", False) else decision(request_id)
    keyed = orjson.dumps(subjects).decode()
    return replace(event, payload=payload, parts=parts, subjects=keyed, **changes)


def forgotten(store: EvidenceStore, subject: str) -> Erasing:
    keys = of_subject(store, "default", subject)
    return erase(store, keys, replace(ERASURE, subject=subject))


def read(store: EvidenceStore, request_id: str) -> Record:
    found = store.record("default", request_id)
    assert found is not None
    return found


def test_only_that_subjects_rows_go_and_the_record_says_so(store: EvidenceStore) -> None:
    event = about_two("about-two", (ANNA, BERT, ANNA))
    store.append(event)
    assert "erased_in_part" not in orjson.loads(record_document(read(store, "about-two")))
    assert forgotten(store, ANNA).erased == 1
    record = read(store, "about-two")
    assert orjson.loads(record.part("instances")) == [None, {"name": "name-b"}, None]
    assert orjson.loads(record.part("predictions")) == [None, {"label": "label-b"}, None]
    assert orjson.loads(record.part("fingerprint")) is None
    assert orjson.loads(record_document(record))["erased_in_part"] is True
    assert types_of(store, "about-two") == ["decision", "erasure"]
    assert forgotten(store, ANNA) == Erasing()
    assert of_subject(store, "default", BERT) == [("default", "about-two")]


@pytest.mark.parametrize("first", [ANNA, BERT])
def test_with_its_last_subject_the_whole_record_goes(store: EvidenceStore, first: str) -> None:
    store.append(about_two("about-two", (ANNA, BERT)))
    for subject in (first, ANNA if first == BERT else BERT):
        assert forgotten(store, subject).erased == 1
    with pytest.raises(ErasedError) as found:
        store.record("default", "about-two")
    assert found.value.kind == "erasure"
    assert store.list("default").items[0].status == "erased"


def test_rows_of_nobody_keep_a_record_when_everybody_else_has_gone(store: EvidenceStore) -> None:
    store.append(about_two("about-one", (ANNA, None)))
    assert forgotten(store, ANNA).erased == 1
    assert orjson.loads(read(store, "about-one").part("instances")) == [None, {"name": "name-n"}]
    assert erase(store, of_requests(store, "default", ["about-one"]), ERASURE).erased == 1
    with pytest.raises(ErasedError):
        store.record("default", "about-one")


def test_a_pending_explanation_of_what_is_left_is_given_up(store: EvidenceStore) -> None:
    event = about_two("asked-later", (ANNA, BERT), is_pending=True)
    store.append(event)
    forgotten(store, ANNA)
    assert store.append(replace(final(event), subjects=event.subjects)) is CONFLICT
    record = read(store, "asked-later")
    assert (record.status, record.is_pending) == ("failed", False)
    explanation = orjson.loads(record.part("explanation"))
    assert explanation["reason"] == "the record was erased in part"
    assert orjson.loads(record.part("instances")) == [None, {"name": "name-b"}]
    assert store.pending(since=START, until=EXPIRY, limit=5) == []
    copy = about_two("its-copy", (ANNA, BERT), parent_request_id="asked-later")
    assert store.append(copy) is CONFLICT


def test_a_final_loses_the_same_subject(store: EvidenceStore) -> None:
    event = about_two("explained", (ANNA, BERT), is_pending=True)
    store.append(event)
    explanation = b'{"status":"complete","values":[["of-a"],["of-b"]]}'
    store.append_final(replace(final(event, explanation=explanation), subjects=event.subjects))
    forgotten(store, BERT)
    found = orjson.loads(read(store, "explained").part("explanation"))
    assert found["values"] == [["of-a"], None]


def test_with_a_part_the_keys_to_it_go_in_every_event(store: EvidenceStore, keys: KeyStore) -> None:
    event = about_two("explained", (ANNA, BERT), is_pending=True)
    store.append(event)
    explanation = b'{"status":"complete","values":[["of-a"],["of-b"]]}'
    store.append_final(replace(final(event, explanation=explanation), subjects=event.subjects))
    with store.reading() as connection:
        refs = [refs_of(row) for row in connection.execute(select(events)) if refs_of(row)]
    assert len(refs) == 2
    forgotten(store, ANNA)
    assert forget_keys(store, keys)
    left = keys.keys(ref for of_event in refs for ref in of_event)
    common, anna, bert = 0, 1, 2
    for of_event in refs:
        assert of_event[anna] not in left
        assert {of_event[common], of_event[bert]} <= left.keys()


def test_nothing_is_said_of_somebody_who_was_erased_from_the_record(store: EvidenceStore) -> None:
    event = about_two("labelled", (ANNA, BERT))
    store.append(event)
    assert store.append(labels_of(event)) is STORED
    forgotten(store, ANNA)
    assert store.append(labels_of(event)) is CONFLICT
    assert store.append(replace(labels_of(event), subjects=None)) is STORED
    assert store.append(replace(labels_of(event), subjects=f'["{BERT}"]')) is STORED
    assert add_beside(store, event) is CONFLICT
    assert of_subject(store, "default", ANNA) == []


def labels_of(event: DecisionEvent) -> LabelEvent:
    payload, parts = laid_out([b'{"labels":', b'["good","bad"]', b"}"], ["labels"])
    return LabelEvent(
        template=event.template,
        request_id=event.request_id,
        received_at=event.received_at,
        completed_at=event.completed_at,
        payload=payload,
        parts=parts,
        subjects=event.subjects,
    )


def test_a_hold_keeps_every_subjects_part(store: EvidenceStore) -> None:
    store.append(about_two("held-for-all", (ANNA, BERT)))
    hold(store, of_requests(store, "default", ["held-for-all"]), ORDER)
    assert forgotten(store, ANNA).held == (("default", "held-for-all"),)
    assert None not in orjson.loads(read(store, "held-for-all").part("instances"))


def test_a_purge_destroys_what_an_erasure_left(store: EvidenceStore, keys: KeyStore) -> None:
    store.append(about_two("about-two", (ANNA, BERT)))
    refs = refs_in(store)
    forgotten(store, ANNA)
    assert 0 < len(keys.keys(refs)) < len(refs)
    assert purge(store, "purge", now=EXPIRY + PURGE_GRACE + timedelta(minutes=1)).total == 1
    assert keys.keys(refs) == {}


def test_a_purge_finishes_what_a_stopped_erasure_left(store: EvidenceStore, keys: KeyStore) -> None:
    store.append(about_two("about-two", (ANNA, BERT)))
    refs = refs_in(store)
    with exclusively(store) as connection:
        doom(connection, keys, refs)
    assert len(keys.keys(refs)) == len(refs)
    assert purge(store, "purge", now=START).total == 0
    assert keys.keys(refs) == {}


def refs_in(store: EvidenceStore) -> list[bytes]:
    with store.reading() as connection:
        joint = b"".join(connection.scalars(select(events.c.record_key)))
    return [joint[start : start + 16] for start in range(0, len(joint), 16)]


def test_without_the_key_store_nothing_counts_as_erased(url: str, store: EvidenceStore) -> None:
    store.append(about_two("about-two", (ANNA, BERT)))
    with EvidenceStore.open(url) as blind, pytest.raises(StoreUnavailableError, match="key store"):
        forgotten(blind, ANNA)
    assert None not in orjson.loads(read(store, "about-two").part("instances"))


def test_neither_ciphertext_nor_wrapped_keys_are_left_in_any_file(
    tmp_path: Path, keys: KeyStore
) -> None:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys) as store:
        for i in range(20):
            store.append(about_two(f"about-two-{i}", (ANNA, BERT)))
        with store.reading() as connection:
            payloads = [payload[-48:] for payload in connection.scalars(select(events.c.payload))]
        planted = [*payloads, *refs_in(store)]
        assert all(is_in_a_file(tmp_path, each) for each in planted)
        erase(store, of_requests(store, "default", [f"about-two-{i}" for i in range(20)]), ERASURE)
        assert forget_pages(store)
        assert not any(is_in_a_file(tmp_path, each) for each in planted)


def test_answers_do_not_wait_while_readers_keep_the_key_stores_old_pages(
    tmp_path: Path, keys: KeyStore
) -> None:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=keys) as store:
        store.append(about_two("about-two", (ANNA, BERT)))
        refs = refs_in(store)
        engine = create_engine(f"sqlite:///{tmp_path}/keys.db", isolation_level="AUTOCOMMIT")
        with engine.connect() as reading:
            reading.exec_driver_sql("BEGIN")
            reading.exec_driver_sql("SELECT count(*) FROM record_keys").all()
            erasing = Thread(target=forgotten, args=(store, ANNA))
            erasing.start()
            started = time.monotonic()
            while types_of(store, "about-two") != ["decision", "erasure"]:
                assert time.monotonic() - started < 2
            store.append(decision("meanwhile"))
            assert time.monotonic() - started < 2
            erasing.join()
            assert time.monotonic() - started < 2
            assert len(keys.keys(refs)) < len(refs)
            assert not forget_keys(store, keys, seconds=0.0)
            reading.exec_driver_sql("ROLLBACK")
        engine.dispose()
        assert forget_keys(store, keys)


def test_an_erasure_that_waits_for_maintenance_keeps_no_answer_waiting(
    postgres_url: str, keys: KeyStore
) -> None:
    engine = create_engine(postgres_url)
    with (
        EvidenceStore.open(postgres_url, keys=keys) as store,
        engine.connect() as maintenance,
    ):
        store.append(about_two("about-two", (ANNA, BERT)))
        maintenance.exec_driver_sql("LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as pool:
            erasing = pool.submit(forgotten, store, ANNA)
            slowest, n_stored = 0.0, 0
            while not erasing.done():
                started = time.monotonic()
                assert store.append(decision(f"meanwhile-{n_stored}")) is STORED
                slowest, n_stored = max(slowest, time.monotonic() - started), n_stored + 1
            assert slowest < 1.5
            with pytest.raises(StoreUnavailableError, match="lock timeout"):
                erasing.result()
        maintenance.rollback()
        assert forgotten(store, ANNA).erased == 1
    engine.dispose()


def test_a_transaction_that_still_sees_keys_in_postgresql_is_told_of(
    postgres_url: str,
) -> None:
    engine = create_engine(postgres_url)
    with KeyStore.open(postgres_url, Kek(bytes(32))) as keys, engine.connect() as reading:
        ref = keys.take().ref
        reading.exec_driver_sql("CREATE TABLE of_another (a INT)")
        keys.delete([ref])
        assert not keys.forget_pages(seconds=0.0)
        reading.rollback()
        assert keys.forget_pages()
    engine.dispose()


def is_in_a_file(directory: Path, planted: bytes) -> bool:
    return any(planted in file.read_bytes() for file in directory.glob("*.db*"))
