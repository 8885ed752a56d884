"""POST /predict and POST /models/{name}/predict.

An ASGI endpoint rather than a FastAPI route: its body type changes with the registry, and it
saves 80 to 150 us a request (docs/decisions/0002). OpenAPI describes it in `service.openapi`.
"""

from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas import Violation
from service.errors import InvalidRequestError
from service.http import context_of, read_json_body
from service.predicting import PredictCall, PredictReply
from service.runtime import Runtime

TRUTH = {"true": True, "false": False}
MOST_DIGITS = 6


class PredictEndpoint:
    """Serves both paths; the model's name is a path parameter or absent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Parse, one call, return."""
        runtime: Runtime = scope["app"].state.runtime
        context = context_of(scope)
        caller = runtime.authenticator.caller(context.header(b"authorization"))
        explain, top = parse_query(scope["query_string"])
        body = await read_json_body(context, receive, limit=runtime.settings.max_body_bytes)
        call = PredictCall(
            model=scope["path_params"].get("name"),
            body=body,
            explain=explain,
            top=top,
            request_id=context.request_id,
            is_id_chosen=context.chosen_by_client,
            caller=caller,
            trace_id=context.trace_id,
        )
        reply = await runtime.predicting.predict(call)
        response = Response(reply.body, 200, reply_headers(reply), media_type="application/json")
        await response(scope, receive, send)


def reply_headers(reply: PredictReply) -> dict[str, str]:
    """Evidence, timings, and whether this is a replay."""
    headers = {"Evidence": "stored", "Cache-Control": "no-store"}
    if reply.is_replay:
        headers["Idempotent-Replay"] = "true"
    else:
        headers["Server-Timing"] = ", ".join(
            f"{phase};dur={seconds * 1000:.3f}" for phase, seconds in reply.timings
        )
    return headers


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
