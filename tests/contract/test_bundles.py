"""Bundles as they are exported, over both databases, and that changes of them are found."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from bundle_changes import CHANGES
from decisions import START, change, decision, drop_rails, final, pending, template
from disposals import ERASURE
from ledgers import KEYRING, append, sequencer
from reference_log import Bundle
from sqlalchemy import insert

from service.bundles import Exporter, Selection
from service.disposal import erase
from service.errors import CheckFailedError, InvalidInputError, UnavailableError, UnknownError
from service.evidence import DecisionEvent, EvidenceStore, OutcomeEvent, StoredDecision
from service.evidence.events import seal
from service.evidence.tables import accesses, holds
from service.ledger import ACCESS, Ledger, LogMismatchError
from service.uuid7 import uuid7
from service.verify import CONSISTENT, Json, verify_file

SIZE = 13


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(url) as store:
        yield store


def exporter(store: EvidenceStore) -> Exporter:
    return Exporter(store=store, ledger=Ledger(store, KEYRING), wait_seconds=0.1)


def sequenced(store: EvidenceStore) -> Exporter:
    sequencer(store).run(is_last=True)
    return exporter(store)


def headers_of(path: Path) -> list[Json]:
    return [json.loads(entry["header"]) for entry in Bundle.read(path.read_bytes()).entries]


def verified(path: Path, **asked: str | None) -> Json:
    verdict = verify_file(path, **asked)
    assert verdict["findings"] == [], verdict
    return verdict


def about(store: EvidenceStore, event: DecisionEvent | StoredDecision, event_type: str) -> None:
    """A later fact, as `service.disposal` stores them, in a type of its own."""

    class Fact(OutcomeEvent):
        __slots__ = ()

    Fact.event_type = event_type  # type: ignore[misc]
    fact = Fact.about(event, None, actor="officer", completed_at=event.received_at)
    store.append(fact)


def empty(url: str, event_id: str) -> None:
    """As erasing does with what is stored of an event."""
    nothing = "UPDATE events SET payload = NULL, record_key = NULL"
    change(url, f"{nothing} WHERE event_id = '{event_id}'")


@pytest.mark.parametrize("name", ["bundle", "bundle.gz"])
def test_a_whole_log_is_exported_and_verifies(
    store: EvidenceStore, tmp_path: Path, name: str
) -> None:
    append(store, 1201)
    ledger, out = Ledger(store, KEYRING), tmp_path / name
    exported = sequenced(store).export(out, Selection())
    assert (exported.count, exported.left_out) == (1201, 0)
    verdict = verified(out, vkey=ledger.vkey(), witness=exported.checkpoint.note)
    assert verdict["verdict"] == "consistent with the witness"
    assert (verdict["checked"], verdict["whole_log"], verdict["not_shown"]) == (1201, True, 0)
    assert out.stat().st_mode & 0o777 == 0o600
    content = gzip.decompress(out.read_bytes()) if name.endswith("gz") else out.read_bytes()
    assert Bundle.read(content).content() == content
    assert not list(tmp_path.glob(f".{name}*"))


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_a_real_bundle_is_found_and_located(tmp_path: Path, name: str) -> None:
    out = tmp_path / "bundle"
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        append(store, SIZE)
        sequenced(store).export(out, Selection())
    bundle = Bundle.read(out.read_bytes())
    CHANGES[name].make(bundle)
    out.write_bytes(bundle.content())
    verdict = verify_file(out)
    first = verdict["findings"][0]
    assert verdict["verdict"] == "failed"
    assert CHANGES[name].is_named_by((first["seq"], first["problem"]), SIZE), verdict


def test_an_old_bundle_or_another_key_is_found_with_what_was_kept_outside(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db") as store:
        ledger = Ledger(store, KEYRING)
        append(store, 5)
        sequenced(store).export(old, Selection())
        append(store, 5)
        kept = sequenced(store).export(new, Selection()).checkpoint.note
        selected = Selection(until=START - timedelta(days=1), tenant="default")
        with pytest.raises(UnknownError):
            exporter(store).export(tmp_path / "none", selected)
    assert verified(old)["verdict"] == CONSISTENT
    found = verify_file(old, witness=kept)["findings"]
    assert found == [{"seq": 5, "problem": "rolled back or truncated: the witness has 10 entries"}]
    other = Ledger(store, type(KEYRING)(bytes(32))).vkey()
    assert "signed by another key" in verify_file(new, vkey=other)["findings"][0]["problem"]
    assert verified(new, vkey=ledger.vkey("access"))["verdict"] == CONSISTENT


@pytest.fixture
def mixed(store: EvidenceStore) -> dict[str, DecisionEvent]:
    """Requests of two models and tenants, one with all that can follow, one explained again."""
    subject = KEYRING.digest("default", "subject", b"Ada")
    made = {
        "plain": decision("plain-000"),
        "other": replace(decision("other-000", minute=1), subjects=json.dumps([None, subject])),
        "model": decision("model-000", minute=2, model=template("loans")),
        "tenant": decision("tenant-000", minute=3, tenant="elsewhere"),
        "queued": pending("queued-000", minute=4),
    }
    made["again"] = replace(decision("again-000", minute=60), parent_request_id="other-000")
    made["twice"] = replace(decision("twice-000", minute=61), parent_request_id="again-000")
    for event in made.values():
        store.append(event)
    store.append_final(final(made["queued"]))
    for event_type in ("hold", "release"):
        about(store, made["queued"], event_type)
    return made


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(request_ids=("plain-000",)), {"plain"}),
        (Selection(request_ids=("plain-000", "queued-000")), {"plain", "queued"}),
        (Selection(request_ids=("plain-000",), tenant="default"), {"plain"}),
        (Selection(request_ids=("other-000",)), {"other", "again", "twice"}),
        (Selection(model="loans"), {"model"}),
        (Selection(tenant="elsewhere"), {"tenant"}),
        (Selection(since=START + timedelta(minutes=4)), {"queued", "again", "twice"}),
        (Selection(since=START, until=START + timedelta(minutes=1)), {"plain"}),
        (
            Selection(
                subject=KEYRING.digest("default", "subject", b"Ada"),
                tenant="default",
            ),
            {"other", "again", "twice"},
        ),
        (Selection(model="credit", since=START + timedelta(minutes=60)), {"again", "twice"}),
    ],
    ids=range(10),
)
def test_a_selection_holds_all_events_of_the_requests_that_match(
    store: EvidenceStore,
    tmp_path: Path,
    mixed: dict[str, DecisionEvent],
    selection: Selection,
    expected: set[str],
) -> None:
    out = tmp_path / "bundle"
    exported = sequenced(store).export(out, selection)
    headers = headers_of(out)
    assert {header["request_id"] for header in headers} == {
        mixed[name].request_id for name in expected
    }
    kinds = [h["event_type"] for h in headers if h["request_id"] == "queued-000"]
    assert sorted(kinds) == (
        ["decision", "explanation", "hold", "outcome", "release"] if "queued" in expected else []
    )
    verdict = verified(out)
    assert (verdict["whole_log"], verdict["checked"]) == (False, exported.count)
    assert '"Ada"' not in out.read_text()


def test_what_matches_nothing_is_unknown(
    store: EvidenceStore, tmp_path: Path, mixed: dict[str, DecisionEvent]
) -> None:
    del mixed
    exporting = sequenced(store)
    for selection in (
        Selection(request_ids=("unknown-000",)),
        Selection(request_ids=("plain-000",), tenant="elsewhere"),
        Selection(model="nothing"),
        Selection(subject="00", tenant="default"),
        Selection(request_ids=("plain-000",), model="loans"),
    ):
        with pytest.raises(UnknownError):
            exporting.export(tmp_path / "bundle", selection)
    assert list(tmp_path.glob("*bundle*")) == []


def test_a_selection_compares_with_the_witness_it_was_exported_for(
    store: EvidenceStore, tmp_path: Path
) -> None:
    append(store, 5)
    kept = sequenced(store).export(tmp_path / "old", Selection()).checkpoint.note
    store.append(decision("wanted-000"))
    append(store, 3)
    out, wanted = tmp_path / "new", Selection(request_ids=("wanted-000",))
    exporting = sequenced(store)
    exporting.export(out, wanted)
    assert verify_file(out, witness=kept)["verdict"] == "witness not compared"
    exporting.export(out, wanted, witness=kept, force=True)
    assert verified(out, witness=kept)["verdict"] == "consistent with the witness"
    newer = Ledger(store, KEYRING).signer.sign("evidence", 99, bytes(32)).note
    forged = Ledger(store, KEYRING).signer.sign("evidence", 5, bytes(32)).note
    for witness, reason in ((newer, "rolled back"), (forged, "begin"), ("x", "witness")):
        with pytest.raises(CheckFailedError, match=reason):
            exporting.export(out, wanted, witness=witness, force=True)


def test_what_has_no_checkpoint_yet_is_left_out_and_counted(
    store: EvidenceStore, tmp_path: Path
) -> None:
    exporting, out = exporter(store), tmp_path / "bundle"
    with pytest.raises(UnknownError):
        exporting.export(out, Selection())
    append(store, 2)
    with pytest.raises(UnavailableError):
        exporting.export(out, Selection())
    sequencer(store).run(is_last=True)
    store.append(decision("later-000"))
    exported = exporting.export(out, Selection())
    assert (exported.count, exported.left_out) == (2, 1)
    assert verified(out)["size"] == 2
    with pytest.raises(UnknownError, match="1 are not in the log yet"):
        exporting.export(tmp_path / "new", Selection(request_ids=("later-000",)))


def test_a_file_that_is_there_stays_unless_forced(store: EvidenceStore, tmp_path: Path) -> None:
    append(store, 2)
    exporting, out = sequenced(store), tmp_path / "bundle"
    out.write_text("mine")
    with pytest.raises(InvalidInputError):
        exporting.export(out, Selection())
    assert out.read_text() == "mine"
    exporting.export(out, Selection(), force=True)
    assert verified(out)["checked"] == 2
    with pytest.raises(InvalidInputError):
        exporting.export(tmp_path / "absent" / "bundle", Selection())


def test_a_damaged_log_leaves_no_file(url: str, store: EvidenceStore, tmp_path: Path) -> None:
    ids = append(store, 3)
    exporting, out = sequenced(store), tmp_path / "bundle"
    out.write_text("mine")
    drop_rails(url)
    change(url, f"DELETE FROM events WHERE event_id = '{ids[1]}'")  # noqa: S608
    with pytest.raises(LogMismatchError, match="is not there"):
        exporting.export(out, Selection(), force=True)
    assert out.read_text() == "mine"
    assert not list(tmp_path.glob(".bundle*"))


def test_erased_and_quarantined_payloads_are_not_shown(
    store: EvidenceStore, tmp_path: Path
) -> None:
    erased, hidden = decision("erased-00"), decision("hidden-00")
    for event in (erased, hidden):
        store.append(event)
    about(store, hidden, "quarantine")
    row = {"reason": "leak", "since_us": 1, "event_id": uuid7(), "kind": "quarantine"}
    with store.changing() as connection:
        own = {"tenant": "default", "request_id": "hidden-00"}
        connection.execute(insert(holds), {**row, **own})
    out = tmp_path / "bundle"
    sequenced(store).export(out, Selection())
    assert verified(out)["not_shown"] == 2  # the decision, and the fact itself
    erase(store, [("default", "erased-00")], ERASURE)
    sequenced(store).export(out, Selection(), force=True)
    assert verified(out)["not_shown"] == 3
    shown = [entry["payload"] for entry in Bundle.read(out.read_bytes()).entries]
    assert shown == [None, None, None, "{}"]


def test_the_access_log_is_exported_the_same_way(store: EvidenceStore, tmp_path: Path) -> None:
    rows = []
    for i in range(4):
        row = {"event_id": uuid7(), "tenant": "default", "principal": "p", "kind": "read"}
        header = {**row, "request_id": f"request-{i}"}
        rows.append({**row, "at_us": i, "header": json.dumps(header).encode()})
    with store.changing() as connection:
        connection.execute(insert(accesses), rows)
    sequencer(store, ACCESS).run(is_last=True)
    out = tmp_path / "bundle"
    exported = exporter(store).export(out, Selection(), log="access")
    assert exported.count == 4
    verdict = verified(out, vkey=Ledger(store, KEYRING).vkey())
    assert verdict["log"].endswith("/access")
    assert (verdict["whole_log"], verdict["not_shown"]) == (True, 0)


def test_seal_is_what_is_exported(store: EvidenceStore, tmp_path: Path) -> None:
    row = seal(decision("exact-000"))
    store.insert([row])
    out = tmp_path / "bundle"
    sequenced(store).export(out, Selection())
    (entry,) = Bundle.read(out.read_bytes()).entries
    assert (entry["header"].encode(), entry["payload"].encode()) == (row[-2], row[-1])
