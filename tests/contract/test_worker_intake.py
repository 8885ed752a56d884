"""What a worker takes ahead, over a real server: light jobs only, and never for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from job_store import JobStore, StoredWork
from jobs import job
from polling import until
from prometheus_client import CollectorRegistry
from valkey_server import Valkey

from service.queue import Claim, JobClaims, JobQueue
from service.queue_metrics import JobMetrics
from service.worker import intake
from service.worker.concluding import Concluder
from service.worker.intake import MOST_JOBS, Intake, Limits, Shared

LEASE_SECONDS = 60.0
LIGHT = 0.0001
JOBS = MOST_JOBS + 10


@asynccontextmanager
async def claims_of(valkey: Valkey, name: str) -> AsyncIterator[JobClaims]:
    claims = JobClaims(valkey.url, consumer=name, lease_seconds=LEASE_SECONDS)
    try:
        yield claims
    finally:
        await claims.close()


@pytest.fixture
async def own(valkey: Valkey) -> AsyncIterator[JobClaims]:
    async with claims_of(valkey, "own") as claims:
        yield claims


@pytest.fixture
async def another(valkey: Valkey) -> AsyncIterator[JobClaims]:
    async with claims_of(valkey, "another") as claims:
        yield claims


@pytest.fixture
async def lane(queue: JobQueue, own: JobClaims, tmp_path: Path) -> AsyncIterator[Intake]:
    """Of a worker that has just looked for jobs of others; more than a batch is queued."""
    store, metrics = JobStore(tmp_path / "jobs.db"), JobMetrics(CollectorRegistry())
    store.create()
    limits = Limits(LEASE_SECONDS, LEASE_SECONDS, LEASE_SECONDS)
    lane = Intake(Shared(StoredWork(store), own, Concluder(own, metrics), metrics, limits))
    assert await lane.take() == []
    names = [f"job_{n:03}" for n in range(JOBS)]
    store.add(**{name: {} for name in names})
    for name in names:
        await queue.submit(job(name.replace("_", "-")))
    yield lane
    await lane.drop()


def think(lane: Intake, seconds: float) -> None:
    """Jobs have taken so long lately."""
    for _ in range(50):
        lane.computed(seconds)


async def handed_back(claims: JobClaims) -> Claim:
    """A job that may be reclaimed at once."""
    (claim,) = await claims.claim(1)
    await claims.hand_back([claim])
    return claim


async def reclaimed(claims: JobClaims) -> list[Claim]:
    found = []
    while (claim := await claims.reclaim()) is not None:
        found.append(claim)
    return found


async def test_light_jobs_are_taken_ahead_and_their_leases_held(lane: Intake) -> None:
    think(lane, LIGHT)
    first = await lane.take()
    assert len(first) == MOST_JOBS
    await until(lambda: len(lane.held) == JOBS)
    second = await lane.take()
    names = [item.claim.job.request_id for item in (*first, *second)]
    assert names == [f"job-{n:03}" for n in range(JOBS)]


@pytest.mark.parametrize("seconds", [intake.LIGHT_SECONDS * 1.1, 5.0])
async def test_jobs_that_take_long_are_left_to_whoever_is_idle(
    lane: Intake, another: JobClaims, seconds: float
) -> None:
    think(lane, seconds)
    taken = await lane.take()
    assert len(taken) * seconds <= max(intake.BATCH_SECONDS / 2, seconds)
    await asyncio.sleep(0.05)
    assert len(await another.claim(JOBS)) == JOBS - len(taken)


async def test_nothing_is_taken_ahead_of_a_job_that_is_reclaimed(
    lane: Intake, another: JobClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handed_back(another)
    think(lane, LIGHT)
    monkeypatch.setattr(lane, "_reclaim_at", 0.0)
    assert len(await lane.take()) == 1
    await asyncio.sleep(0.05)
    assert len(lane.held) == 1


async def test_whoever_holds_a_lease_renews_it_first_after_the_queue_was_away(
    lane: Intake, another: JobClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await handed_back(another)
    think(lane, LIGHT)
    monkeypatch.setattr(lane, "_reclaim_at", 0.0)
    lane.let_others_renew()
    taken = await lane.take()
    assert lost.job.request_id not in {item.claim.job.request_id for item in taken}


async def test_a_delivery_that_ended_a_child_counts_though_the_rest_is_handed_back(
    lane: Intake, another: JobClaims
) -> None:
    think(lane, LIGHT)
    culprit, *others = await lane.take()
    lane.suspect(culprit)
    await lane.hand_back()
    found = await reclaimed(another)
    assert culprit.claim.entry not in {claim.entry for claim in found}
    assert {item.claim.entry for item in others} <= {claim.entry for claim in found}


async def test_what_waits_behind_a_job_that_turns_out_heavy_goes_to_another_worker(
    lane: Intake, another: JobClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LONGEST_KEPT_SECONDS", 0.2)
    think(lane, LIGHT)
    first = await lane.take()
    await until(lambda: len(lane.held) == JOBS)
    await until(lambda: len(lane.held) == len(first))
    found = await reclaimed(another)
    assert {claim.deliveries for claim in found} == {1}
    assert len(found) == JOBS - len(first)


async def test_what_was_taken_ahead_is_handed_back_at_the_end_uncounted(
    lane: Intake, own: JobClaims, another: JobClaims
) -> None:
    think(lane, LIGHT)
    await lane.take()
    await until(lambda: len(lane.held) == JOBS)
    await lane.drop()
    assert not lane.held
    await own.leave(in_order=True)
    found = await reclaimed(another)
    assert [claim.deliveries for claim in found] == [1] * JOBS
