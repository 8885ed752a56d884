"""Every error the service raises on purpose; the class carries status and title.

ServiceError
├── 400 BadHeaderError, NotJsonError, MalformedRequestError
├── 401 UnauthenticatedError          403 ForbiddenError, QuarantinedError
├── 404 NotFoundError, ModelDisabledError
├── 405 MethodNotAllowedError         408 SlowRequestError
├── 409 ConflictError, InProgressError, AlreadyFinalError, NotSequencedError, VersionGoneError
├── 410 GoneError
├── 413 BodyTooLargeError             415 NotJsonTypeError
├── 421 MisdirectedError
├── 422 InvalidRequestError           429 QuotaExceededError
├── 431 HeadTooLargeError
├── 500 PredictionError, InternalError, UnreadableError
└── 503 StoreAwayError, SpooledError, OverloadedError, QueueLimitError, ReplayFailedError
CommandError (exit code on the class)
├── 1 CheckFailedError   2 UsageError   3 UnknownError   4 InvalidInputError   5 UnavailableError
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from schemas import Violation


class ServiceError(Exception):
    """The request could not be answered."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_seconds: int | None = None

    members: Mapping[str, object] = MappingProxyType({})
    """What else its problem document says."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str = "", *, errors: Sequence[Violation] = ()) -> None:
        super().__init__(detail or self.title())
        self.errors = tuple(errors)

    @classmethod
    def title(cls) -> str:
        """The docstring's first line is the problem's title."""
        return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


class BadHeaderError(ServiceError):
    """A header is malformed."""

    status = 400
    code = "bad_header"


class NotJsonError(ServiceError):
    """The body is not strict JSON."""

    status = 400
    code = "not_strict_json"


class MalformedRequestError(ServiceError):
    """The bytes are not an HTTP/1.1 request."""

    status = 400
    code = "malformed_request"


class UnauthenticatedError(ServiceError):
    """A valid API key is needed."""

    status = 401
    code = "unauthenticated"


class ForbiddenError(ServiceError):
    """The API key lacks the scope this call needs."""

    status = 403
    code = "forbidden"


class QuarantinedError(ServiceError):
    """The record is in quarantine: it is kept, and nobody may read it."""

    status = 403
    code = "quarantined"


class GoneError(ServiceError):
    """The record has been erased; its header and its proof are left."""

    status = 410
    code = "erased"


class NotFoundError(ServiceError):
    """There is nothing here under this name."""

    status = 404
    code = "not_found"


class ModelDisabledError(NotFoundError):
    """This model has been disabled."""

    code = "model_disabled"


class MethodNotAllowedError(ServiceError):
    """This path does not answer that method."""

    status = 405
    code = "method_not_allowed"


class SlowRequestError(ServiceError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"


class ConflictError(ServiceError):
    """The request ID already names another request."""

    status = 409
    code = "request_id_conflict"


class InProgressError(ServiceError):
    """The same request is still being answered."""

    status = 409
    code = "in_progress"
    retry_after_seconds = 1


class AlreadyFinalError(ServiceError):
    """There is nothing left to call off: the record is final."""

    status = 409
    code = "already_final"


class VersionGoneError(ServiceError):
    """The version that answered is not in the registry any more."""

    status = 409
    code = "version_gone"


class VersionReplacedError(ServiceError):
    """Another version than the one that answered serves now; send the instance again."""

    status = 409
    code = "version_replaced"


class PolicyReplacedError(ServiceError):
    """Another threshold than the one that decided is in force now; send the instance again."""

    status = 409
    code = "policy_replaced"


class NoRecourseError(ServiceError):
    """The policy file names no outcome of this model that people may want."""

    status = 409
    code = "no_recourse"


class NotSequencedError(ServiceError):
    """The record is stored, but the next signed checkpoint is still to come."""

    status = 409
    code = "not_sequenced"
    retry_after_seconds = 1


class BodyTooLargeError(ServiceError):
    """The body is larger than this service accepts."""

    status = 413
    code = "body_too_large"


class NotJsonTypeError(ServiceError):
    """The body must be application/json."""

    status = 415
    code = "unsupported_media_type"


class MisdirectedError(ServiceError):
    """This host name is not served here."""

    status = 421
    code = "misdirected"


class InvalidRequestError(ServiceError):
    """The content does not fit the model's schema."""

    status = 422
    code = "invalid_content"


class QuotaExceededError(ServiceError):
    """This key's quota is used up; retry later."""

    status = 429
    code = "quota_exceeded"

    def __init__(self, detail: str = "", *, seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = seconds


class HeadTooLargeError(ServiceError):
    """The request's head is larger than this service accepts."""

    status = 431
    code = "head_too_large"


class InternalError(ServiceError):
    """Something failed here; it has been logged under the request ID."""


class UnreadableError(ServiceError):
    """The record is there but cannot be opened; it was not erased. The log says why."""

    code = "record_unreadable"


class PredictionError(ServiceError):
    """The model failed on this input; it has been logged under the request ID."""

    code = "prediction_failed"


class UnverifiedError(ServiceError):
    """What was found did not hold when it was predicted again; it has been logged."""

    code = "recourse_unverified"


class StoreAwayError(ServiceError):
    """The evidence store cannot take the record; nothing was decided."""

    status = 503
    code = "store_unavailable"
    retry_after_seconds = 2


class SpooledError(ServiceError):
    """The record waits in this service's spool for the evidence store; retry later."""

    status = 503
    code = "record_spooled"
    retry_after_seconds = 2


class OverloadedError(ServiceError):
    """The service is at its limit; retry later."""

    status = 503
    code = "overloaded"
    retry_after_seconds = 1


class QueueLimitError(ServiceError):
    """The explanation queue is at its limit; retry later."""

    status = 503
    code = "queue_full"
    retry_after_seconds = 5


class ReplayFailedError(ServiceError):
    """The replay did not come to its end; `explaind replay` may take as long as it needs."""

    status = 503
    code = "replay_failed"
    retry_after_seconds = 5


class CommandError(Exception):
    """A command line that ends with a sentence and an exit code."""

    exit_code: ClassVar[int] = 1


class CheckFailedError(CommandError):
    """A check said no."""


class UsageError(CommandError):
    """The command or a setting is wrong."""

    exit_code = 2


class UnknownError(CommandError):
    """What was named does not exist."""

    exit_code = 3


class InvalidInputError(CommandError):
    """A file or its content cannot be used; the message says what to do."""

    exit_code = 4


class UnavailableError(CommandError):
    """Something needed is not there now: a port, a database, a directory."""

    exit_code = 5
