"""What evidence writer, spool and log report, as metrics."""

from functools import lru_cache

from service.metrics import BACKEND, LOG_BACKEND, SPOOL, Metrics


class CommitCounts:
    """Turns the evidence writer's reports into metrics."""

    def __init__(self, metrics: Metrics, backend: str = BACKEND) -> None:
        self._stored = metrics.audit_writes.labels(backend, "ok")
        self._failed = metrics.audit_writes.labels(backend, "error")
        self._duration = metrics.audit_write_duration.labels(backend)

    def on_commit(self, rows: int, seconds: float) -> None:
        """That many events are durable; the insert took so long."""
        self._stored.inc(rows)
        self._duration.observe(seconds)

    def on_failure(self, rows: int) -> None:
        """That many events are not confirmed as stored."""
        self._failed.inc(rows)


class SpoolCounts(CommitCounts):
    """The same of the spool, and what becomes of what is or should be there."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics, SPOOL)
        self._writes = metrics.audit_writes

    def on_not_kept(self) -> None:
        """An event is neither in the store nor in the spool."""
        self._writes.labels(SPOOL, "none").inc()

    def on_damaged(self) -> None:
        """A file is damaged, and put aside."""
        self._writes.labels(SPOOL, "damaged").inc()

    def on_drained(self, stored: int, twins: int, refused: int, erased: int) -> None:
        """So many events came from the spool into the store, and so on."""
        counted = {"drained": stored, "twin": twins, "refused": refused, "erased": erased}
        for outcome, rows in counted.items():
            self._writes.labels(SPOOL, outcome).inc(rows)


class LogCounts:
    """Turns the sequencer's reports into metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._waiting = metrics.audit_backlog.labels(LOG_BACKEND)
        self._failures = lru_cache(64)(lambda kind: metrics.errors.labels("", "store", kind))
        self._failures("LogMismatchError")

    def on_failure(self, kind: str) -> None:
        """A log could not be brought up to date, by an error of that class."""
        self._failures(kind).inc()

    def on_waiting(self, rows: int) -> None:
        """That many stored rows have no place in their log yet."""
        self._waiting.set(rows)
