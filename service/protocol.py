"""What a connection says, request by request: uvicorn's HTTP with limits on time and size."""

import asyncio
from functools import cached_property

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.admission import Admission
from service.errors import HeadTooLargeError, MalformedRequestError, ServiceError, SlowRequestError
from service.guards import guarded
from service.http import problem_response
from service.sending import WholeAnswers
from service.uuid7 import uuid7

MOST_HEAD_BYTES = 64 * 1024
LEAST_READ_BYTES = 64 * 1024
"""Of an answer that is ready, in the time that a request may take to arrive."""

CLOSE = (b"connection", b"close")


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP, where a peer can neither take for ever nor send a head without end, and
    bytes that are no request get a problem like every other mistake. What is not admitted is
    refused here, before uvicorn makes anything of it.
    """

    request_seconds = 15.0
    """How long one request may take to arrive, head and body."""

    last_seconds = 2.0
    """How long it still may take once the service is stopping."""

    _clock: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _is_partial = False
    _is_refused = False
    _has_refused = False
    _is_at_rest = False
    _is_stopping = False
    _is_over = False
    """Nothing more is read; what was asked before is still answered."""

    _bytes_outside_bodies = 0

    @cached_property
    def _admission(self) -> Admission:
        return getattr(getattr(self.config.app, "state", None), "admission", None) or Admission()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._end_stall()
        self._end_rest()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def eof_received(self) -> bool:  # type: ignore[override]
        if self._is_partial:
            self._refuse(MalformedRequestError())
        return self._is_over

    def data_received(self, data: bytes) -> None:
        self._bytes_outside_bodies += len(data)
        if self._is_over:  # what lies unread at the end would cost the client its answers
            if self._bytes_outside_bodies > MOST_HEAD_BYTES:
                self.transport.pause_reading()
            return
        self._has_refused = False
        super().data_received(data)
        if self._has_refused and not self._is_partial:
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or self._is_over or not (self._is_partial or is_idle):
            return
        self._start_clock()
        if self._bytes_outside_bodies > MOST_HEAD_BYTES:
            self._refuse(HeadTooLargeError())

    def on_message_begin(self) -> None:
        self._is_partial = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._bytes_outside_bodies = 0
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._admission.refuses(self.url, len(self.tasks)):
            self._is_refused = True
            if self.expect_100_continue:  # its body is not on its way
                self._send_refusal(closes=True)
            return
        if is_idle:
            self._begin_rest()
        else:
            self._stop_clock()
        super().on_headers_complete()
        self.cycle.__class__ = WholeAnswers  # uvicorn asks nobody which class to make

    def on_body(self, body: bytes) -> None:
        self._bytes_outside_bodies = 0
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._bytes_outside_bodies = 0
        self._is_partial = False
        self._stop_clock()
        if self._is_refused:
            self._is_refused = False
            keeps = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
            self._send_refusal(closes=not keeps or self._is_leaving())
            return
        self._end_rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._end_rest()
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if self._is_over:
            if not has_next:
                self.transport.close()
            return
        if has_next and not self.pipeline and self.cycle.more_body:
            self._begin_rest()
        if has_next and self._is_partial:
            self._start_clock()

    def shutdown(self) -> None:
        self._is_stopping = True
        super().shutdown()
        if self._is_partial:
            self._stop_clock()
            self._start_clock()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        self._refuse(MalformedRequestError())

    def _is_leaving(self) -> bool:
        return self._is_stopping or CLOSE in self.server_state.default_headers

    def _look_again(self, unread: int) -> None:
        self._end_stall()
        self._stall = self.loop.call_later(self.request_seconds, self._end_unread, unread)

    def _end_unread(self, before: int) -> None:
        """Give up a peer that hardly reads: the task that answers it would keep its place."""
        unread = self.transport.get_write_buffer_size()
        if before - unread < LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._look_again(unread)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _begin_rest(self) -> None:
        """The request has a task, which waits for its body."""
        self._is_at_rest = True
        self._admission.resting += 1

    def _end_rest(self) -> None:
        """The request is here, or over."""
        if self._is_at_rest:
            self._is_at_rest = False
            self._admission.resting -= 1

    def _send_refusal(self, *, closes: bool) -> None:
        if self.transport.is_closing():
            return
        if self.flow.write_paused:  # nobody reads the ones before
            self.transport.abort()
            return
        self._has_refused = True
        method = self.parser.get_method().decode("ascii")
        answer = self._admission.refusal(method, self.url, self.headers, closes=closes)
        self.transport.write(answer)
        if closes:
            self.transport.close()
        else:
            super().on_response_complete()  # which waits for the next request

    def _start_clock(self) -> None:
        """Not while the request waits for its turn, since it may go unread till then."""
        if self._clock is None and not self.pipeline:
            seconds = self.last_seconds if self._is_stopping else self.request_seconds
            self._clock = self.loop.call_later(seconds, self._refuse, SlowRequestError())

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _refuse(self, error: ServiceError) -> None:
        """Close; say why unless the peer has had an answer to this. Requests before it are answered
        first, and then nothing is said: it would be taken for the answer to one of them.
        """
        if self.transport.is_closing() or self._is_over:
            return
        if self._is_answering_earlier():
            self._end_after_answers()
            return
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope or not cycle.response_started:
            self.transport.write(guarded(_raw_problem(error)))
            if cycle is None or cycle.response_complete:  # else the application counts it
                self._admission.count_unread(error.status)
        self.transport.close()

    def _is_answering_earlier(self) -> bool:
        cycle = self.cycle
        if cycle is None:
            return False
        if cycle.scope is self.scope and cycle.more_body:  # this request, whose body is arriving
            return bool(self.pipeline)
        return not cycle.response_complete

    def _end_after_answers(self) -> None:
        self._is_over = True
        self._stop_clock()
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # the newest, which will never be whole


def _raw_problem(error: ServiceError) -> bytes:
    """A whole HTTP answer that ends the connection."""
    request_id = uuid7()
    response = problem_response(error, request_id)
    headers = [
        *response.raw_headers,
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d \r\n%s\r\n%s" % (error.status, lines, response.body)
