"""What the evidence store raises; SQL errors never leave the package."""


class EvidenceError(Exception):
    """Base of what this package raises.

    EvidenceError
    ├── StoreUnavailableError   nothing was confirmed as stored: disk full, locked, away, closed
    │   └── EventRefusedError   the store works, but cannot hold this one event
    ├── StoreBusyError          too many events already wait for the writer
    ├── SchemaVersionError      the database belongs to a newer release, or to nobody we know
    ├── UnreadablePayloadError  a stored payload has an encoding this release cannot open
    ├── ErasedError             a payload was destroyed; its header is left
    └── BadCursorError          a page cursor that this service did not make
    """


class StoreUnavailableError(EvidenceError):
    """The evidence store does not take or give records at the moment; retry later."""


class EventRefusedError(StoreUnavailableError):
    """The evidence store cannot hold this event, now or later."""


class StoreBusyError(EvidenceError):
    """More events wait to be stored than the queue allows; retry later."""


class SchemaVersionError(EvidenceError):
    """The evidence database was made by a release this one cannot follow."""


class UnreadablePayloadError(EvidenceError):
    """The stored payload has an encoding this release cannot open."""


class ErasedError(EvidenceError):
    """The payload was destroyed; header: the bytes that are left of the record."""

    def __init__(self, header: bytes) -> None:
        super().__init__("the payload of this record was erased")
        self.header = header


class BadCursorError(EvidenceError):
    """The page cursor was not made by this service."""
