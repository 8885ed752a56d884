"""GET /log/checkpoint, /log/key, /log/consistency, and GET /explanations/{request_id}/proof."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from schemas import Consistency, Proof
from service.auth import Caller
from service.deps import CallerDep, ReaderDep, RequestId, RuntimeDep
from service.errors import NotFoundError, StoreAwayError
from service.evidence import EvidenceError, EvidenceStore
from service.ledger import ACCESS, Checkpoint, hashes_text
from service.metrics import BACKEND
from service.proofs import proof_document
from service.runtime import Runtime

router = APIRouter(tags=["evidence"])
LogName = Literal["evidence", "access"]
NOT_KEPT = {"Cache-Control": "no-store"}


class LogQuery(BaseModel):
    """Which log: that of the evidence, or (with the scope audit) that of who read it."""

    log: LogName = "evidence"


class ConsistencyQuery(LogQuery):
    """Two sizes of the log; to: the last checkpoint's if it is left out."""

    model_config = ConfigDict(populate_by_name=True)

    from_: int = Field(0, alias="from", ge=0, le=2**53)
    to: int | None = Field(None, ge=0, le=2**53)


@router.get("/log/checkpoint", response_class=PlainTextResponse)
async def checkpoint(
    query: Annotated[LogQuery, Query()], runtime: RuntimeDep, caller: CallerDep
) -> Response:
    """The last signed checkpoint: a C2SP signed note. Whoever keeps it can later prove that the
    log was put back or changed. Scope: any key; audit for the access log.
    """
    signed = await _checkpoint(runtime, caller, query.log)
    return PlainTextResponse(signed.note, headers=NOT_KEPT)


@router.get("/log/key", response_class=PlainTextResponse)
async def key(query: Annotated[LogQuery, Query()], runtime: RuntimeDep, _: CallerDep) -> Response:
    """The public key of the log's checkpoints as a C2SP verifier key. Scope: any key."""
    return PlainTextResponse(runtime.ledger.vkey(query.log) + "\n", headers=NOT_KEPT)


@router.get("/log/consistency", response_model=Consistency)
async def consistency(
    query: Annotated[ConsistencyQuery, Query()], runtime: RuntimeDep, caller: CallerDep
) -> Response:
    """The proof of RFC 6962, section 2.1.2, that the log of one size begins with that of another.
    Scope: as the checkpoint's.
    """
    signed = await _checkpoint(runtime, caller, query.log)
    old, size = query.from_, signed.size if query.to is None else query.to
    if not old <= size <= signed.size:
        raise NotFoundError(f"sizes are in order, and up to the last checkpoint's {signed.size}")
    try:
        path = await runtime.evidence.read(
            lambda _: runtime.ledger.consistency(query.log, old, size)
        )
    except EvidenceError:
        raise StoreAwayError from None
    found = {"log": signed.origin, "from": old, "to": size, "proof": hashes_text(path)}
    return Response(orjson.dumps(found), headers=NOT_KEPT, media_type="application/json")


@router.get("/explanations/{request_id}/proof", response_model=Proof)
async def proof(request_id: RequestId, runtime: RuntimeDep, caller: ReaderDep) -> Response:
    """That the signed log has the events of a request, for checking with the public key alone.
    Scope: as its record. Of an erased one the headers are proven, which are all that is left. 403
    for a role that may not see all of it: headers tell how long its parts are.
    """
    model, record = await runtime.watch.openable(caller, request_id)
    runtime.views.check_proof(caller, model, record)
    opens = record is not None

    def made(store: EvidenceStore) -> bytes:
        found = proof_document(store, runtime.ledger, caller, request_id, opens=opens)
        return orjson.dumps(found)

    reads = runtime.metrics.audit_reads
    try:
        document = await runtime.evidence.read(made)
    except EvidenceError:
        reads.labels(BACKEND, "error").inc()
        raise StoreAwayError from None
    except NotFoundError:
        reads.labels(BACKEND, "not_found").inc()
        raise
    reads.labels(BACKEND, "ok").inc()
    return Response(document, headers=NOT_KEPT, media_type="application/json")


async def _checkpoint(runtime: Runtime, caller: Caller, log: LogName) -> Checkpoint:
    if log == ACCESS.name:
        caller.require("audit")
    try:
        found = await runtime.evidence.read(lambda _: runtime.ledger.checkpoint(log))
    except EvidenceError:
        raise StoreAwayError from None
    if found is None:
        raise NotFoundError(f"nothing of the log {log} has been signed yet")
    if log == ACCESS.name:
        await runtime.accesses.note(caller, "checkpoint", size=found.size)
    return found
