"""The evidence store: every decision leaves one durable record before its answer leaves."""

from service.evidence.errors import (
    BadCursorError,
    ErasedError,
    EventRefusedError,
    EvidenceError,
    SchemaVersionError,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
)
from service.evidence.events import (
    AnswerEvent,
    DecisionEvent,
    Ending,
    Event,
    FinalEvent,
    FinalStatus,
    HeaderConstants,
    HeaderTemplate,
    Lane,
    OutcomeEvent,
    Parts,
    Status,
    final_payload,
    laid_out,
)
from service.evidence.following import PendingRequest, Priority
from service.evidence.listing import DecisionFilter, ListedDecision, Page
from service.evidence.log import EvidenceLog
from service.evidence.openings import Opening, ProvenEvent
from service.evidence.reading import Record, RequestKey, StoredDecision, StoredFinal
from service.evidence.sealing import Sealer
from service.evidence.spool import SpoolLimits
from service.evidence.spooling import Spooling, SpoolState
from service.evidence.store import AppendOutcome, EvidenceStore, FinalOutcome
from service.evidence.writer import Answer, CommitObserver

__all__ = [
    "Answer",
    "AnswerEvent",
    "AppendOutcome",
    "BadCursorError",
    "CommitObserver",
    "DecisionEvent",
    "DecisionFilter",
    "Ending",
    "ErasedError",
    "Event",
    "EventRefusedError",
    "EvidenceError",
    "EvidenceLog",
    "EvidenceStore",
    "FinalEvent",
    "FinalOutcome",
    "FinalStatus",
    "HeaderConstants",
    "HeaderTemplate",
    "Lane",
    "ListedDecision",
    "Opening",
    "OutcomeEvent",
    "Page",
    "Parts",
    "PendingRequest",
    "Priority",
    "ProvenEvent",
    "Record",
    "RequestKey",
    "SchemaVersionError",
    "Sealer",
    "SpoolLimits",
    "SpoolState",
    "Spooling",
    "Status",
    "StoreBusyError",
    "StoreUnavailableError",
    "StoredDecision",
    "StoredFinal",
    "UnreadablePayloadError",
    "final_payload",
    "laid_out",
]
