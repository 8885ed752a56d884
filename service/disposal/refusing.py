"""What a reader is told of a record that is not to be read any more."""

from datetime import UTC, datetime, timedelta

import orjson

from service.errors import ConflictError, GoneError, QuarantinedError, ServiceError
from service.evidence import ErasedError, Record, WithheldError


def refusal_of(error: WithheldError, key_backup: timedelta, *, is_masked: bool) -> ServiceError:
    """The answer instead of a record that was destroyed, with its header and where its proof is,
    or of one in quarantine.

    key_backup: how long copies of the key store are kept, from which a key could still come back.
    is_masked: for somebody with a role, whom the sizes of the payload's parts could tell of a value
    he may not see.
    """
    if not isinstance(error, ErasedError):
        return QuarantinedError()
    status = "expired" if error.kind == "purge" else "erased"
    if error.at is not None and error.at + key_backup > datetime.now(UTC):
        status = f"erasing until {error.at + key_backup:%Y-%m-%d}"
    return _gone(error.header, status, error.at, is_masked=is_masked)


def unrepeatable(principal: str, error: WithheldError) -> ServiceError:
    """Why a request under the ID of such a record is not answered: neither again, nor as a new one.

    Whether it is the same request cannot be known any more, so whoever made that one is told.
    """
    if error.actor != principal:
        return ConflictError()
    if isinstance(error, ErasedError):
        return GoneError("the answer to this request has been erased")
    return QuarantinedError()


def check_not_expired(record: Record, *, is_masked: bool) -> None:
    """GoneError for a record whose time is over, though it is still to be purged."""
    if record.is_expired(datetime.now(UTC)):
        raise _gone(record.decision.header, "expired", None, is_masked=is_masked)


def _gone(header: bytes, status: str, at: datetime | None, *, is_masked: bool) -> GoneError:
    found = orjson.loads(header)
    if is_masked:
        found.pop("payload", None)
    gone = GoneError()
    gone.members = {"record_status": status, "erased_at": at, "header": found}
    proof = f"/explanations/{found['request_id']}/proof"
    gone.headers = {"Link": f'<{proof}>; rel="proof"'}
    return gone
