"""GET /explanations/{request_id}/narrative."""

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel

from schemas import Narrated
from service.deps import ContextDep, ReaderDep, RequestId, RuntimeDep
from service.narratives import Audience, narrate
from service.negotiation import JSON
from service.openapi import PREFER_PARAMETER
from service.pages.rendering import Rendered
from service.records import decision_rule, record_document, record_warnings
from service.routes.reading import answer_record, current_record

router = APIRouter(prefix="/explanations", tags=["evidence"])


class NarrativeQuery(BaseModel):
    """For whom."""

    audience: Audience = "applicant"


@router.get(
    "/{request_id}/narrative",
    response_model=Narrated,
    openapi_extra={"parameters": [PREFER_PARAMETER]},
)
async def narrative(
    request_id: RequestId,
    query: Annotated[NarrativeQuery, Query()],
    runtime: RuntimeDep,
    caller: ReaderDep,
    context: ContextDep,
) -> Response:
    """The record in words, every number of which is one of the record's. Scope, masks and caching:
    as its record.
    """
    record, headers = await current_record(runtime, caller, context, request_id)
    document = await runtime.views.record(caller, record, record_document(record))
    sees_all = runtime.views.sees_all(caller, record)
    rule = decision_rule(record) if sees_all else None
    warnings = record_warnings(record) if sees_all else None
    body = await asyncio.to_thread(_narrated, document, query.audience, rule, warnings)
    return answer_record(record, Rendered(body, JSON, ""), headers, context)


def _narrated(document: bytes, audience: Audience, rule: object, warnings: object) -> bytes:
    record = orjson.loads(document) | {"decision_rule": rule, "warnings": warnings}
    return orjson.dumps(narrate(record, audience).to_json() | {"decision_rule": rule})
