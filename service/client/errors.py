"""Every error this client raises; none quotes what was sent.

ClientError
├── UnreachableError                  no answer came: connection, time-out
├── UnreadableAnswerError             an answer that this release of the client cannot read
├── StillPendingError                 wait_for: the time was over before the explanation was there
├── NoValuesError                     to_shap, to_frame: there are no attributions to turn
└── RefusedError                      a problem (RFC 9457): status, code, request_id, pointers
    ├── InvalidError                  400, 413, 415, 422: the request must be changed
    ├── NotAllowedError               401, 403: the key, its scopes, or a quarantine
    ├── NotFoundError                 404
    │   └── GoneError                 410: the record was erased or has expired
    ├── ConflictError                 409: the request ID names another request, or code says what
    ├── QuotaError                    429: retry_after_seconds says when
    ├── UnavailableError              503: likewise
    └── ServerError                   any other 5xx
"""

from collections.abc import Sequence

from schemas import Violation

CONFLICT = 409
PASSING = frozenset({429, 503})


class ClientError(Exception):
    """A call that did not give what was asked for."""

    may_pass_later = False
    """The same call may succeed after a pause."""

    retry_after_seconds: float | None = None
    """The pause that the service asks for, if it does."""


class UnreachableError(ClientError):
    """No answer came.

    may_pass_later: the connection failed. A time-out is not repeated: the service has the request.
    """

    def __init__(self, reason: str, *, may_pass_later: bool) -> None:
        super().__init__(f"no answer from the service: {reason}")
        self.may_pass_later = may_pass_later


class UnreadableAnswerError(ClientError):
    """The answer is not of the shape this release of the client knows."""


class StillPendingError(ClientError):
    """The explanation is still to come; ask again later by its request ID."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the explanation of {request_id} is still pending")
        self.request_id = request_id


class NoValuesError(ClientError):
    """There are no attributions: not yet, not any more, not by this method, or not for this key."""


class RefusedError(ClientError):
    """The service said no.

    code: the last word of the problem's type, such as invalid_content; empty where something
    before the service answered. errors: what is wrong and where, in the service's words.
    """

    def __init__(
        self,
        status: int,
        code: str,
        text: str,
        *,
        request_id: str | None,
        errors: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        places = "".join(f"; {error.pointer or '/'} {error.detail}" for error in errors[:3])
        more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
        super().__init__(f"{status} {code or 'refused'}: {text}{places}{more} [{request_id}]")
        self.status = status
        self.code = code
        self.request_id = request_id
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        is_about_time = status == CONFLICT and retry_after_seconds is not None
        self.may_pass_later = status in PASSING or is_about_time

    @property
    def pointers(self) -> tuple[str, ...]:
        """RFC 6901 pointers into the body that was sent."""
        return tuple(error.pointer for error in self.errors)


class InvalidError(RefusedError):
    """The request cannot be taken as it is."""


class NotAllowedError(RefusedError):
    """This key may not do that, or there is none."""


class NotFoundError(RefusedError):
    """There is nothing under this name, or it is somebody else's."""


class GoneError(NotFoundError):
    """The record was erased or has expired; its proof is left."""


class ConflictError(RefusedError):
    """The request ID already names another request, or the record is in another state.

    may_pass_later where only time is missing: the same request is still being answered, or the
    record has no place in the log yet.
    """


class QuotaError(RefusedError):
    """The key's quota is used up for now."""


class UnavailableError(RefusedError):
    """The service is overloaded, draining, or without its store."""


class ServerError(RefusedError):
    """Something failed at the other end."""


_OF_STATUS: dict[int, type[RefusedError]] = {
    400: InvalidError,
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    429: QuotaError,
    503: UnavailableError,
}


def kind_of(status: int) -> type[RefusedError]:
    """The class for an answer's status."""
    return _OF_STATUS.get(status, ServerError if status >= 500 else RefusedError)
