"""GET /explanations and GET /explanations/{request_id}."""

import hashlib
import re
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field

from schemas import Record, RecordPage
from service.auth import Caller
from service.deps import CallerDep, ContextDep, RuntimeDep, requires
from service.errors import InvalidRequestError, NotFoundError, StoreAwayError
from service.evidence import BadCursorError, DecisionFilter, EvidenceError, Status, StoredDecision
from service.http import REQUEST_ID
from service.metrics import BACKEND
from service.records import list_document, record_document

router = APIRouter(prefix="/explanations", tags=["evidence"])
MOST_ITEMS = 200
DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]", re.ASCII)
# Described, not checked, by FastAPI: what cannot be an ID is as unknown as any other.
RequestId = Annotated[str, Path(json_schema_extra={"pattern": f"^{REQUEST_ID.pattern}$"})]


@router.get("/{request_id}", response_model=Record)
async def read(
    request_id: RequestId, runtime: RuntimeDep, caller: CallerDep, context: ContextDep
) -> Response:
    """The record of one request, the same bytes every time. Scope: audit, or who made it."""
    reads = runtime.metrics.audit_reads
    if not REQUEST_ID.fullmatch(request_id):
        raise NotFoundError("this can be no request ID")
    try:
        stored = await runtime.evidence.get(caller.tenant, request_id)
    except EvidenceError:
        reads.labels(BACKEND, "error").inc()
        raise StoreAwayError from None
    if stored is None or not _may_read(caller, stored):
        reads.labels(BACKEND, "not_found").inc()
        raise NotFoundError("no record of this request ID can be read by this caller")
    reads.labels(BACKEND, "ok").inc()
    document = record_document(stored)
    etag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Vary": "Accept, Authorization", "Cache-Control": "private, no-cache"}
    if _names(context.header(b"if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(document, headers=headers, media_type="application/json")


def _names(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list of tags, compared weakly, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or tags == ["*"]


def _may_read(caller: Caller, stored: StoredDecision) -> bool:
    return "audit" in caller.scopes or stored.actor == caller.principal


def _date_and_time(value: object) -> object:
    if not DATE.match(str(value)):  # pydantic also reads bare numbers, as seconds or milliseconds
        raise ValueError("not a date and time")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_date_and_time)]


class ListQuery(BaseModel):
    """Which records, and how many at once."""

    model: Annotated[str, Field(max_length=64, pattern="^[A-Za-z0-9._-]+$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    status: Status | None = None
    limit: int = Field(50, ge=1, le=MOST_ITEMS)
    cursor: Annotated[str, Field(max_length=64)] | None = None


@router.get("", response_model=RecordPage)
async def list_records(
    request: Request,
    query: Annotated[ListQuery, Query()],
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(requires("audit"))],
) -> Response:
    """Records newest first, a page at a time; `next_cursor` and Link lead on."""
    reads = runtime.metrics.audit_reads
    matching = DecisionFilter(
        model=query.model, status=query.status, since=query.since, until=query.until
    )
    try:
        page = await runtime.evidence.list(
            caller.tenant, matching=matching, limit=query.limit, cursor=query.cursor
        )
    except BadCursorError as error:
        raise InvalidRequestError(str(error)) from None
    except EvidenceError:
        reads.labels(BACKEND, "error").inc()
        raise StoreAwayError from None
    reads.labels(BACKEND, "ok").inc()
    headers = {"Cache-Control": "no-store"}
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    body = orjson.dumps(list_document(page), option=orjson.OPT_UTC_Z)
    return Response(body, headers=headers, media_type="application/json")
