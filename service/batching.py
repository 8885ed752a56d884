"""One batch per event-loop tick: predict, explain and encode all that arrived together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import NamedTuple

import numpy as np

from explainers.base import FloatArray
from schemas import DecodedBody
from service import answers
from service.answers import Facts, Fragments, Priority, Ranked, strongest
from service.auth import Caller
from service.errors import PredictionError
from service.evidence import Answer, DecisionEvent, EvidenceLog, Status
from service.explaining import Explained, ExplainedPart, explain_rows
from service.logs import log, place_of
from service.models.base import Served
from service.planning import NOTHING, Plan
from service.serving import ServedModel

LOOP_BUDGET_SECONDS = 0.002
"""Work above this leaves the event loop for a thread; the kernels release the GIL."""

MOST_ROWS = 512
MOST_THREADS = 2
ENOUGH_REQUESTS = 64
"""As many waiting requests do not wait for a running commit to end."""


class Ask(NamedTuple):
    """One validated request."""

    request_id: str
    caller: Caller
    received_at: datetime
    body: DecodedBody
    instances: bytes
    """The validated rows as JSON, for the fingerprint and the record."""

    explain: bool
    top: int
    fingerprint: str
    subjects: str | None
    trace_id: str | None = None
    plan: Plan = NOTHING
    priority: Priority = "high"
    answer_by: datetime | None = None
    """Until then the answer waits for a queued explanation."""

    @property
    def is_inline(self) -> bool:
        """Its explanation is computed here and now."""
        return self.plan.lane == "inline"


class Prepared(NamedTuple):
    """The answer, and the event that must be durable before it leaves."""

    answer: bytes
    event: DecisionEvent
    explained: ExplainedPart | None
    explanation_size: int


@dataclass(slots=True, eq=False)
class Waiting:
    """A request between its tick and its commit; prepared is there once computed.

    leads: it is the first of its batch, the example for all of them.
    """

    ask: Ask
    outcome: Answer
    prepared: Prepared | None = None
    computed: float = 0.0
    leads: bool = False


@dataclass(slots=True, eq=False)
class Batcher:
    """The pending requests of one served version."""

    served: ServedModel
    executor: ThreadPoolExecutor
    evidence: EvidenceLog
    waiting: list[Waiting] = field(default_factory=list)
    threads: int = 0
    scheduled: bool = False

    def submit(self, ask: Ask) -> Waiting:
        """Queue a request for the flush of this tick; its outcome says when it is durable."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(ask, loop.create_future())
        self.waiting.append(waiting)
        self.schedule()
        return waiting

    @property
    def is_idle(self) -> bool:
        """Nothing waits or runs."""
        return not self.waiting and not self.threads

    def schedule(self) -> None:
        """Flush in the next iteration of the loop, once for all requests of this one."""
        if self.waiting and not self.scheduled:
            self.scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self.scheduled = False
        if len(self.waiting) < ENOUGH_REQUESTS and self.evidence.backlog():
            return  # the end of the running commit flushes: until then the batch grows
        while self.waiting:
            batch = self._next_batch()
            if self._seconds(batch) <= LOOP_BUDGET_SECONDS:
                del self.waiting[: len(batch)]
                self._store(batch, run(self.served, [w.ask for w in batch]))
            elif self.threads < MOST_THREADS:
                del self.waiting[: len(batch)]
                self._start_thread(batch)
            else:
                return  # a finishing thread flushes again

    def _next_batch(self) -> list[Waiting]:
        rows = 0
        for count, waiting in enumerate(self.waiting):
            rows += len(waiting.ask.body.rows)
            if rows > MOST_ROWS and count:
                return self.waiting[:count]
        return self.waiting[:]

    def _seconds(self, batch: Sequence[Waiting]) -> float:
        cost = self.served.model.manifest.cost
        seconds = cost.predict_row
        for waiting in batch:
            rows = len(waiting.ask.body.rows)
            seconds += rows * cost.predict_row_in_batch
            if waiting.ask.is_inline:
                seconds += rows * cost.explain_row_in_batch
        return seconds

    def _start_thread(self, batch: list[Waiting]) -> None:
        self.threads += 1
        work = asyncio.get_running_loop().run_in_executor(
            self.executor, run, self.served, [w.ask for w in batch]
        )
        work.add_done_callback(lambda done: self._finish(batch, done.result()))

    def _finish(self, batch: list[Waiting], results: list[Prepared | PredictionError]) -> None:
        self.threads -= 1
        self._store(batch, results)
        self.schedule()

    def _store(
        self, batch: Sequence[Waiting], results: Sequence[Prepared | PredictionError]
    ) -> None:
        """Hand what was computed to the evidence log, as one commit."""
        events, now = [], perf_counter()
        batch[0].leads = True
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, PredictionError):
                _fail(waiting, result)
            else:
                waiting.prepared, waiting.computed = result, now
                events.append((result.event, waiting.outcome))
        try:
            if events:
                self.evidence.submit(events)
        except Exception as error:  # noqa: BLE001 - nobody but these requests can be told
            for waiting in batch:
                _fail(waiting, error)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.outcome.done():  # the client may have gone away
        waiting.outcome.set_exception(error)


