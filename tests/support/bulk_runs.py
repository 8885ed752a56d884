"""Bulk runs beside a real queue and worker, and what they left in the evidence store."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import timedelta
from pathlib import Path

from service.auth import LOCAL
from service.bulk import BulkReport, Order, Table, explain_table
from service.bulk.running import Bulk
from service.evidence import EvidenceStore
from service.evidence.events import EPOCH
from service.queue import JobQueue
from service.queue.embedded import Embedded, running_url
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import Settings
from service.storing import evidence_log

FAR = EPOCH + timedelta(days=40_000)


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


@asynccontextmanager
async def opened(
    folder: Path, queue: str, served: ServedModel, order: Order
) -> AsyncIterator[Bulk]:
    """A run whose parts a test chooses."""
    schema = served.model.schema
    async with evidence_log(Settings.load({}, data_dir=folder)) as evidence:
        jobs = await JobQueue.open(queue)
        try:
            yield Bulk(
                served=served,
                table=Table.open(order.file, schema, subject_column=order.subject_column),
                evidence=evidence,
                queue=jobs,
                keyring=Keyring(bytes(32)),
                caller=LOCAL,
                chunk_rows=order.chunk_rows,
            )
        finally:
            await jobs.close()


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
