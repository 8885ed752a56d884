"""KServe's protocol V1: GET /v1/models, POST /v1/models/{name}:predict and :explain.

The endpoints translate and call what POST /predict calls.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.inference import ModelNames, ModelReady
from service.auth import Caller
from service.deps import RuntimeDep, requires
from service.errors import InvalidRequestError
from service.facades import V1Request, v1_answer
from service.http import context_of, read_json_body
from service.routes.models import ModelName
from service.routes.predict import (
    HEADERS,
    call_of,
    headers_of,
    parse_query,
    seen_reply,
    send_body,
    translated,
)
from service.runtime import Runtime

V1_PREDICT = "/v1/models/{name}:predict"
V1_EXPLAIN = "/v1/models/{name}:explain"

router = APIRouter(prefix="/v1/models", tags=["KServe V1"])
Predicting = Annotated[Caller, Depends(requires("predict"))]


@router.get("", response_model=ModelNames)
async def list_v1_models(runtime: RuntimeDep, _: Predicting) -> Response:
    """The names of all served models."""
    return Response(orjson.dumps({"models": [*runtime.models.all]}), media_type="application/json")


@router.get("/{name}", response_model=ModelReady)
async def show_v1_model(name: ModelName, runtime: RuntimeDep, _: Predicting) -> Response:
    """Whether a model answers."""
    found = {"name": runtime.models.resolve(name).model.name, "ready": True}
    return Response(orjson.dumps(found), media_type="application/json")


@dataclass(frozen=True, slots=True)
class V1Endpoint:
    """Serves :predict or :explain."""

    explain: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Parse, translate, one call, translate, answer."""
        runtime: Runtime = scope["app"].state.runtime
        context = context_of(scope)
        caller = runtime.authenticator.caller(context.header(b"authorization"))
        _, top = parse_query(scope["query_string"])
        body = await read_json_body(context, receive, limit=runtime.settings.max_body_bytes)
        caller.require("predict")
        request = await _translated(runtime, scope["path_params"]["name"], body)
        call = call_of(scope, caller, request.body, explain=self.explain, top=top)
        try:
            reply = await seen_reply(runtime, call)
        except InvalidRequestError as error:
            raise request.places.error(error) from None
        write = partial(v1_answer, reply.body, request.places)
        answer = await translated(len(reply.body), write)
        await send_body(send, [*HEADERS[reply.evidence], *headers_of(reply, call)], answer)


async def _translated(runtime: Runtime, name: str, body: bytes) -> V1Request:
    columns = runtime.models.resolve(name).model.schema.names
    most = runtime.settings.max_instances
    return await translated(len(body), partial(V1Request.of, body, columns, max_instances=most))
