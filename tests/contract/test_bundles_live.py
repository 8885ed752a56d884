"""Bundles written while records are erased: a payload is missing only where the bundle says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import orjson
import pytest
from decisions import change, decision, drop_rails
from disposals import ERASURE, ORDER, add_beside
from ledgers import KEYRING, append, sequencer

from service.bundles import Exporter, Selection
from service.disposal import erase, hold, of_subject, release
from service.errors import UnavailableError
from service.evidence import DecisionEvent, EvidenceStore, laid_out
from service.ledger import Ledger
from service.verify import Json, verify_file

SUBJECTS = ("11-anna", "22-bert", "33-cleo")
REQUEST = ("default", "about-all")


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bundles.entries.PAGE", 4)


def about_all() -> DecisionEvent:
    """One decision about three people, each with a section of his own."""
    ages = b",".join(b'{"age":%d}' % (30 + i) for i in range(len(SUBJECTS)))
    payload, parts = laid_out([b'{"instances":[', ages, b"]}"], ["instances"])
    subjects = orjson.dumps(SUBJECTS).decode()
    return replace(decision(REQUEST[1]), payload=payload, parts=parts, subjects=subjects)


def part_erased(store: EvidenceStore, subject: str) -> None:
    keys = of_subject(store, "default", subject)
    assert erase(store, keys, replace(ERASURE, subject=subject)).erased == 1


@dataclass
class Interrupted:
    """An export that something happens to after the first page of each of its first attempts."""

    store: EvidenceStore
    happenings: Sequence[Callable[[], None]]
    is_sequenced: bool = True
    attempts: int = 0

    def __call__(self, written: int, _count: int) -> None:
        if written != 4:
            return
        self.attempts += 1
        if self.attempts <= len(self.happenings):
            self.happenings[self.attempts - 1]()
            if self.is_sequenced:
                sequencer(self.store).run(is_last=True)

    def export(self, path: Path) -> Json:
        exporter = Exporter(
            store=self.store, ledger=Ledger(self.store, KEYRING), progress=self, wait_seconds=0.1
        )
        exporter.export(path, Selection())
        return verify_file(path)


def filled(store: EvidenceStore) -> None:
    """So that what is erased stands after the first page."""
    append(store, 4)
    store.append(about_all())
    sequencer(store).run(is_last=True)


def erased_whole(store: EvidenceStore) -> None:
    erase(store, [REQUEST], ERASURE)


def quarantined(store: EvidenceStore) -> None:
    hold(store, [REQUEST], ORDER, kind="quarantine")


@pytest.mark.parametrize("is_sequenced", [True, False], ids=["placed", "not placed"])
@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [
        ([], erased_whole),
        ([], quarantined),
        ([], lambda store: part_erased(store, SUBJECTS[0])),
        ([SUBJECTS[0]], erased_whole),
        ([SUBJECTS[0]], quarantined),
    ],
    ids=["whole", "quarantine", "part", "whole after part", "hidden after part"],
)
def test_what_goes_while_a_bundle_is_written_starts_it_again(
    store: EvidenceStore,
    tmp_path: Path,
    before: list[str],
    meanwhile: Callable[[EvidenceStore], None],
    *,
    is_sequenced: bool,
) -> None:
    filled(store)
    for subject in before:
        part_erased(store, subject)
    sequencer(store).run(is_last=True)

    def placed_at_last() -> None:
        sequencer(store).run(is_last=True)

    happenings = [lambda: meanwhile(store), placed_at_last]
    run = Interrupted(store, happenings, is_sequenced=is_sequenced)
    verdict = run.export(tmp_path / "bundle")
    assert (verdict["findings"], verdict["whole_log"]) == ([], True)
    assert run.attempts == (2 if is_sequenced else 3)


def test_an_answer_beside_a_record_that_goes_meanwhile_starts_it_again(
    store: EvidenceStore, tmp_path: Path
) -> None:
    event = decision(REQUEST[1])
    store.append(event)
    append(store, 4)
    add_beside(store, event, received_at=event.received_at + timedelta(minutes=1))
    sequencer(store).run(is_last=True)
    run = Interrupted(store, [lambda: erased_whole(store)])
    verdict = run.export(tmp_path / "bundle")
    assert (verdict["findings"], verdict["not_shown"], run.attempts) == ([], 2, 2)


def test_a_quarantine_released_and_followed_by_an_erasure_starts_it_again(
    store: EvidenceStore, tmp_path: Path
) -> None:
    filled(store)
    quarantined(store)
    release(store, [REQUEST], ORDER, kind="quarantine")
    sequencer(store).run(is_last=True)
    run = Interrupted(store, [lambda: erased_whole(store)])
    assert (run.export(tmp_path / "bundle")["findings"], run.attempts) == ([], 2)


def test_an_export_that_erasures_overtake_each_time_is_refused_and_leaves_no_file(
    store: EvidenceStore, tmp_path: Path
) -> None:
    """Rather than a bundle that an honest reader must take for a forged one."""
    append(store, 4)
    for i in range(9):
        store.append(decision(f"request-{i}"))
    sequencer(store).run(is_last=True)

    def erased(number: int) -> None:
        erase(store, [("default", f"request-{number}")], ERASURE)

    run = Interrupted(store, [partial(erased, number) for number in range(9)])
    with pytest.raises(UnavailableError, match="export again"):
        run.export(tmp_path / "bundle")
    assert list(tmp_path.glob("*bundle*")) == []


def test_a_payload_that_is_gone_without_a_reason_is_left_for_the_reader_to_see(
    url: str, store: EvidenceStore, tmp_path: Path
) -> None:
    filled(store)
    part_erased(store, SUBJECTS[0])
    sequencer(store).run(is_last=True)
    drop_rails(url)
    change(url, "UPDATE events SET payload = NULL WHERE subjects IS NOT NULL")
    run = Interrupted(store, ())
    (found,) = run.export(tmp_path / "bundle")["findings"]
    assert (found["seq"], "payload missing" in found["problem"], run.attempts) == (4, True, 1)
