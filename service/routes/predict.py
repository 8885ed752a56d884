"""POST /predict and POST /models/{name}/predict.

An ASGI endpoint rather than a FastAPI route: its body type changes with the registry, and it
saves 80 to 150 us a request (docs/decisions/0002). OpenAPI describes it in `service.openapi`.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from schemas import Violation
from service.auth import Caller
from service.calls import PredictCall, PredictReply
from service.errors import InvalidRequestError, NotFoundError, ServiceError
from service.http import context_of, read_json_body
from service.predicting import LARGE_BODY_BYTES, PHASES
from service.prefer import parse_prefer
from service.runtime import Runtime

PREDICT_PATHS = ("/predict", "/models/{name}/predict")
REFUSED_FOR_CONTENT = frozenset({400, 413, 415, 422})
UNKNOWN_MODEL = ""
TRUTH = {"true": True, "false": False}
MOST_DIGITS = 6
HEADERS = {
    evidence: (
        (b"content-type", b"application/json"),
        (b"evidence", evidence.encode()),
        (b"cache-control", b"no-store"),
    )
    for evidence in ("stored", "spooled", "none")
}
SERVER_TIMING = ", ".join(f"{phase};dur=%.3f" for phase in PHASES).encode()

Result = TypeVar("Result")


class PredictEndpoint:
    """Serves both paths; the model's name is a path parameter or absent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Parse, one call, answer."""
        runtime: Runtime = scope["app"].state.runtime
        context = context_of(scope)
        caller = runtime.authenticator.caller(context.header(b"authorization"))
        explain, top = parse_query(scope["query_string"])
        body = await read_json_body(context, receive, limit=runtime.settings.max_body_bytes)
        call = call_of(scope, caller, body, explain=explain, top=top)
        reply = await seen_reply(runtime, call)
        headers = [*HEADERS[reply.evidence], *headers_of(reply, call)]
        await send_body(send, headers, reply.body)


def call_of(
    scope: Scope, caller: Caller, body: bytes, *, explain: bool, top: int | None
) -> PredictCall:
    """What is asked of the model in the path, by every protocol."""
    context = context_of(scope)
    return PredictCall(
        model=scope["path_params"].get("name"),
        body=body,
        explain=explain,
        top=top,
        request_id=context.request_id,
        is_id_chosen=context.chosen_by_client,
        caller=caller,
        trace_id=context.trace_id,
        preference=parse_prefer(context.header(b"prefer")),
    )


async def translated(size: int, work: Callable[[], Result]) -> Result:
    """What the work gives; of so many bytes, in a thread where they are many."""
    return await asyncio.to_thread(work) if size > LARGE_BODY_BYTES else work()


async def seen_reply(runtime: Runtime, call: PredictCall) -> PredictReply:
    """The answer as this caller may see it: every protocol's way to it."""
    reply = await runtime.predicting.predict(call)
    if not call.caller.roles:
        return reply
    return reply._replace(body=await runtime.views.answer(call.caller, reply.body, call.body))


def headers_of(reply: PredictReply, call: PredictCall) -> list[tuple[bytes, bytes]]:
    """What an answer says beside its body and where its evidence is."""
    headers = []
    if reply.is_replay or not call.caller.roles:  # how long it took may tell of a masked column
        headers.append(outcome_header(reply))
    if reply.is_pending:
        headers.append((b"location", b"/explanations/" + call.request_id.encode()))
    if reply.is_heeded and call.preference.applied is not None:
        headers.append((b"preference-applied", call.preference.applied.encode()))
    return headers


async def send_body(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Answer with 200 and a body of that type."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def count_refusal(scope: Scope, error: ServiceError) -> None:
    """Count a prediction that was refused for what the request holds, not for who asks or when.

    The label of a model that is not served is empty: names a client made up are no labels.
    """
    if error.status not in REFUSED_FOR_CONTENT:
        return
    runtime: Runtime = scope["app"].state.runtime
    try:
        model = runtime.models.resolve(scope["path_params"].get("name")).model.name
    except NotFoundError:
        model = UNKNOWN_MODEL
    runtime.metrics.predictions.labels(model, "invalid").inc()
    runtime.metrics.errors.labels(model, "validate", "content").inc()


def outcome_header(reply: PredictReply) -> tuple[bytes, bytes]:
    """That this is a replay, or how long the phases of answering took."""
    if reply.is_replay:
        return b"idempotent-replay", b"true"
    parse, predict, explain, evidence = reply.timings
    timings = (parse * 1000, predict * 1000, explain * 1000, evidence * 1000)
    return b"server-timing", SERVER_TIMING % timings


def parse_query(query: bytes) -> tuple[bool, int | None]:
    """Whether to explain, and how many to list; InvalidRequestError for anything else."""
    if query == b"explain=true":
        return True, None
    explain, top, seen = False, None, set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in ("explain", "top"):
            continue
        if name in seen:
            raise _invalid(name, "given more than once")
        seen.add(name)
        if name == "explain":
            if value not in TRUTH:
                raise _invalid(name, "must be true or false")
            explain = TRUTH[value]
        elif not (value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS):
            raise _invalid(name, "must be a whole number")
        else:
            top = int(value)
    return explain, top


def _invalid(name: str, detail: str) -> InvalidRequestError:
    return InvalidRequestError(
        "see errors", errors=[Violation(pointer=f"?{name}", detail=detail, code="bad_parameter")]
    )
