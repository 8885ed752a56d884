"""A worker's series on its API's page: summed, kept over restarts, in both formats."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import exposition as text
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.remote_metrics import JointRegistry, RemoteMetrics, serve_snapshots


class Counting:
    """A process that counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter("jobs", "Jobs", ["outcome"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time", buckets=(1, 2), registry=self.registry)
        self.beat = Gauge("beat", "Last sign", registry=self.registry)


@pytest.fixture
def own() -> Counting:
    return Counting()


@pytest.fixture
def remote(tmp_path: Path) -> RemoteMetrics:
    return RemoteMetrics(tmp_path / "metrics")


@asynccontextmanager
async def answering(
    process: Counting, remote: RemoteMetrics, tmp_path: Path, name: str
) -> AsyncIterator[None]:
    server = await serve_snapshots(process.registry, name, tmp_path / "metrics")
    async with server:
        await remote.refresh()
        yield


def value(own: Counting, remote: RemoteMetrics, name: str, **labels: str) -> float | None:
    page = openmetrics.generate_latest(JointRegistry(own.registry, remote)).decode()  # type: ignore[arg-type,no-untyped-call]
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) < 2
    return found[0] if found else None


async def test_counters_and_histograms_are_summed_and_the_greater_gauge_counts(
    own: Counting, remote: RemoteMetrics, tmp_path: Path
) -> None:
    own.jobs.labels("ok").inc(2)
    own.seconds.observe(0.5)
    own.beat.set(7)
    worker = Counting()
    worker.jobs.labels("ok").inc(3)
    worker.jobs.labels("dead").inc()
    worker.seconds.observe(1.5)
    worker.beat.set(9)
    async with answering(worker, remote, tmp_path, "first"):
        assert value(own, remote, "jobs_total", outcome="ok") == 5
        assert value(own, remote, "jobs_total", outcome="dead") == 1
        assert value(own, remote, "seconds_bucket", le="1.0") == 1
        assert value(own, remote, "seconds_bucket", le="2.0") == 2
        assert value(own, remote, "seconds_sum") == 2
        assert value(own, remote, "beat") == 9
    page = text.generate_latest(JointRegistry(own.registry, remote)).decode()  # type: ignore[arg-type]
    assert 'jobs_total{outcome="ok"} 5.0' in page
    assert page.count("# TYPE jobs_total counter") == 1


async def test_no_counter_goes_backwards_when_the_worker_starts_again(
    own: Counting, remote: RemoteMetrics, tmp_path: Path
) -> None:
    for name in ("first", "second", "third"):
        worker = Counting()
        async with answering(worker, remote, tmp_path, name):
            worker.jobs.labels("ok").inc(4)
            worker.beat.set(3)
            await remote.refresh()
            await remote.refresh()
    assert value(own, remote, "jobs_total", outcome="ok") == 12
    worker = Counting()
    async with answering(worker, remote, tmp_path, "fourth, which has counted nothing yet"):
        assert value(own, remote, "jobs_total", outcome="ok") == 12
        assert value(own, remote, "beat") == 0


async def test_a_worker_that_does_not_answer_keeps_what_it_had(
    own: Counting, remote: RemoteMetrics, tmp_path: Path
) -> None:
    await remote.refresh()
    assert value(own, remote, "jobs_total", outcome="ok") is None
    worker = Counting()
    worker.jobs.labels("ok").inc()
    async with answering(worker, remote, tmp_path, "first"):
        pass
    await remote.refresh()
    assert value(own, remote, "jobs_total", outcome="ok") == 1


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'["name"]'])
async def test_what_is_no_snapshot_is_ignored(
    own: Counting, remote: RemoteMetrics, tmp_path: Path, said: bytes
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    own.jobs.labels("ok").inc()
    async with await asyncio.start_unix_server(answer, tmp_path / "metrics"):
        await remote.refresh()
    assert value(own, remote, "jobs_total", outcome="ok") == 1


async def test_exemplars_come_along_and_the_newer_one_is_shown(
    own: Counting, remote: RemoteMetrics, tmp_path: Path
) -> None:
    own.seconds.observe(0.5, {"request_id": "older"})
    worker = Counting()
    worker.seconds.observe(0.6, {"request_id": "newer"})
    worker.seconds.observe(1.5, {"request_id": "alone"})
    async with answering(worker, remote, tmp_path, "first"):
        page = openmetrics.generate_latest(JointRegistry(own.registry, remote)).decode()  # type: ignore[arg-type,no-untyped-call]
    assert "newer" in page
    assert "alone" in page
    assert "older" not in page
