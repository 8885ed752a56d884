"""GET /livez, /readyz and /metrics."""

import asyncio
from typing import Annotated, Literal, cast

import orjson
from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics
from pydantic import BaseModel

from service.auth import Caller
from service.deps import ContextDep, RuntimeDep, requires
from service.metrics import BACKEND, SPOOL
from service.runtime import Runtime

router = APIRouter(tags=["operations"])
SPOOLING = "the evidence store is away: models of best effort are answered, others are not"
OPENMETRICS: dict[str, object] = {
    "content": {"application/openmetrics-text": {"schema": {"type": "string"}}}
}


class Readiness(BaseModel):
    """What /readyz says; 200 when ready or degraded."""

    status: Literal["ready", "degraded", "unready"]
    reason: str | None = None
    refused_models: list[str] | None = None
    disabled_models: list[str] | None = None
    unknown_policy_models: list[str] | None = None
    policy_misfits: list[str] | None = None


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the process runs."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"description": "Not ready", "model": Readiness}},
)
async def readyz(runtime: RuntimeDep) -> Response:
    """200 when a model is loaded, its golden values agreed and the evidence store is writable."""
    is_writable = await runtime.evidence.is_writable()
    reason = unready_reason(runtime, is_writable=is_writable)
    if reason is None:
        troubles = _troubles(runtime, is_writable=is_writable)
        body: dict[str, object] = {"status": "degraded" if troubles else "ready", **troubles}
    else:
        body = {"status": "unready", "reason": reason}
    if runtime.models.disabled:  # by somebody's will: no trouble
        body["disabled_models"] = sorted(runtime.models.disabled)
    return Response(
        orjson.dumps(body),
        200 if reason is None else 503,
        {"Cache-Control": "no-store"},
        media_type="application/json",
    )


def _troubles(runtime: Runtime, *, is_writable: bool) -> dict[str, object]:
    """What does not work as it was asked to while the service answers."""
    troubles: dict[str, object] = dict(runtime.models.policy_troubles)
    if runtime.models.refused:
        # An older version still answers; the one that was promoted could not be loaded.
        troubles["refused_models"] = sorted(runtime.models.refused)
    reasons = [] if runtime.sequencing is None else [*runtime.sequencing.troubles.values()]
    if not is_writable or _is_spooling(runtime):
        reasons.insert(0, SPOOLING)
    if runtime.delivery.is_queue_away:
        reasons.append("the queue is away: heavy explanations wait")
    if reasons:
        troubles["reason"] = "; ".join(reasons)
    return troubles


def unready_reason(runtime: Runtime, *, is_writable: bool) -> str | None:
    """Why no request should be sent here; None when one may."""
    if runtime.is_draining or runtime.is_stopping:
        return "stopping"
    models = runtime.models
    known = {*models.all, *models.disabled}  # those disabled still have records to be read
    if not known:
        return "no model is loaded"
    if models.default not in (None, *known):
        return "the model of EXPLAIND_MODEL is not served"
    if not is_writable and not _can_do_without_store(runtime):
        return "the evidence store is not writable"
    return None


def _is_spooling(runtime: Runtime) -> bool:
    """A full disk may take a probe and no record."""
    spool = runtime.evidence.spool
    return spool is not None and spool.is_needed


def _can_do_without_store(runtime: Runtime) -> bool:
    """A model of best effort is answered whatever becomes of the store."""
    spool = runtime.evidence.spool
    return (
        spool is not None
        and spool.is_taking
        and any(served.is_best_effort for served in runtime.models.all.values())
    )


@router.get("/metrics", response_class=PlainTextResponse, responses={200: OPENMETRICS})
async def metrics(
    runtime: RuntimeDep,
    context: ContextDep,
    _: Annotated[Caller, Depends(requires("metrics"))],
) -> Response:
    """Prometheus text, or OpenMetrics (with exemplars) where the Accept header asks for it."""
    runtime.metrics.audit_backlog.labels(BACKEND).set(runtime.evidence.backlog())
    if runtime.evidence.spool is not None:
        runtime.metrics.audit_backlog.labels(SPOOL).set(runtime.evidence.spool.records)
    registry = cast("CollectorRegistry", runtime.exposed)  # only `collect` is asked for
    if "application/openmetrics-text" in (context.header(b"accept") or ""):
        body = await asyncio.to_thread(openmetrics.generate_latest, registry)
        return Response(body, media_type=openmetrics.CONTENT_TYPE_LATEST)
    body = await asyncio.to_thread(exposition.generate_latest, registry)
    return Response(body, media_type=exposition.CONTENT_TYPE_LATEST)
