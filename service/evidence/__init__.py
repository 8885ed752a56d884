"""The evidence store: every decision leaves one durable record before its answer leaves."""

from service.evidence.errors import (
    BadCursorError,
    EvidenceError,
    SchemaVersionError,
    StoreBusyError,
    StoreUnavailableError,
    UnreadablePayloadError,
)
from service.evidence.events import (
    DecisionEvent,
    HeaderConstants,
    HeaderTemplate,
    Lane,
    Parts,
    Status,
    laid_out,
)
from service.evidence.log import EvidenceLog
from service.evidence.reading import DecisionFilter, ListedDecision, Page, StoredDecision
from service.evidence.store import AppendOutcome, EvidenceStore
from service.evidence.writer import Answer, CommitObserver

__all__ = [
    "Answer",
    "AppendOutcome",
    "BadCursorError",
    "CommitObserver",
    "DecisionEvent",
    "DecisionFilter",
    "EvidenceError",
    "EvidenceLog",
    "EvidenceStore",
    "HeaderConstants",
    "HeaderTemplate",
    "Lane",
    "ListedDecision",
    "Page",
    "Parts",
    "SchemaVersionError",
    "Status",
    "StoreBusyError",
    "StoreUnavailableError",
    "StoredDecision",
    "UnreadablePayloadError",
    "laid_out",
]
