"""Metrics of queue, jobs and workers."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JOB_BUCKETS = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 900)
QUEUES = ("high", "low")
STATES = ("ready", "running", "delayed", "dead")
OUTCOMES = ("finished", "failed", "dead", "skipped", "handed_back")


class QueueMetrics:
    """What an API process knows of the queue: read at each scrape from what the server last said.

    Every replica exports the same numbers: take the maximum, never the sum.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Gauge(
            "explain_queue_jobs", "Jobs by state", ("queue", "state"), registry=registry
        )
        self._oldest = Gauge(
            "explain_queue_oldest_job_age_seconds",
            "Age of the oldest unfinished job",
            ("queue",),
            registry=registry,
        )
        for queue in QUEUES:
            self._oldest.labels(queue)
            for state in STATES:
                self._jobs.labels(queue, state)

    def follow(self, number: Callable[[str, str], float]) -> None:
        """Read from a function that gives, for a queue, its jobs in a state or `oldest_seconds`."""
        for queue in QUEUES:
            self._oldest.labels(queue).set_function(partial(number, queue, "oldest_seconds"))
            for state in STATES:
                self._jobs.labels(queue, state).set_function(partial(number, queue, state))


class JobMetrics:
    """What a worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._wait = Histogram(
            "explain_queue_wait_seconds",
            "From queueing a job to a worker's taking it",
            ("queue",),
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "explain_job_duration_seconds",
            "Computing one job",
            ("queue",),
            buckets=JOB_BUCKETS,
            registry=registry,
        )
        self._jobs = Counter(
            "explain_jobs", "Jobs by how they ended here", ("queue", "outcome"), registry=registry
        )
        self._heartbeat = Gauge(
            "explain_worker_last_heartbeat_timestamp_seconds",
            "When a worker last gave a sign",
            ("queue",),
            registry=registry,
        )
        self._count = {
            (queue, outcome): self._jobs.labels(queue, outcome)
            for queue in QUEUES
            for outcome in OUTCOMES
        }
        self._waits = {queue: self._wait.labels(queue) for queue in QUEUES}
        self._durations = {queue: self._duration.labels(queue) for queue in QUEUES}

    def count(self, queue: str, outcome: str) -> None:
        """One job of that stream ended this way for this worker."""
        self._count[queue, outcome].inc()

    def waited(self, queue: str, seconds: float) -> None:
        """A job was taken."""
        self._waits[queue].observe(max(0.0, seconds))

    def computed(self, queue: str, seconds: float) -> None:
        """A job was computed."""
        self._durations[queue].observe(seconds)

    def beat(self) -> None:
        """The worker is there."""
        for queue in QUEUES:
            self._heartbeat.labels(queue).set_to_current_time()
