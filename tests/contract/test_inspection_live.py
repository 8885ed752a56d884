"""The database is inspected while a service goes on storing, placing and signing beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from decisions import decision
from disposals import ERASURE
from filled_database import SIZE, Database, evidence
from ledgers import KEYRING, append, sequencer

from service.bundles.inspecting import Inspector
from service.disposal import erase
from service.evidence import EvidenceStore, ProvenEvent
from service.evidence.looking import open_as_is
from service.ledger import EVIDENCE, Checkpoint, Ledger
from service.verify import CONSISTENT


class OvertakenLedger(Ledger):
    """More is stored, placed and signed as soon as anybody has looked at the last checkpoint."""

    def __init__(self, store: EvidenceStore) -> None:
        super().__init__(store, KEYRING)
        self.store = store

    def checkpoint(self, log: str = EVIDENCE.name) -> Checkpoint | None:
        found = super().checkpoint(log)
        append(self.store, 3)
        sequencer(self.store).run(is_last=True)
        return found


def test_checkpoints_signed_during_an_inspection_are_no_rollback(database: Database) -> None:
    with open_as_is(database.url) as store:
        verdict = Inspector(store, OvertakenLedger(store), database.directory).inspect()
    found = evidence(verdict)
    assert (found["findings"], found["size"]) == ([], SIZE)
    assert found["stored_checkpoints"] == "1 of 1 compared"


class ErasedMeanwhile(EvidenceStore):
    """A record that is erased, which gets its place, when payloads are read for the first time:
    just before it, or just after it.
    """

    request_id: str = ""
    is_before: bool = False

    def events(self, event_ids: Sequence[str]) -> Sequence[ProvenEvent]:
        request_id, self.request_id = self.request_id, ""
        if request_id and self.is_before:
            self._erase(request_id)
        found = super().events(event_ids)
        if request_id and not self.is_before:
            self._erase(request_id)
        return found

    def _erase(self, request_id: str) -> None:
        assert erase(self, [("default", request_id)], ERASURE).erased == 1
        sequencer(self).run(is_last=True)


@pytest.mark.parametrize("is_before", [True, False])
def test_a_record_erased_while_it_is_inspected_is_no_finding(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_before: bool
) -> None:
    """Its payload is missing, or was shown, and what says why is under no checkpoint read."""
    monkeypatch.setattr("service.bundles.inspecting.PAGE", 6 if is_before else 3)
    with ErasedMeanwhile.open(url) as store:
        store.append(decision("request-1"))
        append(store, 4)
        sequencer(store).run(is_last=True)
        store.request_id, store.is_before = "request-1", is_before
        found = evidence(Inspector(store, Ledger(store, KEYRING), tmp_path).inspect())
    assert (found["findings"], found["size"], found["not_shown"]) == ([], 5, int(is_before))


@contextmanager
def service_beside(database: Database) -> Iterator[Event]:
    """Decisions are stored, placed and signed without a pause; set after each."""
    is_over, has_signed = Event(), Event()

    def run() -> None:
        with EvidenceStore.open(database.url) as store:
            while not is_over.is_set():
                append(store, 2)
                database.sequence()
                has_signed.set()

    thread = Thread(target=run)
    thread.start()
    try:
        yield has_signed
    finally:
        is_over.set()
        thread.join()


def test_inspections_under_load_find_nothing_wrong(database: Database) -> None:
    sizes = []
    with service_beside(database) as has_signed:
        for _ in range(4):
            has_signed.clear()
            assert has_signed.wait(30)
            verdict = database.verdict()
            assert verdict["verdict"] == CONSISTENT, verdict
            sizes.append(evidence(verdict)["size"])
    assert sizes == sorted(set(sizes))
    assert sizes[0] > SIZE
