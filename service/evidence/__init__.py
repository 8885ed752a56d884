"""The evidence store: every decision leaves one durable record before its answer leaves."""

from service.evidence.counterfactuals import CounterfactualEvent
from service.evidence.errors import (
    BadCursorError,
    ErasedError,
    EventRefusedError,
    EvidenceError,
    InQuarantineError,
    NothingWrittenError,
    SchemaVersionError,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
    UnreadableSubjectsError,
    WithheldError,
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
    ShadowEvent,
    Status,
    final_payload,
    laid_out,
)
from service.evidence.following import PendingRequest, Priority
from service.evidence.listing import DecisionFilter, ListedDecision, ListedStatus, Page
from service.evidence.log import EvidenceLog
from service.evidence.openings import Opening, ProvenEvent
from service.evidence.reading import (
    Hold,
    Record,
    RequestKey,
    StoredDecision,
    StoredFinal,
    StoredRepeatable,
    UnreadableRecord,
)
from service.evidence.repeatable import RepeatableEvent
from service.evidence.sampling import Among
from service.evidence.sealing import Sealer
from service.evidence.spool import SpoolLimits
from service.evidence.spooling import Spooling, SpoolState
from service.evidence.store import AppendOutcome, EvidenceStore, FinalOutcome
from service.evidence.votes import FeedbackEvent, LabelEvent, VoteEvent, votes_of
from service.evidence.writer import Answer, CommitObserver

__all__ = [
    "Among",
    "Answer",
    "AnswerEvent",
    "AppendOutcome",
    "BadCursorError",
    "CommitObserver",
    "CounterfactualEvent",
    "DecisionEvent",
    "DecisionFilter",
    "Ending",
    "ErasedError",
    "Event",
    "EventRefusedError",
    "EvidenceError",
    "EvidenceLog",
    "EvidenceStore",
    "FeedbackEvent",
    "FinalEvent",
    "FinalOutcome",
    "FinalStatus",
    "HeaderConstants",
    "HeaderTemplate",
    "Hold",
    "InQuarantineError",
    "LabelEvent",
    "Lane",
    "ListedDecision",
    "ListedStatus",
    "NothingWrittenError",
    "Opening",
    "OutcomeEvent",
    "Page",
    "Parts",
    "PendingRequest",
    "Priority",
    "ProvenEvent",
    "Record",
    "RepeatableEvent",
    "RequestKey",
    "SchemaVersionError",
    "Sealer",
    "ShadowEvent",
    "SpoolLimits",
    "SpoolState",
    "Spooling",
    "Status",
    "StoreBusyError",
    "StoreUnavailableError",
    "StoredDecision",
    "StoredFinal",
    "StoredRepeatable",
    "UnreadablePayloadError",
    "UnreadableRecord",
    "UnreadableSubjectsError",
    "VoteEvent",
    "WithheldError",
    "final_payload",
    "laid_out",
    "votes_of",
]
