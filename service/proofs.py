"""GET /explanations/{id}/proof: that a signed log has the events of a request."""

from collections.abc import Sequence
from dataclasses import replace

import orjson

from service.auth import Caller
from service.errors import NotFoundError, NotSequencedError
from service.evidence import EvidenceStore, ProvenEvent
from service.ledger import EVIDENCE, Checkpoint, Ledger, proven_line


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


def _may_read(caller: Caller, decision: ProvenEvent) -> bool:
    return caller.may_read(decision.actor, orjson.loads(decision.header).get("parent_request_id"))


def _entries(
    ledger: Ledger, checkpoint: Checkpoint, events: dict[int, ProvenEvent]
) -> Sequence[dict[str, object]]:
    seqs = sorted(events)
    paths = ledger.inclusions(EVIDENCE.name, seqs, checkpoint.size)
    return [proven_line(seq, events[seq], path) for seq, path in zip(seqs, paths, strict=True)]
