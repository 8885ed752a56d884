"""POST /explanations, and an explanation that is still to come: its events and its end."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from schemas import (
    Accepted,
    ExplainRequest,
    InvalidContentError,
    NotStrictJsonError,
    Replay,
    document_schema,
    read_document,
)
from service.auth import Caller
from service.deps import ContextDep, ReaderDep, RequestId, RuntimeDep, requires
from service.errors import InvalidRequestError, NotJsonError, OverloadedError, ServiceError
from service.evidence import Record
from service.followup import AgainCall
from service.http import read_json_body
from service.openapi import REQUEST_ID_PARAMETER
from service.runtime import Runtime

router = APIRouter(prefix="/explanations", tags=["evidence"])
STREAM_SECONDS = 300.0
"""After which a client of the events has to connect again, as it does of itself."""

RECONNECT_MILLISECONDS = 2000
EVENT_STREAM = "text/event-stream"
Explaining = Annotated[Caller, Depends(requires("explain"))]
AGAIN: dict[str, Any] = {
    "parameters": [REQUEST_ID_PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": document_schema(ExplainRequest),
                "example": {
                    "request_id": "019aa0c2-0000-7000-8000-000000000000",
                    "method": "permutation",
                },
            }
        },
    },
}
EVENT = {
    "type": "object",
    "description": "One server-sent event; its data is JSON: what is known of the progress, or "
    "the explanation (null where the record has none)",
    "properties": {
        "event": {"enum": ["progress", "complete", "failed", "skipped"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: progress, and last complete, failed or skipped",
        "content": {EVENT_STREAM: {"schema": EVENT}},
    }
}


@router.post("", status_code=202, response_model=Accepted, openapi_extra=AGAIN)
async def explain_again(
    request: Request, runtime: RuntimeDep, caller: Explaining, context: ContextDep
) -> Response:
    """Explain a past prediction again, or by another method, as a record of its own, whose ID is
    this request's.
    """
    body = await read_json_body(context, request.receive, limit=runtime.settings.max_body_bytes)
    try:
        wanted = read_document(ExplainRequest, body)
    except NotStrictJsonError as error:
        raise NotJsonError(str(error)) from None
    except InvalidContentError as error:
        raise InvalidRequestError("see errors", errors=error.errors) from None
    reply = await runtime.follow_ups.explain_again(
        AgainCall(
            wanted.request_id,
            wanted.method,
            context.request_id,
            context.chosen_by_client,
            caller,
            context.trace_id,
        )
    )
    headers = {"Location": f"/explanations/{context.request_id}", "Cache-Control": "no-store"}
    if reply.is_replay:
        headers["Idempotent-Replay"] = "true"
    return Response(reply.body, 202, headers, media_type="application/json")


@router.post("/{request_id}/cancel", status_code=202, response_model=Accepted)
async def cancel(
    request: Request,
    request_id: RequestId,
    runtime: RuntimeDep,
    caller: Explaining,
    context: ContextDep,
) -> Response:
    """Call a pending explanation off; 409 once it is final. For who may read its record. It needs
    no body; one that comes must be application/json.
    """
    if context.has_body:
        await read_json_body(context, request.receive, limit=runtime.settings.max_body_bytes)
    body = await runtime.follow_ups.cancel(caller, request_id)
    headers = {"Location": f"/explanations/{request_id}", "Cache-Control": "no-store"}
    return Response(body, 202, headers, media_type="application/json")


@router.post("/{request_id}/replay", response_model=Replay)
async def replay(
    request_id: RequestId,
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(requires("audit"))],
) -> Response:
    """Compute a record's prediction and explanation again, from what is stored of it, and say
    whether the same bytes come out. A few seconds; two at a time.
    """
    body = await runtime.replays.replay(caller, request_id)
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")


@router.get("/{request_id}/events", responses=EVENTS, response_class=StreamingResponse)
async def events(
    request_id: RequestId, runtime: RuntimeDep, caller: ReaderDep, context: ContextDep
) -> Response:
    """What happens to an explanation until it is final. Scope: as its record."""
    await runtime.watch.shown(caller, request_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if context.is_head:
        return Response(headers=headers, media_type=EVENT_STREAM)
    if runtime.watch.is_crowded:
        raise OverloadedError
    told = _told(runtime, caller, request_id)
    return StreamingResponse(told, headers=headers, media_type=EVENT_STREAM)


async def _told(runtime: Runtime, caller: Caller, request_id: str) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RECONNECT_MILLISECONDS
    key = (caller.tenant, request_id)
    happenings = runtime.watch.follow(key, STREAM_SECONDS, lambda: runtime.is_stopping)
    try:
        async for happening in happenings:
            if happening is None:
                yield b": waiting\n\n"
            elif isinstance(happening, Record):
                name = happening.status or "skipped"  # nothing was asked for, nothing comes
                yield _event(name, await runtime.views.explanation(caller, happening))
            else:
                facts = {} if caller.roles else dict(happening.facts)  # how far it got may tell
                yield _event("progress", orjson.dumps(facts))
    except ServiceError:
        return  # the client connects again, and is told why
    finally:
        await happenings.aclose()


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
