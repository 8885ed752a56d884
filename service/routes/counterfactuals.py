"""POST /counterfactuals, and what was found of a record last."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from schemas import InvalidContentError, NotStrictJsonError
from schemas.counterfactuals import (
    CounterfactualList,
    Counterfactuals,
    read_recourse_request,
    recourse_request_schema,
)
from service.auth import Caller
from service.deps import ContextDep, ReaderDep, RequestId, RuntimeDep, requires
from service.errors import InvalidRequestError, NotJsonError
from service.http import read_json_body
from service.openapi import REQUEST_ID_PARAMETER
from service.recourse import RecourseCall

router = APIRouter(tags=["evidence"])
Advised = Annotated[Caller, Depends(requires("recourse"))]
NO_STORE = {"Cache-Control": "no-store"}
WANTED: dict[str, Any] = {
    "parameters": [REQUEST_ID_PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": recourse_request_schema({}),
                "example": {"request_id": "019aa0c2-0000-7000-8000-000000000000"},
            }
        },
    },
}


@router.post("/counterfactuals", response_model=Counterfactuals, openapi_extra=WANTED)
async def find(
    request: Request, runtime: RuntimeDep, caller: Advised, context: ContextDep
) -> Response:
    """Find what would have to change for the outcome that the policy file names as the target, of a
    past request, or of an instance, which is predicted and recorded first (that needs the scope
    predict too). Each answer has been predicted by the version that decided.
    """
    body = await read_json_body(context, request.receive, limit=runtime.settings.max_body_bytes)
    try:
        wanted = read_recourse_request(body)
    except NotStrictJsonError as error:
        raise NotJsonError(str(error)) from None
    except InvalidContentError as error:
        raise InvalidRequestError("see errors", errors=error.errors) from None
    call = RecourseCall(
        wanted, context.request_id, context.chosen_by_client, caller, context.trace_id
    )
    answer = await runtime.recourse.find(call)
    return Response(answer, headers=NO_STORE, media_type="application/json")


@router.get("/explanations/{request_id}/counterfactuals", response_model=CounterfactualList)
async def told(request_id: RequestId, runtime: RuntimeDep, caller: ReaderDep) -> Response:
    """The last 100 searches that were made of a record, oldest first. Scope: as its record."""
    found = await runtime.recourse.told(caller, request_id)
    return Response(found, headers=NO_STORE, media_type="application/json")
