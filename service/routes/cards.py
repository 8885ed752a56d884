"""GET /models/{name}/card."""

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends
from fastapi.responses import Response

from schemas import ModelCard
from service.auth import Caller
from service.card_page import card_markdown
from service.cards import Card, read_card
from service.deps import ContextDep, RuntimeDep, requires
from service.errors import CommandError, StoreAwayError
from service.evidence import EvidenceStore
from service.logs import log
from service.routes.models import ModelName
from service.runtime import Runtime

router = APIRouter(prefix="/models", tags=["models"])
MARKDOWN = "text/markdown"
JSON = "application/json"
HEADERS = {"Vary": "Accept, Authorization", "Cache-Control": "no-store"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The card of the serving version: Markdown, or JSON where Accept names it",
        "content": {MARKDOWN: {"schema": {"type": "string"}}},
        "model": ModelCard,
    }
}


@router.get("/{name}/card", responses=RESPONSES)
async def card(
    name: ModelName,
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(requires("predict"))],
    context: ContextDep,
) -> Response:
    """The model card as it is now: frozen facts, what people wrote and for which version, what is
    stale, and what goes on today. Not for roles that do not see every column.
    """
    model = runtime.models.resolve(name).model
    runtime.views.check_sees_all(caller, model)
    # Drift and late labels count the rows of all tenants: they are for whoever may see /metrics.
    sees_counts = "metrics" in caller.scopes
    found = await asyncio.to_thread(
        _card, runtime, name, model.version, runtime.evidence.store if sees_counts else None
    )
    if JSON in (context.header(b"accept") or ""):
        body = orjson.dumps(found.to_json(), option=orjson.OPT_UTC_Z)
        return Response(body, headers=HEADERS, media_type=JSON)
    return Response(card_markdown(found), headers=HEADERS, media_type=MARKDOWN)


def _card(runtime: Runtime, name: str, version: int, store: EvidenceStore | None) -> Card:
    try:
        layout = runtime.models.registry.layout
        return read_card(layout, name, version, runtime.settings, store)
    except CommandError as error:
        log.warning("card_not_read", model=name, version=version, reason=str(error))
        raise StoreAwayError("the card's files in the registry cannot be read") from None
