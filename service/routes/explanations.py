"""GET /explanations, GET /explanations/{request_id} and GET /explanations/{request_id}/related."""

import asyncio
import re
from typing import Annotated, get_args

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, WithJsonSchema

from schemas import Record, RecordPage
from schemas.messages import ListedStatus
from service.auth import Caller
from service.deps import ContextDep, ReaderDep, RequestId, RuntimeDep, reads
from service.errors import InvalidRequestError, StoreAwayError
from service.evidence import BadCursorError, DecisionFilter, EvidenceError, Page
from service.metrics import BACKEND
from service.negotiation import HTML, SVG
from service.openapi import PREFER_PARAMETER
from service.pages.listing import list_page
from service.records import list_document, record_document
from service.routes.reading import answer_record, current_record
from service.routes.record_pages import Looked, asked_of
from service.routes.representing import (
    VARY,
    WITH_PAGE,
    WITH_PLOT,
    Format,
    PageFormat,
    described_as,
    sent,
    wanted,
)
from service.runtime import Runtime

router = APIRouter(prefix="/explanations", tags=["evidence"])
MOST_ITEMS = 200
DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]", re.ASCII)
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class RecordQuery(BaseModel):
    """How a record is looked at: instance and output say what its page and its plot are about."""

    format: Format | None = None
    instance: int = Field(0, ge=0, le=1_000_000)
    output: Annotated[str, Field(max_length=256)] | None = None


@router.get(
    "/{request_id}",
    response_model=Record,
    openapi_extra={"parameters": [PREFER_PARAMETER]},
    responses=described_as(HTML, SVG),
)
async def read(
    request: Request,
    request_id: RequestId,
    query: Annotated[RecordQuery, Query()],
    runtime: RuntimeDep,
    caller: ReaderDep,
    context: ContextDep,
) -> Response:
    """The record of one request, once final the same bytes every time; as a page or a plot where
    Accept says so. Scope: audit, or who made it. While its explanation is pending, Retry-After says
    when to ask again.
    """
    media_type = wanted(context, query.format, WITH_PLOT)
    record, headers = await current_record(runtime, caller, context, request_id)
    document = await runtime.views.record(caller, record, record_document(record))
    asked = asked_of(query.instance, query.output, request.query_params)
    looked = Looked(runtime, caller, record, asked)
    rendered = await looked.represented(document, media_type)
    return answer_record(record, rendered, headers, context)


def _date_and_time(value: object) -> object:
    if not DATE.match(str(value)):  # pydantic also reads bare numbers, as seconds or milliseconds
        raise ValueError("not a date and time")
    return value


def _none_if_blank(value: object) -> object:
    """A form sends the fields that nobody filled in, too."""
    return None if value == "" else value


def _day_or_moment(value: object) -> object:
    """A form's date is the beginning of that day in UTC."""
    if value == "":
        return None
    return f"{value}T00:00:00Z" if DAY.fullmatch(str(value)) else _date_and_time(value)


Moment = Annotated[AwareDatetime, BeforeValidator(_date_and_time)]
FormMoment = Annotated[
    AwareDatetime | None,
    BeforeValidator(_day_or_moment),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "string", "maxLength": 0},
            ]
        }
    ),
]
FormName = Annotated[
    str | None,
    Field(max_length=64, pattern="^[A-Za-z0-9._-]+$"),
    BeforeValidator(_none_if_blank),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9._-]*$"}),
]
FormStatus = Annotated[
    ListedStatus | None,
    BeforeValidator(_none_if_blank),
    WithJsonSchema({"type": "string", "enum": [*get_args(ListedStatus), ""]}),
]


class PageQuery(BaseModel):
    """How many records at once, and after which."""

    limit: int = Field(50, ge=1, le=MOST_ITEMS)
    cursor: Annotated[str, Field(max_length=64)] | None = None


class ListQuery(PageQuery):
    """Which records, and how many at once; status: the one they have by now. What is blank is not
    asked for.
    """

    model: FormName = None
    since: FormMoment = None
    until: FormMoment = None
    status: FormStatus = None
    format: PageFormat | None = None


@router.get("/{request_id}/related", response_model=RecordPage)
async def related(
    request_id: RequestId,
    request: Request,
    query: Annotated[PageQuery, Query()],
    runtime: RuntimeDep,
    caller: ReaderDep,
) -> Response:
    """Records that explain this request again, newest first; to a role that masks columns, those
    that somebody asked for. Scope: as its record.
    """
    await runtime.watch.find(caller, request_id, what="list")
    shown = runtime.views.unasked_of(caller)
    matching = DecisionFilter(parent=request_id, unasked_of=shown)
    return _answer(request, await _page(runtime, caller, matching, query))


@router.get("", response_model=RecordPage, responses=described_as(HTML))
async def list_records(
    request: Request,
    query: Annotated[ListQuery, Query()],
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(reads("audit"))],
    context: ContextDep,
) -> Response:
    """Records newest first, a page at a time; `next_cursor` and Link lead on. A role that masks
    columns is not told what was explained unasked.
    """
    media_type = wanted(context, query.format, WITH_PAGE)
    matching = DecisionFilter(
        model=query.model,
        status=query.status,
        since=query.since,
        until=query.until,
        unasked_of=runtime.views.unasked_of(caller),
    )
    page = await _page(runtime, caller, matching, query)
    asked = query.model_dump(exclude_none=True, exclude={"cursor", "format"})
    await runtime.accesses.note(caller, "list", found=len(page.items), asked=asked)
    runtime.metrics.audit_reads.labels(BACKEND, "ok").inc()
    if media_type == HTML:
        document = orjson.loads(_encoded(page))
        rendered = await asyncio.to_thread(list_page, document, dict(request.query_params))
        return sent(rendered, _list_headers(request, page))
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
    headers = _list_headers(request, page)
    return Response(_encoded(page), headers=headers, media_type="application/json")


def _encoded(page: Page) -> bytes:
    return orjson.dumps(list_document(page), option=orjson.OPT_UTC_Z)


def _list_headers(request: Request, page: Page) -> dict[str, str]:
    headers = {"Cache-Control": "no-store", "Vary": VARY}
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return headers
