"""What is sent and what comes back, without sending it: one flow for both clients.

A flow is a generator: it yields a `Request` to be sent or a `Pause` to be waited out, is sent what
came of it, and returns the result. So retries, waits and their limits are written once.
"""

import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from schemas import InvalidContentError, Problem, read_answer
from schemas.strict_document import Document
from service.client.errors import ClientError, UnreachableError, UnreadableAnswerError, kind_of

PROBLEM = "application/problem+json"
CODE_PREFIX = "urn:explaind:problem:"
FIRST_PAUSE_SECONDS = 0.1
REPEATED = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
"""Failures of the connection. A read time-out is none: the service has the request and works."""

Result = TypeVar("Result")
Answered = TypeVar("Answered", bound=Document)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; wait_seconds: how much longer than others its answer may take. is_repeatable:
    asked twice, it is done once.
    """

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait_seconds: float = 0.0
    is_repeatable: bool = True


def arguments_of(request: Request, timeout_seconds: float) -> dict[str, Any]:
    """As httpx's clients take it."""
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.query),
        "headers": dict(request.headers),
        "content": request.body,
        "timeout": timeout_seconds + request.wait_seconds,
    }


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for so long."""

    seconds: float


Outcome = httpx.Response | httpx.TransportError | None
"""Of a request: the answer, or why there is none; of a pause: None."""

Flow = Generator[Request | Pause, Outcome, Result]


@dataclass(frozen=True, slots=True)
class Repeats:
    """When a call is made again: what failed may pass later, and the deadline is not over.

    deadline_seconds: from a call's begin (and what it was asked to wait) to its last attempt; 0
    for one attempt only. longest_pause_seconds: a longer Retry-After is not waited out but raised.
    """

    deadline_seconds: float = 60.0
    longest_pause_seconds: float = 30.0

    def pause_before(self, attempt: int, failure: ClientError, left_seconds: float) -> float | None:
        """The pause before an attempt (from 1), None if there is to be none.

        As Retry-After says; without it drawn uniformly up to a bound that doubles (full jitter:
        Brooker, Exponential Backoff And Jitter, 2015).
        """
        if not failure.may_pass_later:
            return None
        seconds = failure.retry_after_seconds
        if not seconds:  # none, or 0, which without a pause would hammer
            bound = min(self.longest_pause_seconds, FIRST_PAUSE_SECONDS * 2**attempt)
            seconds = random.SystemRandom().uniform(0, bound)
        return seconds if seconds <= min(self.longest_pause_seconds, left_seconds) else None


def answered(request: Request, repeats: Repeats) -> Flow[httpx.Response]:
    """The answer, once it is none that may pass later.

    A POST is repeated under its request ID, for which the service answers the same again, or
    replaces what was said before; one that does neither only where it was refused. Raises
    UnreachableError and RefusedError.
    """
    ends_at = time.monotonic() + repeats.deadline_seconds + request.wait_seconds
    attempt = 0
    while True:
        outcome = yield request
        failure = _failure(outcome)
        if failure is None and isinstance(outcome, httpx.Response):
            return outcome
        assert failure is not None
        if isinstance(failure, UnreachableError) and not request.is_repeatable:
            raise failure
        attempt += 1
        pause = repeats.pause_before(attempt, failure, ends_at - time.monotonic())
        if pause is None:
            raise failure
        yield Pause(pause)


def read(kind: type[Answered], response: httpx.Response) -> Answered:
    """The answer's document. Members that a later release added are left out.

    Raises UnreadableAnswerError, which quotes nothing of it.
    """
    try:
        return read_answer(kind, response.content)
    except InvalidContentError as error:
        places = ", ".join(found.pointer for found in error.errors[:3])
        raise UnreadableAnswerError(
            f"not a {kind.__name__} as this client knows it: {places}"
        ) from None


def retry_after_seconds(response: httpx.Response) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date; None where there is none or it is neither."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _failure(outcome: Outcome) -> ClientError | None:
    if isinstance(outcome, httpx.Response):
        return None if outcome.is_success else _refusal(outcome)
    name = type(outcome).__name__
    if isinstance(outcome, httpx.LocalProtocolError):  # its text quotes headers: the key is one
        return UnreachableError(name, may_pass_later=False)
    return UnreachableError(f"{name}: {outcome}", may_pass_later=isinstance(outcome, REPEATED))


def _refusal(response: httpx.Response) -> ClientError:
    problem = _problem(response)
    return kind_of(response.status_code)(
        response.status_code,
        "" if problem is None else problem.type.removeprefix(CODE_PREFIX),
        response.reason_phrase if problem is None else problem.detail,
        request_id=response.headers.get("x-request-id"),
        errors=() if problem is None else problem.errors,
        retry_after_seconds=retry_after_seconds(response),
    )


def _problem(response: httpx.Response) -> Problem | None:
    """None where something before the service answered in its own words."""
    if not response.headers.get("content-type", "").startswith(PROBLEM):
        return None
    try:
        return read_answer(Problem, response.content)
    except InvalidContentError:
        return None
