"""Requests played before the service is ready, so that the first real one finds everything warm:
code that has run, statements that are prepared, pages that are mapped.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import orjson
from starlette.types import ASGIApp, Message, Scope

from service.auth import Authenticator
from service.delivery import Delivery
from service.evidence import EvidenceLog
from service.logs import log, place_of
from service.metrics import Metrics
from service.predicting import PredictService
from service.runtime import Runtime
from service.settings import sqlite_url
from service.storing import evidence_log

TURNS = 24
"""Of each model: Python specialises code that has run a few times."""

SECONDS = 0.5
"""For all models together; one that takes longer than its share has had one turn at least."""

Assemble = Callable[[Runtime], ASGIApp]


async def rehearse(runtime: Runtime, assemble: Assemble) -> None:
    """Send every served model its sample through a twin of the application, explained and not.

    The twin shares the models. Its metrics, and its database in a temporary folder, are thrown
    away: no counter moves and no record is kept. Cost: half a second, or one turn of each model.
    """
    try:
        with TemporaryDirectory(prefix="explaind-") as folder:
            await _rehearse_in(Path(folder), runtime, assemble)
    except Exception as error:  # noqa: BLE001 - a cold service is better than none
        log.warning("rehearsal_skipped", place=place_of(error))


async def _rehearse_in(folder: Path, runtime: Runtime, assemble: Assemble) -> None:
    own = runtime.settings.model_copy(
        update={
            "database_url_or_none": sqlite_url(folder / "evidence.db"),
            "keys_database_url_or_none": sqlite_url(folder / "keys.db"),
            "key_encryption_key_file_or_none": folder / "key-encryption-key",
        }
    )
    async with evidence_log(own) as evidence:
        await _rehearse_with(evidence, runtime, assemble)


async def _rehearse_with(evidence: EvidenceLog, runtime: Runtime, assemble: Assemble) -> None:
    metrics = Metrics()
    models = runtime.models.bound_to(metrics)
    delivery = Delivery(None, evidence, metrics)
    real = runtime.predicting
    service = PredictService(models, evidence, real.keyring, delivery, real.limits)
    twin = Runtime(
        *(runtime.settings, metrics, metrics.registry, models, evidence, delivery, service),
        authenticator=Authenticator(None),
        ledger=runtime.ledger,
    )
    try:
        app = assemble(twin)
        for name, served in models.all.items():
            body = orjson.dumps({"instances": [served.model.sample]})
            deadline = monotonic() + SECONDS / len(models.all)
            for _ in range(TURNS):
                for query in (b"explain=true", b""):
                    await _post(app, f"/models/{name}/predict", query, body)
                if monotonic() > deadline:
                    break
    finally:
        service.close()


async def _post(app: ASGIApp, path: str, query: bytes, body: bytes) -> None:
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_: Message) -> None: ...

    await app(scope, receive, send)
