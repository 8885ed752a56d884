"""Everything a run needs, opened from the settings and let go of afterwards."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.auth import DEFAULT_TENANT, LOCAL, Caller
from service.bulk.reading import Table
from service.bulk.running import Bulk, BulkReport, Progress
from service.errors import UnknownError
from service.metrics import Metrics
from service.policies import Policies
from service.queue import JobQueue
from service.queue.embedded import Embedded, running_url
from service.registry import RegisteredModel, Registry
from service.secrets import Keyring
from service.served import ServedModel
from service.settings import Settings
from service.storing import evidence_log

DEFAULT_CHUNK_ROWS = 200
WORKER_LOG = "worker.log"
PATIENCE_SECONDS = 5.0
"""With the queue's server: nobody waits for an answer here."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be explained by which model, and where to; version None: the one that serves.

    subject_column: of the file; says whom each row is about.
    """

    model: str
    file: Path
    out: Path
    version: int | None = None
    chunk_rows: int = DEFAULT_CHUNK_ROWS
    tenant: str = DEFAULT_TENANT
    subject_column: str | None = None


async def explain_table(
    settings: Settings,
    order: Order,
    *,
    on_start: Callable[[Table], None],
    on_progress: Callable[[Progress], None],
) -> BulkReport:
    """Explain a file through the queue of the running service, or one started for the duration.

    Raises UnknownError, InvalidInputError, CheckFailedError, UnavailableError.
    """
    registry = Registry(settings.registry)
    model = registry.load(order.model, _version(registry, order))
    table = Table.open(order.file, model.schema, subject_column=order.subject_column)
    on_start(table)
    keyring = Keyring.open(settings.secret_file)
    async with (
        evidence_log(settings) as evidence,
        queue_url(settings) as url,
        _queue(url, settings) as queue,
    ):
        bulk = Bulk(
            served=_served(settings, model, keyring),
            table=table,
            evidence=evidence,
            queue=queue,
            keyring=keyring,
            caller=Caller(LOCAL.principal, order.tenant, LOCAL.scopes, LOCAL.auth_method),
            chunk_rows=order.chunk_rows,
        )
        return await bulk.explain_into(order.out, on_progress)


def _version(registry: Registry, order: Order) -> int:
    layout = registry.layout
    version = order.version or (
        layout.serving(order.model) if order.model in layout.names() else None
    )
    if version is None or version not in layout.versions(order.model):
        raise UnknownError(f"there is no version of {order.model!r} to explain with")
    return version


def _served(settings: Settings, model: RegisteredModel, keyring: Keyring) -> ServedModel:
    policy = None
    if settings.policy_file is not None:
        policy = Policies(settings.policy_file, keyring).of(model)
    return ServedModel.of(model, Metrics(), retention_days=settings.retention_days, policy=policy)


@asynccontextmanager
async def _queue(url: str, settings: Settings) -> AsyncIterator[JobQueue]:
    queue = await JobQueue.open(
        url, max_queue=settings.max_queue, request_timeout_seconds=PATIENCE_SECONDS
    )
    try:
        yield queue
    finally:
        await queue.close()


@asynccontextmanager
async def queue_url(settings: Settings) -> AsyncIterator[str]:
    """The queue that is set, that of the service running on this data directory, or one with a
    worker that ends with the block.
    """
    url = settings.redis_url or await running_url(settings)
    if url is not None:
        yield url
        return
    # Its log would run through the progress bar.
    own = settings.model_copy(update={"embedded_workers": max(1, settings.embedded_workers)})
    embedded = await Embedded.start(own, worker_log=settings.data_dir / WORKER_LOG)
    try:
        yield embedded.redis_url
    finally:
        await embedded.stop()
