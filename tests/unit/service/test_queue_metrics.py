from prometheus_client import CollectorRegistry

from service.queue import JobQueue
from service.queue_metrics import JobMetrics, QueueMetrics


def test_all_series_of_the_queue_exist_from_the_first_scrape() -> None:
    registry = CollectorRegistry()
    QueueMetrics(registry)
    JobMetrics(registry)
    for queue in ("high", "low"):
        for state in ("ready", "running", "delayed", "dead"):
            labels = {"queue": queue, "state": state}
            assert registry.get_sample_value("explain_queue_jobs", labels) == 0
        for outcome in ("finished", "failed", "dead", "skipped", "handed_back"):
            labels = {"queue": queue, "outcome": outcome}
            assert registry.get_sample_value("explain_jobs_total", labels) == 0
        assert registry.get_sample_value("explain_queue_wait_seconds_count", {"queue": queue}) == 0


def test_the_queues_gauges_are_read_when_they_are_asked_for() -> None:
    registry = CollectorRegistry()
    said = {("high", "ready"): 3.0, ("low", "dead"): 2.0, ("high", "oldest_seconds"): 1.5}
    QueueMetrics(registry).follow(lambda queue, what: said.get((queue, what), 0.0))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("explain_queue_jobs", queue="high", state="ready") == 3
    assert value("explain_queue_jobs", queue="low", state="dead") == 2
    assert value("explain_queue_oldest_job_age_seconds", queue="high") == 1.5
    said["high", "ready"] = 5.0
    assert value("explain_queue_jobs", queue="high", state="ready") == 5


async def test_a_queue_gives_its_numbers_by_name() -> None:
    queue = await JobQueue.open("unix:///nowhere/at/all")
    for name in ("ready", "running", "delayed", "dead", "oldest_seconds"):
        assert queue.number("high", name) == 0
    await queue.close()
