"""The database is inspected while a service goes on storing, placing and signing beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from filled_database import SIZE, Database, evidence
from ledgers import KEYRING, append, sequencer

from service.bundles.inspecting import Inspector
from service.evidence import EvidenceStore
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
