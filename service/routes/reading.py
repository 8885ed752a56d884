"""A record for whoever reads it, in whichever form: waited for, tagged, kept by caches or not."""

import hashlib

from fastapi.responses import Response

from service.auth import Caller
from service.evidence import Record
from service.http import RequestContext
from service.pages.rendering import Rendered
from service.prefer import parse_prefer
from service.routes.representing import VARY, sent
from service.runtime import Runtime

RETRY_AFTER_SECONDS = 1
Headers = dict[str, str]


async def current_record(
    runtime: Runtime, caller: Caller, context: RequestContext, request_id: str
) -> tuple[Record, Headers]:
    """A record the caller may read, after as much waiting as he prefers, and the headers that its
    answer has in any form. That he reads it is in the access log.
    """
    record = await runtime.watch.shown(caller, request_id)
    headers = {"Vary": VARY}
    if record.is_pending:
        preference = parse_prefer(context.header(b"prefer"))
        if preference.applied is not None:
            headers["Preference-Applied"] = preference.applied
        if preference.wait_seconds:
            record = await runtime.watch.until_final(
                record, preference.wait_seconds, lambda: runtime.is_stopping
            )
    if record.is_sequenced:
        headers["Link"] = f'</explanations/{request_id}/proof>; rel="proof"'
    return record, headers


def answer_record(
    record: Record, rendered: Rendered, headers: Headers, context: RequestContext
) -> Response:
    """What was made of the record: not kept while it is pending, by its ETag afterwards."""
    if record.is_pending:
        headers |= {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
        return sent(rendered, headers)
    etag = f'"{hashlib.sha256(rendered.body).hexdigest()[:32]}"'
    headers |= {"ETag": etag, "Cache-Control": "private, no-cache"}
    if _names(context.header(b"if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return sent(rendered, headers)


def _names(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list of tags, compared weakly, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or tags == ["*"]
