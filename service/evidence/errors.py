"""What the evidence store raises; SQL errors never leave the package."""

from datetime import datetime

import orjson


class EvidenceError(Exception):
    """Base of what this package raises.

    EvidenceError
    ├── StoreUnavailableError   nothing was confirmed as stored: disk full, locked, away, closed
    │   └── NothingWrittenError     nothing of it is stored, nor will be: its keys may go
    │       └── EventRefusedError   the store works, but cannot hold this one event
    ├── StoreBusyError          too many events already wait for the writer
    ├── SchemaVersionError      the database belongs to a newer release, or to nobody we know
    ├── UnreadablePayloadError  a stored payload cannot be opened: changed, or without its key
    ├── UnreadableSubjectsError a stored event does not say whom it is about: changed
    ├── WithheldError
    │   ├── ErasedError         the record has been erased or purged; its header is left
    │   └── InQuarantineError   the record is kept, and nobody may read it
    └── BadCursorError          a page cursor that this service did not make
    """


class StoreUnavailableError(EvidenceError):
    """The evidence store does not take or give records at the moment; retry later."""


class NothingWrittenError(StoreUnavailableError):
    """The event was not written anywhere, in part neither, and nobody will write it any more."""


class EventRefusedError(NothingWrittenError):
    """The evidence store cannot hold this event, now or later."""


class StoreBusyError(EvidenceError):
    """More events wait to be stored than the queue allows; retry later."""


class SchemaVersionError(EvidenceError):
    """The evidence database was made by a release this one cannot follow."""


class UnreadablePayloadError(EvidenceError):
    """The stored payload cannot be opened: it or its key was changed, its key is missing though
    nobody erased it, or it has an encoding this release does not know.
    """


class UnreadableSubjectsError(EvidenceError):
    """What stands where an event names its subjects is no list of names: it was changed."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"event {event_id}: whom it is about cannot be read")


class WithheldError(EvidenceError):
    """There is a record, but it is not shown to anybody. header: its decision's."""

    def __init__(self, header: bytes) -> None:
        super().__init__((self.__doc__ or "").strip())
        self.header = header

    @property
    def actor(self) -> str:
        """Who made it."""
        return str(orjson.loads(self.header)["actor"])

    @property
    def parent_request_id(self) -> str | None:
        """Of the request it explains again; None for a prediction's own."""
        found: str | None = orjson.loads(self.header).get("parent_request_id")
        return found


class ErasedError(WithheldError):
    """The record has been erased."""

    def __init__(
        self, header: bytes, *, kind: str | None = None, at: datetime | None = None
    ) -> None:
        super().__init__(header)
        self.kind = kind
        self.at = at


class InQuarantineError(WithheldError):
    """The record is in quarantine."""


class BadCursorError(EvidenceError):
    """The page cursor was not made by this service."""
