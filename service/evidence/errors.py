"""What the evidence store raises; SQL errors never leave the package."""

from datetime import datetime


class EvidenceError(Exception):
    """Base of what this package raises.

    EvidenceError
    ├── StoreUnavailableError   nothing was confirmed as stored: disk full, locked, away, closed
    ├── StoreBusyError          too many events already wait for the writer
    ├── SchemaVersionError      the database belongs to a newer release, or to nobody we know
    ├── UnreadablePayloadError  a stored payload has an encoding this release cannot open
    ├── GoneError               the record has been destroyed; its header is left
    ├── QuarantinedError        the record is kept, and nobody may read it
    └── BadCursorError          a page cursor that this service did not make
    """


class StoreUnavailableError(EvidenceError):
    """The evidence store does not take or give records at the moment; retry later."""


class StoreBusyError(EvidenceError):
    """More events wait to be stored than the queue allows; retry later."""


class SchemaVersionError(EvidenceError):
    """The evidence database was made by a release this one cannot follow."""


class UnreadablePayloadError(EvidenceError):
    """The stored payload has an encoding this release cannot open."""


class GoneError(EvidenceError):
    """The record has been destroyed; its header is left.

    kind: `erasure`, `purge`, or None where only the key is known to be gone.
    """

    def __init__(self, *, actor: str, header: bytes, kind: str | None, at: datetime | None) -> None:
        super().__init__("the record has been erased")
        self.actor = actor
        self.header = header
        self.kind = kind
        self.at = at


class QuarantinedError(EvidenceError):
    """The record is in quarantine: it is kept, and nobody may read it."""

    def __init__(self, *, actor: str) -> None:
        super().__init__("the record is in quarantine")
        self.actor = actor


class BadCursorError(EvidenceError):
    """The page cursor was not made by this service."""
