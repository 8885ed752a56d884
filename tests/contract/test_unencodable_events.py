"""Events that cannot be encoded: each costs itself alone, and no key of theirs stays."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from decisions import STORED, about_two, decision
from spools import spooling_log
from structlog.testing import capture_logs

from service.evidence import AppendOutcome, DecisionEvent, EventRefusedError, EvidenceStore
from service.evidence.sealing import AT_ONCE_BYTES
from service.keystore import Kek, KeyStore

N_SECTIONS = 4


@pytest.fixture
def own_keys(tmp_path: Path) -> Iterator[KeyStore]:
    """Those nobody took are gone once it is closed."""
    with KeyStore.open(f"sqlite:///{tmp_path}/keys.db", Kek(bytes(32))) as keys:
        yield keys


def n_stored(keys: KeyStore, folder: Path) -> int:
    keys.close()
    with sqlite3.connect(folder / "keys.db") as connection:
        return int(connection.execute("SELECT count(*) FROM record_keys").fetchone()[0])


def unencodable(event: DecisionEvent) -> DecisionEvent:
    return replace(event, actor="\udcff")


@pytest.mark.parametrize("room", [AT_ONCE_BYTES, 0])
def test_the_key_of_what_cannot_be_sealed_does_not_stay(
    own_keys: KeyStore, tmp_path: Path, room: int
) -> None:
    with EvidenceStore.open(f"sqlite:///{tmp_path}/evidence.db", keys=own_keys) as store:
        with pytest.raises(TypeError):
            store.sealer.seal(unencodable(decision()), room=room)
        assert store.append(decision()) is STORED
    assert n_stored(own_keys, tmp_path) == 1


def test_what_cannot_be_cut_into_sections_is_refused_alone_and_its_keys_do_not_stay(
    url: str, own_keys: KeyStore, tmp_path: Path
) -> None:
    events = [decision("before-it"), unencodable(about_two("spoiled-1")), about_two("behind-it")]
    with EvidenceStore.open(url, keys=own_keys) as store:
        before, refused, behind = store.store([store.sealer.seal(event) for event in events])
        assert (before, type(refused), behind) == (STORED, EventRefusedError, STORED)
        assert store.record("default", "spoiled-1") is None
    assert n_stored(own_keys, tmp_path) == 1 + N_SECTIONS


@pytest.mark.parametrize("spoiled", [unencodable(decision()), replace(decision(), subjects="[")])
async def test_of_best_effort_what_cannot_be_sealed_is_not_kept_and_the_others_of_its_batch_are(
    own_keys: KeyStore, tmp_path: Path, spoiled: DecisionEvent
) -> None:
    async with spooling_log(tmp_path, keys=own_keys) as (log, tally):
        loop = asyncio.get_running_loop()
        batch = [(event, loop.create_future()) for event in (decision(), spoiled, decision())]
        with capture_logs() as lines:
            log.submit_best_effort(batch)
            outcomes = await asyncio.gather(*(answer for _, answer in batch))
    assert outcomes == [STORED, AppendOutcome.NOT_KEPT, STORED]
    assert [(line["event"], line["event_id"]) for line in lines] == [
        ("evidence_not_kept", spoiled.event_id)
    ]
    assert tally.counts == {"not kept": 1}
    assert n_stored(own_keys, tmp_path) == 2


async def test_of_best_effort_what_no_writer_can_encode_is_not_kept_and_passes_no_store_by(
    own_keys: KeyStore, tmp_path: Path
) -> None:
    batch = [decision(), unencodable(about_two("spoiled-1")), decision()]
    async with spooling_log(tmp_path, keys=own_keys) as (log, tally):
        outcomes = await asyncio.gather(*map(log.append_best_effort, batch))
        assert outcomes == [STORED, AppendOutcome.NOT_KEPT, STORED]
        assert log.spool is not None
        assert not log.spool.is_needed
    assert tally.counts == {"not kept": 1}
    assert n_stored(own_keys, tmp_path) == 2
