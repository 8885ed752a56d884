"""Feedback and labels: POST them to a record, GET what was said of it."""

from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel

from schemas import (
    Feedback,
    InvalidContentError,
    Labels,
    NotStrictJsonError,
    Votes,
    document_schema,
    read_document,
)
from service.auth import Caller
from service.deps import CallerDep, ContextDep, RequestId, RuntimeDep, requires
from service.errors import InvalidRequestError, NotJsonError
from service.http import RequestContext, read_json_body

router = APIRouter(prefix="/explanations", tags=["evidence"])
Explaining = Annotated[Caller, Depends(requires("explain"))]
NO_STORE = {"Cache-Control": "no-store"}
Document = TypeVar("Document", bound=BaseModel)


def _body_of(kind: type[BaseModel], example: dict[str, object]) -> dict[str, Any]:
    content = {"schema": document_schema(kind), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


FEEDBACK = _body_of(Feedback, {"rating": 4, "comment": "age stands too high"})
LABELS = _body_of(Labels, {"labels": ["good"]})


@router.post("/{request_id}/feedback", status_code=204, openapi_extra=FEEDBACK)
async def rate(
    request_id: RequestId,
    request: Request,
    runtime: RuntimeDep,
    caller: Explaining,
    context: ContextDep,
) -> Response:
    """Rate an explanation from 1 to 5; a later rating of the same principal replaces this one.
    Scope: explain, whoever made the record.
    """
    feedback = await _read(Feedback, request, context, runtime.settings.max_body_bytes)
    await runtime.votes.rate(caller, request_id, feedback)
    return Response(status_code=204, headers=NO_STORE)


@router.post("/{request_id}/label", status_code=204, openapi_extra=LABELS)
async def label(
    request_id: RequestId,
    request: Request,
    runtime: RuntimeDep,
    caller: Explaining,
    context: ContextDep,
) -> Response:
    """Say what the predicted instances turned out to be; later labels of the same principal
    replace these. Scope: explain, whoever made the record.
    """
    labels = await _read(Labels, request, context, runtime.settings.max_body_bytes)
    await runtime.votes.label(caller, request_id, labels)
    return Response(status_code=204, headers=NO_STORE)


@router.get("/{request_id}/feedback", response_model=Votes)
async def show(request_id: RequestId, runtime: RuntimeDep, caller: CallerDep) -> Response:
    """What was said of a record: each principal's last votes. Scope: as its record."""
    votes = await runtime.votes.shown_to(caller, request_id)
    return Response(orjson.dumps(votes), headers=NO_STORE, media_type="application/json")


async def _read(
    kind: type[Document], request: Request, context: RequestContext, limit: int
) -> Document:
    body = await read_json_body(context, request.receive, limit=limit)
    try:
        return read_document(kind, body)
    except NotStrictJsonError as error:
        raise NotJsonError(str(error)) from None
    except InvalidContentError as error:
        raise InvalidRequestError("see errors", errors=error.errors) from None
