"""The purge that runs inside a service, and how it ends with it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from decisions import decision
from polling import until

from service.accesses import AccessFilter, listed
from service.evidence import EvidenceLog
from service.evidence.tables import events
from service.metrics import Metrics
from service.purges import PRINCIPAL, PurgeJob

N_RECORDS = 20


@pytest.fixture
async def evidence(url: str) -> AsyncIterator[EvidenceLog]:
    evidence = await EvidenceLog.open(url)
    long_ago = datetime.now(UTC) - timedelta(days=400)
    records = [decision(f"expired-{number}") for number in range(N_RECORDS)]
    expired = (replace(each, received_at=long_ago, completed_at=long_ago) for each in records)
    await asyncio.gather(*map(evidence.append, expired))
    yield evidence
    await evidence.close()


def purged(evidence: EvidenceLog) -> int:
    with evidence.store.reading() as connection:
        gone = events.select().where(events.c.event_type == "purge")
        return len(connection.execute(gone).all())


def entries(evidence: EvidenceLog) -> list[object]:
    """What the access log says was purged, an entry a run."""
    found = listed(evidence.store, AccessFilter(principal=PRINCIPAL))
    return [entry["kinds"][0]["purged"] for entry in found]  # type: ignore[index]


async def test_a_purge_that_is_stopped_has_accounted_for_all_it_did_before_the_job_ends(
    evidence: EvidenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.disposal.purging.BATCH", 1)
    job = asyncio.create_task(PurgeJob(evidence, Metrics()).run())
    await until(lambda: purged(evidence) > 0, seconds=60)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    done = purged(evidence)
    assert done < N_RECORDS  # between two of them it rests for ten times as long as one takes
    assert entries(evidence) == [done]
    assert await evidence.is_writable()  # a commit later nothing has been added
    assert (purged(evidence), entries(evidence)) == (done, [done])


async def test_a_purge_that_ends_by_itself_waits_for_the_next_hour(
    evidence: EvidenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.purges.MOST_SHARE", 1.0)
    job = asyncio.create_task(PurgeJob(evidence, Metrics()).run())
    await until(lambda: entries(evidence) == [N_RECORDS], seconds=60)
    assert not job.done()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
