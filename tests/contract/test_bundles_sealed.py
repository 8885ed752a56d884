"""Encrypted payloads: opened in bundles section by section, whole until they are erased."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from decisions import change, decision, drop_rails
from disposals import ERASURE
from ledgers import KEYRING, sequencer
from reference_log import Bundle

from service.bundles import Exporter, Selection
from service.bundles.inspecting import Inspector
from service.disposal import erase, of_subject
from service.evidence import DecisionEvent, EvidenceStore, laid_out
from service.keystore import Kek, KeyStore
from service.ledger import Ledger
from service.verify import CONSISTENT, Json, verify_file

ANNA, BERT = "4d7e-anna", "9f21-bert"
TOLD = '"age\\":4711'
"""Of Anna, as a bundle quotes it: the number alone is now and then in a hexadecimal key."""


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[EvidenceStore]:
    with (
        KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys,
        EvidenceStore.open(url, keys=keys) as store,
    ):
        store.sealer.fill()
        yield store


def about_two() -> DecisionEvent:
    pieces = [
        b'{"answer":{"request_id":"about-two","predictions":',
        b'[{"label":"anna"},{"label":"bert"}]',
        b'},"instances":',
        b'[{"age":4711},{"age":33}]',
        b"}",
    ]
    payload, parts = laid_out(pieces, ["predictions", "instances"])
    subjects = orjson.dumps([ANNA, BERT]).decode()
    return replace(decision("about-two"), payload=payload, parts=parts, subjects=subjects)


def exported(store: EvidenceStore, path: Path) -> Json:
    sequencer(store).run(is_last=True)
    exporter = Exporter(store=store, ledger=Ledger(store, KEYRING), wait_seconds=0.1)
    exporter.export(path, Selection(), force=True)
    verdict = verify_file(path)
    assert verdict["findings"] == [], verdict
    return verdict


def inspected(store: EvidenceStore, directory: Path) -> Json:
    verdict = Inspector(store, Ledger(store, KEYRING), directory).inspect()
    found: Json = verdict["logs"]["evidence"]
    return found


def test_one_subject_s_section_goes_and_all_else_still_verifies(
    store: EvidenceStore, tmp_path: Path
) -> None:
    store.append(decision("plain-000"))
    store.append(about_two())
    out = tmp_path / "bundle"
    assert exported(store, out)["not_shown"] == 0
    plain, cut = Bundle.read(out.read_bytes()).entries
    assert plain["payload"] == decision().payload.decode()
    assert len(cut["sections"]) >= 3
    assert TOLD in out.read_text()
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    assert exported(store, out)["not_shown"] == 1
    sections = Bundle.read(out.read_bytes()).entries[1]["sections"]
    assert [section is None for section in sections[:3]] == [False, True, False]
    assert TOLD not in out.read_text()
    assert inspected(store, tmp_path)["verdict"] == CONSISTENT
    erase(store, of_subject(store, "default", BERT), replace(ERASURE, subject=BERT))
    assert exported(store, out)["not_shown"] == 1
    assert inspected(store, tmp_path)["findings"] == []


def test_a_changed_ciphertext_is_found_where_it_is(
    url: str, store: EvidenceStore, tmp_path: Path
) -> None:
    events = [decision() for _ in range(3)]
    for event in events:
        store.append(event)
    sequencer(store).run(is_last=True)
    assert inspected(store, tmp_path)["findings"] == []
    drop_rails(url)
    other = f"SELECT payload FROM events WHERE event_id = '{events[2].event_id}'"  # noqa: S608
    change(url, f"UPDATE events SET payload = ({other}) WHERE event_id = '{events[1].event_id}'")  # noqa: S608
    first = inspected(store, tmp_path)["findings"][0]
    assert (first["seq"], "does not open under its key" in first["problem"]) == (1, True)
