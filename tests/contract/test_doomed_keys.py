"""Keys to be destroyed: those of what was erased, whatever else somebody writes among them."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import ANNA, about_two, change, decision, drop_rails
from disposals import ERASURE, ORDER
from ledgers import KEYRING, sequencer
from sqlalchemy import insert, select
from structlog.testing import capture_logs

from service.bundles.inspecting import Inspector
from service.disposal import erase, forget_keys, hold, of_subject
from service.disposal.forgetting import doom
from service.evidence import EvidenceStore, StoreUnavailableError
from service.evidence.exclusive import exclusively
from service.evidence.tables import doomed_keys, events
from service.keystore import REF_BYTES, KeyStore, KeysUnavailableError
from service.ledger import Ledger
from service.verify import Json

HELD, OTHER, THIRD = (("default", f"{name}-000") for name in ("held", "other", "third"))
PLANTED = "its key is to be destroyed, and nothing has erased it"


class KeysAway:
    """Those of a process that notes what it will destroy, and is killed before it does."""

    def delete(self, refs: Iterable[bytes]) -> None:
        raise KeysUnavailableError(f"{len([*refs])} keys stay")

    def forget_pages(self, *, seconds: float = 5.0) -> bool:
        raise NotImplementedError


def refs_of_request(store: EvidenceStore, key: tuple[str, str]) -> list[bytes]:
    query = select(events.c.record_key).where(events.c.request_id == key[1])
    with store.reading() as connection:
        joint = bytes(connection.scalars(query.where(events.c.event_type == "decision")).one())
    return [joint[start : start + REF_BYTES] for start in range(0, len(joint), REF_BYTES)]


def plant(store: EvidenceStore, refs: Iterable[bytes]) -> None:
    with store.changing() as connection:
        connection.execute(insert(doomed_keys), [{"ref": ref} for ref in refs])


def doomed(store: EvidenceStore) -> set[bytes]:
    with store.reading() as connection:
        return {bytes(ref) for ref in connection.scalars(select(doomed_keys.c.ref))}


def findings(store: EvidenceStore, directory: Path) -> list[Json]:
    sequencer(store).run(is_last=True)
    found = Inspector(store, Ledger(store, KEYRING), directory).inspect()["logs"]["evidence"]
    return list(found["findings"])


@pytest.mark.parametrize("in_sections", [False, True])
def test_a_key_planted_among_the_doomed_is_named_and_outlives_the_next_erasure(
    store: EvidenceStore,
    keys: KeyStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_sections: bool,
) -> None:
    monkeypatch.setattr("service.evidence.doomed._PAGE", 1)
    store.append(decision(OTHER[1]))
    store.append(about_two(HELD[1]) if in_sections else decision(HELD[1]))
    hold(store, [HELD], ORDER)
    refs, others = refs_of_request(store, HELD), refs_of_request(store, OTHER)
    assert findings(store, tmp_path) == []
    plant(store, refs)
    assert findings(store, tmp_path) == [{"seq": 1, "problem": PLANTED}]
    assert erase(store, [OTHER], ERASURE).erased == 1
    with capture_logs() as lines:
        assert forget_keys(store, keys)
    assert {line["event"] for line in lines} == {"doomed_key_in_use"}
    assert (keys.keys(refs).keys(), keys.keys(others)) == (set(refs), {})
    assert store.doomed == set()
    assert store.record(*HELD) is not None
    assert doomed(store) == set(refs)  # for whoever looks into it
    assert findings(store, tmp_path) == [{"seq": 1, "problem": PLANTED}]


def test_what_a_killed_process_left_is_destroyed_by_another(
    url: str, store: EvidenceStore, keys: KeyStore, tmp_path: Path
) -> None:
    store.append(about_two(HELD[1]))
    store.append(decision(OTHER[1]))
    refs, others = refs_of_request(store, HELD), refs_of_request(store, OTHER)
    killed = replace(ERASURE, keys=KeysAway())
    for selected, what in (
        ([OTHER], killed),
        (of_subject(store, "default", ANNA), replace(killed, subject=ANNA)),
    ):
        with EvidenceStore.open(url, keys=keys) as its, pytest.raises(StoreUnavailableError):
            erase(its, selected, what)
    left = doomed(store)
    assert set(others) < left < {*others, *refs}
    assert findings(store, tmp_path) == []
    store.append(decision(THIRD[1]))
    assert erase(store, [THIRD], ERASURE).erased == 1  # which destroys its own keys only
    assert doomed(store) == left
    assert forget_keys(store, keys)
    assert (doomed(store), keys.keys(left)) == (set(), {})
    assert keys.keys(refs).keys() == set(refs) - left
    record = store.record(*HELD)
    assert record is not None
    assert record.decision.is_parted


def test_what_an_erasure_doomed_that_was_rolled_back_is_no_more_trusted_than_anothers(
    store: EvidenceStore, keys: KeyStore
) -> None:
    store.append(decision(HELD[1]))
    refs = refs_of_request(store, HELD)
    with suppress(KeyboardInterrupt), exclusively(store) as connection:
        doom(connection, keys, refs)
        raise KeyboardInterrupt
    with exclusively(store):  # the next transaction on that connection
        pass
    plant(store, refs)
    with capture_logs() as lines:
        assert forget_keys(store, keys)
    assert {line["event"] for line in lines} == {"doomed_key_in_use"}
    assert keys.keys(refs).keys() == set(refs)


def test_a_section_that_is_left_keeps_its_key_though_another_was_erased(
    store: EvidenceStore, keys: KeyStore, tmp_path: Path
) -> None:
    store.append(about_two(HELD[1]))
    refs = refs_of_request(store, HELD)
    erase(store, of_subject(store, "default", ANNA), replace(ERASURE, subject=ANNA))
    left = set(keys.keys(refs))
    assert set() < left < set(refs)
    plant(store, refs)
    assert findings(store, tmp_path) == [{"seq": 0, "problem": PLANTED}]
    assert forget_keys(store, keys)
    assert (keys.keys(refs).keys(), doomed(store)) == (left, left)


BAD_CELLS = {
    "payload cut short": "UPDATE events SET payload = x'00' WHERE request_id = 'held-000'",
    "payload of a number": "UPDATE events SET payload = 5 WHERE request_id = 'held-000'",
    "key of a number": "UPDATE events SET record_key = 9999999999999"
    " WHERE request_id = 'other-000'",
    "doomed text": "INSERT INTO doomed_keys VALUES ('x')",
    "doomed number": "INSERT INTO doomed_keys VALUES (9999999999999)",
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_bad_cell_gives_no_key_away_and_keeps_none_from_being_destroyed(
    keys: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("service.evidence.doomed._PAGE", 1)
    url = f"sqlite:///{tmp_path}/evidence.db"
    with EvidenceStore.open(url, keys=keys) as store:
        store.append(about_two(HELD[1]))
        store.append(decision(OTHER[1]))
        refs, left_behind = refs_of_request(store, HELD), keys.take().ref
        plant(store, [*refs, left_behind])
        drop_rails(url)
        change(url, BAD_CELLS[name])
        assert {"seq": 0, "problem": PLANTED} in findings(store, tmp_path)
        assert forget_keys(store, keys)
    assert keys.keys([*refs, left_behind]).keys() == set(refs)
