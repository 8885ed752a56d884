"""GET /openapi.json and GET /docs."""

import asyncio
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from service.auth import Caller
from service.deps import RuntimeDep, requires
from service.docs_page import docs_page
from service.guards import PAGE_POLICY
from service.openapi import openapi_document
from service.runtime import Runtime

router = APIRouter(include_in_schema=False)
Predicting = Annotated[Caller, Depends(requires("predict"))]


@router.get("/openapi.json")
async def openapi(request: Request, runtime: RuntimeDep, _: Predicting) -> dict[str, Any]:
    """The contract with the columns of the models being served."""
    return await _document(request, runtime)


@router.get("/docs")
async def docs(request: Request, runtime: RuntimeDep, _: Predicting) -> HTMLResponse:
    """The same as a page; nothing is loaded from elsewhere."""
    document = await _document(request, runtime)
    base_url = str(request.base_url).rstrip("/")
    page = docs_page(document, base_url=base_url)
    return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


async def _document(request: Request, runtime: Runtime) -> dict[str, Any]:
    """Made once for the models being served: it takes 0.1 s of work."""
    state, models = request.app.state, runtime.models.all
    made_for, document = getattr(state, "openapi", (None, None))
    if made_for is not models:
        document = await _made(request, runtime)
        state.openapi = (models, document)
    return cast("dict[str, Any]", document)


async def _made(request: Request, runtime: Runtime) -> dict[str, Any]:
    return await asyncio.to_thread(
        openapi_document,
        request.app,
        runtime.models,
        needs_keys=runtime.authenticator.needs_keys,
    )
