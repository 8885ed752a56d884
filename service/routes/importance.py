"""GET /models/{name}/importance."""

import re
from datetime import date
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator

from schemas import ColumnImportance
from service.auth import Caller
from service.deps import RuntimeDep, reads
from service.errors import StoreAwayError
from service.importance import importance_document, window_of
from service.metrics import BACKEND
from service.routes.models import ModelName

router = APIRouter(prefix="/models", tags=["models"])
MIDNIGHT = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt]00:00(?::00(?:\.0+)?)?(?:[Zz]|\+00:00))?", re.ASCII
)


def _whole_day(value: object) -> object:
    match = MIDNIGHT.fullmatch(str(value))
    if match is None:
        raise ValueError("not a whole day of UTC")
    return match[1]


Day = Annotated[date, BeforeValidator(_whole_day)]


class ImportanceQuery(BaseModel):
    """Which days, in UTC, until excluded; the last 7 that are over by default."""

    since: Day | None = None
    until: Day | None = None


@router.get("/{name}/importance", response_model=ColumnImportance)
async def importance(
    name: ModelName,
    query: Annotated[ImportanceQuery, Query()],
    runtime: RuntimeDep,
    caller: Annotated[Caller, Depends(reads("audit"))],
) -> Response:
    """Mean |contribution| of each column of the serving version, over the people of whole days;
    withheld where too few stand behind it, and from roles that do not see every column.
    """
    model = runtime.models.resolve(name).model
    runtime.views.check_sees_all(caller, model)
    window = window_of(query.since, query.until)
    counts = runtime.metrics.audit_reads
    try:
        found = await runtime.importances.of(caller.tenant, model, window)
    except StoreAwayError:
        counts.labels(BACKEND, "error").inc()
        raise
    begin, end = window
    await runtime.accesses.note(caller, "importance", model=model.name, since=begin, until=end)
    counts.labels(BACKEND, "ok").inc()
    document = importance_document(model, window, found, runtime.settings.k_anonymity)
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(document), headers=headers, media_type="application/json")
