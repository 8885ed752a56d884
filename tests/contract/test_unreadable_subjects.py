"""A cell that names the subjects of an event and was made something else from outside."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import ANNA, about_two, change, drop_rails, final, pending
from disposals import ERASURE
from ledgers import KEYRING, sequencer

from service.bundles import Exporter, Selection
from service.disposal import erase, of_subject
from service.evidence import EvidenceError, EvidenceStore, UnreadableSubjectsError
from service.ledger import Ledger

CELLS = ["[", "", "5", '"4d7e-anna"', '{"4d7e-anna": 1}', '[["4d7e-anna"]]', "[4711]"]


def exported(store: EvidenceStore, folder: Path) -> object:
    sequencer(store).run(is_last=True)
    exporter = Exporter(store=store, ledger=Ledger(store, KEYRING), wait_seconds=0.1)
    return exporter.export(folder / "x.jsonl", Selection(subject=ANNA, tenant="default"))


def found(store: EvidenceStore, _: Path) -> object:
    return of_subject(store, "default", ANNA)


def erased(store: EvidenceStore, _: Path) -> object:
    return erase(store, [("default", "request-1")], replace(ERASURE, subject=ANNA))


@pytest.mark.parametrize("used", [exported, found, erased])
@pytest.mark.parametrize("cell", CELLS)
def test_what_needs_it_names_the_event_in_one_line(
    store: EvidenceStore,
    url: str,
    tmp_path: Path,
    used: Callable[[EvidenceStore, Path], object],
    cell: str,
) -> None:
    event = about_two()
    store.append(event)
    drop_rails(url)
    change(url, "UPDATE events SET subjects = 'CELL'".replace("CELL", cell.replace(":", "\\:")))
    with pytest.raises(UnreadableSubjectsError) as raised:
        used(store, tmp_path)
    assert isinstance(raised.value, EvidenceError)  # which commands print as a line
    assert str(raised.value) == f"event {event.event_id}: whom it is about cannot be read"


def test_an_explanation_that_names_nobody_readably_is_not_erased_in_part(
    store: EvidenceStore, url: str
) -> None:
    request = replace(about_two(), status="pending", lane="queued")
    store.append(request)
    explained = replace(final(pending("request-1")), subjects=request.subjects)
    assert store.append_final(explained).stored
    drop_rails(url)
    change(url, "UPDATE events SET subjects = '[' WHERE event_type = 'explanation'")
    with pytest.raises(UnreadableSubjectsError, match=explained.event_id):
        erased(store, Path())
    assert store.get("default", "request-1") is not None
