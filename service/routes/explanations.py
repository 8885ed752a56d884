"""GET /explanations, GET /explanations/{request_id} and GET /explanations/{request_id}/related."""

import re
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from schemas import Record, RecordPage
from service.auth import Caller
from service.deps import ContextDep, ReaderDep, RequestId, RuntimeDep, reads
from service.errors import InvalidRequestError, StoreAwayError
from service.evidence import BadCursorError, DecisionFilter, EvidenceError, ListedStatus, Page
from service.metrics import BACKEND
from service.openapi import PREFER_PARAMETER
from service.records import list_document, record_document
from service.routes.reading import answer_record, current_record
from service.runtime import Runtime

router = APIRouter(prefix="/explanations", tags=["evidence"])
MOST_ITEMS = 200
DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]", re.ASCII)


@router.get(
    "/{request_id}", response_model=Record, openapi_extra={"parameters": [PREFER_PARAMETER]}
)
async def read(
    request_id: RequestId, runtime: RuntimeDep, caller: ReaderDep, context: ContextDep
) -> Response:
    """The record of one request, once final the same bytes every time. Scope: audit, or who made
    it. While its explanation is pending, Retry-After says when to ask again.
    """
    record, headers = await current_record(runtime, caller, context, request_id)
    document = await runtime.views.record(caller, record, record_document(record))
    return answer_record(record, document, headers, context)


def _date_and_time(value: object) -> object:
    if not DATE.match(str(value)):  # pydantic also reads bare numbers, as seconds or milliseconds
        raise ValueError("not a date and time")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_date_and_time)]


class PageQuery(BaseModel):
    """How many records at once, and after which."""

    limit: int = Field(50, ge=1, le=MOST_ITEMS)
    cursor: Annotated[str, Field(max_length=64)] | None = None


class ListQuery(PageQuery):
    """Which records, and how many at once; status: the one they have by now."""

    model: Annotated[str, Field(max_length=64, pattern="^[A-Za-z0-9._-]+$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    status: ListedStatus | None = None


@router.get("/{request_id}/related", response_model=RecordPage)
async def related(
    request_id: RequestId,
    request: Request,
    query: Annotated[PageQuery, Query()],
    runtime: RuntimeDep,
    caller: ReaderDep,
) -> Response:
    """Records that explain this request again, newest first. Scope: as its record."""
    await runtime.watch.find(caller, request_id, what="list")
    matching = DecisionFilter(parent=request_id)
    return _answer(request, await _page(runtime, caller, matching, query))


@router.get("", response_model=RecordPage)
async def list_records(
    request: Request,
    query: Annotated[ListQuery, Query()],
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(reads("audit"))],
) -> Response:
    """Records newest first, a page at a time; `next_cursor` and Link lead on."""
    matching = DecisionFilter(
        model=query.model, status=query.status, since=query.since, until=query.until
    )
    page = await _page(runtime, caller, matching, query)
    asked = query.model_dump(exclude_none=True, exclude={"cursor"})
    await runtime.accesses.note(caller, "list", found=len(page.items), asked=asked)
    runtime.metrics.audit_reads.labels(BACKEND, "ok").inc()
    return _answer(request, page)


async def _page(
    runtime: Runtime, caller: Caller, matching: DecisionFilter, query: PageQuery
) -> Page:
    try:
        return await runtime.evidence.list(
            caller.tenant, matching=matching, limit=query.limit, cursor=query.cursor
        )
    except BadCursorError as error:
        raise InvalidRequestError(str(error)) from None
    except EvidenceError:
        runtime.metrics.audit_reads.labels(BACKEND, "error").inc()
        raise StoreAwayError from None


def _answer(request: Request, page: Page) -> Response:
    headers = {"Cache-Control": "no-store"}
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    body = orjson.dumps(list_document(page), option=orjson.OPT_UTC_Z)
    return Response(body, headers=headers, media_type="application/json")