def run(served: ServedModel, asks: Sequence[Ask]) -> list[Prepared | PredictionError]:
    """Answer a batch; if the model fails on it, each request alone, so that one bad row (or one
    library bug) fails only its own request.
    """
    try:
        return _run_together(served, asks)
    except Exception as error:  # noqa: BLE001 - whatever the native library raises
        if len(asks) > 1:
            return [result for ask in asks for result in run(served, [ask])]
        log.error(
            "prediction_failed",
            request_id=asks[0].request_id,
            trace_id=asks[0].trace_id,
            model=served.model.name,
            place=place_of(error),
        )
        served.metrics.errors("predict", type(error).__name__).inc()
        return [PredictionError()]


def _run_together(served: ServedModel, asks: Sequence[Ask]) -> list[Prepared | PredictionError]:
    # Rows to explain come first, so that they are one contiguous block.
    order = sorted(range(len(asks)), key=lambda i: not asks[i].is_inline)
    rows: list[Sequence[float]] = []
    spans = {}
    for i in order:
        spans[i] = slice(len(rows), len(rows) + len(asks[i].body.codes))
        rows += asks[i].body.codes
    X = np.array(rows, dtype=np.float64)
    output = served.model.native.predict(X)
    if not (np.isfinite(output.outputs).all() and np.isfinite(output.scores).all()):
        raise FloatingPointError("JSON has no number for what the model serves")
    computed = _explain(served, X, output, [ask for ask in asks if ask.is_inline])
    if computed.explained is not None and computed.explained.explanation is None and len(asks) > 1:
        return [result for ask in asks for result in run(served, [ask])]
    return [_prepare(served, ask, spans[i], computed) for i, ask in enumerate(asks)]


class _Computed(NamedTuple):
    """What a batch's rows gave; explained and ranked are of the first rows, to be explained."""

    output: Served
    explained: Explained | None
    ranked: Ranked | None
    completed_at: datetime


def _explain(served: ServedModel, X: FloatArray, output: Served, asks: Sequence[Ask]) -> _Computed:
    explained = ranked = None
    if asks:
        count = sum(len(ask.body.codes) for ask in asks)
        head = Served(output.outputs[:count], output.scores[:count])
        explained = explain_rows(served.model, X[:count], head)
    if explained is not None and explained.explanation is not None:
        ranked = Ranked.of(explained.explanation.values, max(ask.top for ask in asks))
    return _Computed(output, explained, ranked, datetime.now(UTC))


def _prepare(served: ServedModel, ask: Ask, rows: slice, computed: _Computed) -> Prepared:
    outputs, scores = computed.output.outputs[rows], computed.output.scores[rows]
    own = (
        computed.explained.part(rows) if computed.explained is not None and ask.is_inline else None
    )
    status, explanation = _explanation(served, ask, own, computed)
    fragments = Fragments(
        predictions=answers.encode_predictions(served.templates, scores),
        warnings=answers.encode_warnings(served.model.codec.warnings(ask.body, served.model.seen)),
        explanation=explanation,
    )
    answer, ranges = answers.encode_answer(served.templates.model, ask.request_id, fragments)
    lane = ask.plan.lane
    provenance = answers.encode_provenance(
        served.templates,
        lane=lane,
        received_at=ask.received_at,
        completed_at=computed.completed_at,
        principal=ask.caller.principal,
    )
    facts = Facts(
        *(ask.instances, provenance, ask.fingerprint, ask.body.codes, outputs, scores),
        ask=answers.encode_ask(ask.top, ask.priority, ask.answer_by) if lane == "queued" else None,
    )
    payload, parts = answers.encode_payload(answer, ranges, facts)
    event = DecisionEvent(
        template=served.header,
        request_id=ask.request_id,
        received_at=ask.received_at,
        completed_at=computed.completed_at,
        status=status,
        lane=lane,
        payload=payload,
        parts=parts,
        tenant=ask.caller.tenant,
        actor=ask.caller.principal,
        auth_method=ask.caller.auth_method,
        subjects=ask.subjects,
    )
    return Prepared(answer, event, own, len(explanation))


def _explanation(
    served: ServedModel, ask: Ask, own: ExplainedPart | None, computed: _Computed
) -> tuple[Status | None, bytes]:
    """Status and bytes of the explanation of one request."""
    if not ask.explain:
        return None, b"null"
    if ask.plan.lane == "queued":
        return "pending", answers.encode_unexplained(
            served.model, "pending", None, lane="queued", request_id=ask.request_id
        )
    if own is None:
        return "skipped", answers.encode_unexplained(
            served.model, "skipped", ask.plan.refusal, lane=None, request_id=ask.request_id
        )
    if own.reason is not None:
        return "failed", answers.encode_unexplained(
            served.model, "failed", own.reason, lane="inline", request_id=ask.request_id
        )
    assert computed.ranked is not None  # what has passed the checks is ranked
    try:
        return "complete", answers.encode_explanation(
            served.templates,
            own,
            computed.output.outputs[own.rows],
            strongest(served.templates, computed.ranked, own.rows, ask.body.rows, ask.top),
            request_id=ask.request_id,
        )
    except Exception as error:  # noqa: BLE001 - the prediction must outlive its explanation
        log.error("explanation_not_encoded", request_id=ask.request_id, place=place_of(error))
        return "failed", answers.encode_unexplained(
            served.model, "failed", answers.NOT_ENCODED, lane="inline", request_id=ask.request_id
        )
