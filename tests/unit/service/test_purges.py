"""The purge of a running service, in its metrics."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from decisions import decision
from disposals import ORDER

from service.disposal import hold
from service.evidence import EvidenceLog
from service.metrics import Metrics
from service.purges import PurgeJob
from service.settings import sqlite_url

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_what_a_hold_keeps_from_the_purge_is_shown(tmp_path: Path) -> None:
    evidence, metrics = await EvidenceLog.open(sqlite_url(tmp_path / "evidence.db")), Metrics()
    for name in ("request-1", "request-2", "request-3"):
        event = replace(decision(name), received_at=LONG_AGO, completed_at=LONG_AGO)
        await evidence.append(event)
    now = datetime.now(UTC)
    await evidence.append(replace(decision("request-4"), received_at=now, completed_at=now))
    hold(evidence.store, [("default", "request-2")], ORDER)
    await PurgeJob(evidence, metrics)._run_once()
    await evidence.close()
    value = metrics.registry.get_sample_value
    assert value("explain_records_purged_total", {"model": "credit"}) == 2
    assert value("explain_purge_held_records") == 1
    ended = value("explain_purge_last_success_timestamp_seconds")
    assert ended is not None
    assert datetime.now(UTC) - datetime.fromtimestamp(ended, UTC) < timedelta(minutes=5)
