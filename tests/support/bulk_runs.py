"""Bulk runs beside a real queue and worker, and what they left in the evidence store."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from service.bulk import BulkReport, Order, explain_table
from service.evidence import EvidenceStore
from service.queue.embedded import Embedded, running_url
from service.settings import Settings


@contextmanager
def working_queue(folder: Path) -> Iterator[str]:
    """The queue and the worker that `explaind serve` starts in this data directory."""
    settings = Settings.load({}, data_dir=folder)
    EvidenceStore.open(settings.database_url).close()
    with asyncio.Runner() as runner:  # in this thread, at whose end both would end
        embedded = runner.run(Embedded.start(settings))
        assert runner.run(running_url(settings)) == embedded.redis_url
        try:
            yield embedded.redis_url
        finally:
            runner.run(embedded.stop())


def explain(
    folder: Path, order: Order, *, policy: Path | None = None, secret: Path | None = None
) -> BulkReport:
    """As the command does it, in this process."""
    settings = Settings.load({}, data_dir=folder, policy_file=policy, secret_file=secret)
    run = explain_table(settings, order, on_start=lambda _: None, on_progress=lambda _: None)
    return asyncio.run(run)


def stored(folder: Path, event_type: str) -> set[tuple[str, str]]:
    """Event and request ID of all such events of bulk runs."""
    query = "SELECT event_id, request_id FROM events WHERE event_type = ? AND request_id LIKE ?"
    with closing(sqlite3.connect(folder / "evidence.db", timeout=30)) as connection:
        return set(connection.execute(query, (event_type, "bulk-%")))
