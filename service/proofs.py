"""GET /explanations/{id}/proof: that a signed log has the events of a request."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import orjson

from service.auth import Caller
from service.errors import NotFoundError, NotSequencedError
from service.evidence import EvidenceStore, ProvenEvent
from service.ledger import (
    EVIDENCE,
    Checkpoint,
    Ledger,
    LogMismatchError,
    parse_checkpoint,
    proven_line,
)
from service.pages.explanation import Place, Proof
from service.verify import CONSISTENT, MALFORMED, Json, said
from service.verify import Proof as Verification


def proof_document(
    store: EvidenceStore, ledger: Ledger, caller: Caller, request_id: str, *, opens: bool = True
) -> dict[str, object]:
    """The proof of all events of a request that this caller may read.

    opens False: without the payloads, for a record that is not to be read any more. What its
    headers tell of sizes is not for callers with masked columns: see `Views.check_proof`.
    Raises NotFoundError, NotSequencedError while the last checkpoint lacks one of them, and
    EvidenceError.
    """
    events = store.request_events(caller.tenant, request_id)
    decision = next((event for event in events if event.event_type == "decision"), None)
    if decision is None or not _may_read(caller, decision):
        raise NotFoundError("no record of this request ID can be read by this caller")
    if not opens:
        events = [replace(event, opening=None) for event in events]
    checkpoint = ledger.checkpoint()
    places = ledger.places(EVIDENCE.name, [event.event_id for event in events])
    seqs = [places.get(event.event_id) for event in events]
    covered = [seq for seq in seqs if checkpoint and seq is not None and seq < checkpoint.size]
    if checkpoint is None or len(covered) < len(events):
        raise NotSequencedError
    return {
        "request_id": request_id,
        "log": checkpoint.origin,
        "vkey": ledger.vkey(),
        "checkpoint": checkpoint.note,
        "entries": _entries(ledger, checkpoint, dict(zip(covered, events, strict=True))),
    }


def checked_proof(store: EvidenceStore, ledger: Ledger, caller: Caller, request_id: str) -> Proof:
    """The proof of what a caller may see whole, checked here and now as `explaind verify` would.

    Raises EvidenceError, NotFoundError. Cost: some milliseconds.
    """
    try:
        document = proof_document(store, ledger, caller, request_id)
        checkpoint = parse_checkpoint(str(document["checkpoint"]))
        signed_at = ledger.signed_at(checkpoint)
    except NotSequencedError:
        return Proof("awaited")
    except LogMismatchError as error:
        return Proof("failed", str(error))
    found = _verified(document)
    entries = cast("list[Json]", document["entries"])
    return Proof(
        "proven" if found == CONSISTENT else "failed",
        found,
        checkpoint.origin,
        checkpoint.size,
        "unknown time" if signed_at is None else f"{signed_at:%Y-%m-%d %H:%M:%S} UTC",
        tuple(Place(each["seq"], _kind_of(each)) for each in entries),
    )


def _kind_of(entry: Json) -> str:
    return str(orjson.loads(entry["header"])["event_type"])


def _verified(document: dict[str, object]) -> str:
    """The verdict, or what is wrong first."""
    try:
        verdict = Verification(document).finish()
    except MALFORMED as error:
        return said(error)
    findings = verdict["findings"]
    return str(findings[0]["problem"] if findings else verdict["verdict"])


def _may_read(caller: Caller, decision: ProvenEvent) -> bool:
    return caller.may_read(decision.actor, orjson.loads(decision.header).get("parent_request_id"))


def _entries(
    ledger: Ledger, checkpoint: Checkpoint, events: dict[int, ProvenEvent]
) -> Sequence[dict[str, object]]:
    seqs = sorted(events)
    paths = ledger.inclusions(EVIDENCE.name, seqs, checkpoint.size)
    return [proven_line(seq, events[seq], path) for seq, path in zip(seqs, paths, strict=True)]
