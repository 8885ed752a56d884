"""GET /models, GET /models/{name} and GET /models/{name}/review."""

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel

from schemas import ModelInfo, ModelList, ReviewSample
from service.auth import NAME, Caller
from service.deps import ContextDep, RuntimeDep, reads, requires
from service.errors import StoreAwayError
from service.evidence import Among, EvidenceError
from service.metrics import BACKEND
from service.negotiation import HTML
from service.pages.model import model_page, models_page
from service.records import review_document, review_period
from service.registry.personal import shown_schema
from service.routes.explanations import Moment
from service.routes.model_facts import drift_of, importance_of, slis_of
from service.routes.representing import VARY, WITH_PAGE, PageFormat, described_as, sent, wanted
from service.runtime import Runtime
from service.secrets import review_rank
from service.served import ServedModel

router = APIRouter(prefix="/models", tags=["models"])
ModelName = Annotated[str, Path(json_schema_extra={"pattern": f"^{NAME.pattern}$"})]
Predicting = Annotated[Caller, Depends(requires("predict"))]
NEGOTIATED = {"Vary": VARY}


class FormatQuery(BaseModel):
    """As what: it goes before Accept."""

    format: PageFormat | None = None


ViewQuery = Annotated[FormatQuery, Query()]


@router.get("", response_model=ModelList, responses=described_as(HTML))
async def list_models(
    runtime: RuntimeDep, _: Predicting, context: ContextDep, query: ViewQuery
) -> Response:
    """Every served model."""
    media_type = wanted(context, query.format, WITH_PAGE)
    document = {"items": [await _info(runtime, each) for each in runtime.models.all.values()]}
    if media_type == HTML:
        return sent(await asyncio.to_thread(models_page, document), NEGOTIATED)
    return Response(orjson.dumps(document), headers=NEGOTIATED, media_type="application/json")


@router.get("/{name}", response_model=ModelInfo, responses=described_as(HTML))
async def show_model(
    name: ModelName, runtime: RuntimeDep, caller: Predicting, context: ContextDep, query: ViewQuery
) -> Response:
    """One served model, with a sample request that works. Its page shows importances to the scope
    audit and drift to the scope metrics, as the calls that have them do.
    """
    media_type = wanted(context, query.format, WITH_PAGE)
    served = runtime.models.resolve(name)
    info = await _info(runtime, served)
    if media_type != HTML:
        return Response(orjson.dumps(info), headers=NEGOTIATED, media_type="application/json")
    importance = await importance_of(runtime, caller, served.model)
    drift = drift_of(runtime, caller, name)
    slis = slis_of(runtime, caller, name)
    rendered = await asyncio.to_thread(model_page, info, importance, drift, slis)
    return sent(rendered, {**NEGOTIATED, "Cache-Control": "no-store"})


class ReviewQuery(BaseModel):
    """Which time to look back on; the last 30 days by default."""

    since: Moment | None = None
    until: Moment | None = None


@router.get("/{name}/review", response_model=ReviewSample)
async def review_model(
    name: ModelName,
    query: Annotated[ReviewQuery, Query()],
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(reads("audit"))],
) -> Response:
    """Explained requests drawn uniformly for human review; the policy says how many. To a role that
    masks columns, those whose explanation somebody asked for.
    """
    size, reads = runtime.models.review_size(name), runtime.metrics.audit_reads
    period = review_period(query.since, query.until)
    rank = review_rank(runtime.predicting.keyring, caller.tenant, name)
    told = runtime.views.unasked_of(caller)
    among = Among(with_unasked=told is None or name in told)
    try:
        items = await runtime.evidence.sample(
            caller.tenant, name, period=period, size=size, rank=rank, among=among
        )
    except EvidenceError:
        reads.labels(BACKEND, "error").inc()
        raise StoreAwayError from None
    await runtime.accesses.note(caller, "review", model=name, found=len(items))
    reads.labels(BACKEND, "ok").inc()
    body = orjson.dumps(review_document(items, period=period, size=size), option=orjson.OPT_UTC_Z)
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")


async def _info(runtime: Runtime, served: ServedModel) -> dict[str, object]:
    versions = await asyncio.to_thread(runtime.models.registry.layout.versions, served.model.name)
    return model_info(served, versions)


def model_info(served: ServedModel, versions: list[int]) -> dict[str, object]:
    """What an application needs to call the model."""
    model = served.model
    manifest = model.manifest
    explains = manifest.explainer.method is not None
    return {
        "name": model.name,
        "serving_version": model.version,
        "versions": versions,
        "task": manifest.task,
        "json_schema": shown_schema(model.schema.to_json(), model.personal_levels),
        "output_space": manifest.explainer.output_space,
        "method": manifest.explainer.method,
        "cost_seconds_per_instance": manifest.cost.explain_row if explains else None,
        "sample_request": {"instances": [model.sample]},
    }
