"""What the ledger raises besides what the evidence store does."""

from service.evidence import EvidenceError


class LogMismatchError(EvidenceError):
    """The stored log is not the one that was signed, or remembered: it was changed or put back."""
