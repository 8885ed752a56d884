"""The Open Inference Protocol V2 over HTTP: GET /v2, /v2/health, /v2/models and .../infer.

The endpoint translates and calls what POST /predict calls.
"""

from functools import partial
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from schemas import Violation
from schemas.inference import ModelMetadata, ModelReady, ServerLive, ServerMetadata, ServerReady
from service.auth import Caller
from service.deps import RuntimeDep, requires
from service.errors import BadHeaderError, InvalidRequestError, NotFoundError
from service.facades import Infer, infer_answer, model_metadata, read_infer
from service.facades.v2_metadata import EXTENSIONS
from service.http import RequestContext, context_of, read_body, read_json_body, wrong_with_id
from service.registry.libraries import service_version
from service.routes.health import unready_reason
from service.routes.models import ModelName
from service.routes.predict import HEADERS, call_of, headers_of, seen_reply, send_body, translated
from service.runtime import Runtime
from service.served import ServedModel

INFER_PATHS = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
JSON_LENGTH = b"inference-header-content-length"
MOST_DIGITS = 12
OCTETS = (b"content-type", b"application/octet-stream")

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol V2"])
Predicting = Annotated[Caller, Depends(requires("predict"))]
UNREADY: dict[int | str, dict[str, object]] = {
    503: {"description": "Not ready", "model": ServerReady}
}


@router.get("", response_model=ServerMetadata)
async def server_metadata(_: Predicting) -> Response:
    """What this server is and which extensions of the protocol it speaks."""
    return _json({"name": "explaind", "version": service_version(), "extensions": EXTENSIONS})


@router.get("/health/live", response_model=ServerLive)
async def server_live() -> Response:
    """200 while the process runs, as GET /livez."""
    return _json({"live": True})


@router.get("/health/ready", response_model=ServerReady, responses=UNREADY)
async def server_ready(runtime: RuntimeDep) -> Response:
    """200 when GET /readyz answers 200."""
    is_writable = await runtime.evidence.is_writable()
    is_ready = unready_reason(runtime, is_writable=is_writable) is None
    return _json({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{name}", response_model=ModelMetadata)
async def show_v2_model(name: ModelName, runtime: RuntimeDep, _: Predicting) -> Response:
    """The tensors a model takes and gives."""
    return _json(model_metadata(runtime.models.resolve(name).model))


@router.get("/models/{name}/versions/{version}", response_model=ModelMetadata)
async def show_v2_version(
    name: ModelName, version: str, runtime: RuntimeDep, _: Predicting
) -> Response:
    """The same of a version: the serving one, no other answers."""
    return _json(model_metadata(_version(runtime, name, version).model))


@router.get("/models/{name}/ready", response_model=ModelReady)
async def v2_model_ready(name: ModelName, runtime: RuntimeDep, _: Predicting) -> Response:
    """200 when the model answers."""
    return _json({"name": runtime.models.resolve(name).model.name, "ready": True})


@router.get("/models/{name}/versions/{version}/ready", response_model=ModelReady)
async def v2_version_ready(
    name: ModelName, version: str, runtime: RuntimeDep, _: Predicting
) -> Response:
    """200 when the version is the serving one."""
    return _json({"name": _version(runtime, name, version).model.name, "ready": True})


def _json(document: dict[str, object], status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def _version(runtime: Runtime, name: str, version: str | None) -> ServedModel:
    served = runtime.models.resolve(name)
    if version not in {None, str(served.model.version)}:
        raise NotFoundError("this version does not serve")
    return served


class InferEndpoint:
    """Serves both paths of infer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Parse, translate, one call, translate, answer."""
        runtime: Runtime = scope["app"].state.runtime
        context = context_of(scope)
        caller = runtime.authenticator.caller(context.header(b"authorization"))
        document, binary = await _read(context, receive, runtime.settings.max_body_bytes)
        caller.require("predict")
        path = scope["path_params"]
        served = _version(runtime, path["name"], path.get("version"))
        asked = await _translated(served, document, binary, runtime.settings.max_instances)
        _take_id(context, asked.request_id)
        call = call_of(scope, caller, asked.body, explain=asked.explain, top=asked.top)
        try:
            reply = await seen_reply(runtime, call)
        except InvalidRequestError as error:
            raise asked.places.error(error) from None
        write = partial(infer_answer, reply.body, asked)
        answer, json_length = await translated(len(reply.body), write)
        headers = [*HEADERS[reply.evidence], *headers_of(reply, call)]
        if json_length is not None:
            headers[0] = OCTETS  # the media type comes first
            headers.append((JSON_LENGTH, b"%d" % json_length))
        await send_body(send, headers, answer)


async def _read(context: RequestContext, receive: Receive, limit: int) -> tuple[bytes, bytes]:
    """The JSON document, and the bytes of tensors that follow it.

    A request with the extension's header may be of any media type, because some clients name none:
    no page of another origin can send that header unasked.
    """
    length = context.headers.get(JSON_LENGTH)
    if length is None:
        return await read_json_body(context, receive, limit=limit), b""
    body = await read_body(context, receive, limit=limit)
    if not (length.isdigit() and len(length) <= MOST_DIGITS and int(length) <= len(body)):
        raise BadHeaderError("Inference-Header-Content-Length must be the JSON document's length")
    return body[: int(length)], body[int(length) :]


async def _translated(
    served: ServedModel, document: bytes, binary: bytes, max_instances: int
) -> Infer:
    read = partial(
        read_infer,
        document,
        binary,
        served.model.schema,
        is_classifier=served.model.manifest.classes is not None,
        max_instances=max_instances,
    )
    return await translated(len(document) + len(binary), read)


def _take_id(context: RequestContext, chosen: str | None) -> None:
    """Make the document's `id` the request's; InvalidRequestError if it is no request ID, or not
    the one in the header.
    """
    if chosen is None:
        return
    wrong = wrong_with_id(chosen)
    if context.chosen_by_client and chosen != context.request_id:
        wrong = "must be the same as X-Request-ID if both are given"
    if wrong is not None:
        raise InvalidRequestError("see errors", errors=[Violation("/id", wrong, "bad_id")])
    context.request_id, context.chosen_by_client = chosen, True
