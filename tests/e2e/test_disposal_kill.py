"""Erasures that are killed again and again end as one that was left alone."""

import json
import random
import subprocess
from pathlib import Path

from decisions import about_one, decision
from ledgers import assert_log_is_sound, sequencer
from servers import COMMAND, explaind, wait_until
from sqlalchemy import func, select

from service.evidence import EvidenceStore
from service.evidence.events import seal
from service.evidence.tables import erasures, events
from service.secrets import Keyring

RECORDS = 1500
KILLS = 5


def test_an_erasure_killed_many_times_erases_each_record_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evidence.db"
    subject = Keyring.open(tmp_path / "secret").digest("default", "subject", b"anna")
    with EvidenceStore.open(url) as store:
        rows = [seal(about_one(subject, f"about-anna-{i:05}")) for i in range(RECORDS)]
        for start in range(0, RECORDS, 500):
            store.insert(rows[start : start + 500])
        store.append(decision("of-another"))
    arguments = ("erase", "--subject", "anna", "--yes", "--json", "--data-dir", str(tmp_path))
    seen: set[int] = set()
    for _ in range(KILLS):
        seen.add(_killed_midway(url, arguments))
    assert len(seen) > 2, "no kill came in the middle"
    done = explaind(*arguments)
    assert (done.returncode, json.loads(done.stdout)["held"]) == (0, [])
    with EvidenceStore.open(url) as store, store.reading() as connection:
        assert (
            connection.execute(select(func.count()).select_from(erasures)).scalar_one() == RECORDS
        )
        left = select(events.c.request_id).where(events.c.payload.is_not(None))
        kept = left.where(events.c.event_type == "decision")
        assert list(connection.scalars(kept)) == ["of-another"]
        sequencer(store).run(is_last=True)
    assert_log_is_sound(url, entries=2 * RECORDS + 1)


def _killed_midway(url: str, arguments: tuple[str, ...]) -> int:
    """Kill the command once it has erased some more: how many are erased then."""
    wanted = _erased(url) + random.randint(1, RECORDS // KILLS)
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: _erased(url) >= wanted or process.poll() is not None, seconds=60)
        process.kill()
    return _erased(url)


def _erased(url: str) -> int:
    with EvidenceStore.open(url) as store, store.reading() as connection:
        return connection.execute(select(func.count()).select_from(erasures)).scalar_one()
