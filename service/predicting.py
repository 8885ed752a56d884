"""Predict, explain if asked, store, answer: the use case behind every transport."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter

import orjson

from schemas import DecodedBody, InvalidContentError, NotStrictJsonError, Violation
from service.answers import DEFAULT_TOP
from service.batching import MOST_THREADS, Batcher
from service.calls import PredictCall, PredictReply
from service.counting import count_failure, count_success, exemplar_of
from service.delivery import Delivery, job_of
from service.disposal import unrepeatable
from service.errors import (
    ConflictError,
    InProgressError,
    InternalError,
    InvalidRequestError,
    NotJsonError,
    OverloadedError,
    PredictionError,
    QuotaExceededError,
    UnreadableError,
)
from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EvidenceLog,
    Record,
    StoreBusyError,
    StoredDecision,
    StoreUnavailableError,
    UnreadablePayloadError,
    WithheldError,
)
from service.logs import log
from service.planning import NOTHING, Plan, plan_explanation
from service.prefer import Preference
from service.preparing import Ask, Prepared
from service.quotas import Quotas
from service.rollouts import Rollouts
from service.secrets import Keyring
from service.served import ServedModel
from service.serving import ServedModels
from service.unstored import unstored_answer

PHASES = ("parse", "predict", "explain", "evidence")
TWIN_WAIT_SECONDS = 2.0
SAY_SECONDS = 0.5
"""Beyond its wait, within which a first answer is known to have had the explanation or not."""

LARGE_BODY_BYTES = 16384
"""A body above this is decoded in a thread: a hostile one of 1 MiB takes 0.3 s."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take, from the settings."""

    max_instances: int = 1000
    inline_budget_seconds: float = 0.1
    wait_seconds: float = 0.15


@dataclass(slots=True, eq=False)
class PredictService:
    """Shared by all transports; one per process."""

    models: ServedModels
    evidence: EvidenceLog
    keyring: Keyring
    delivery: Delivery
    limits: Limits
    quotas: Quotas = field(default_factory=Quotas)
    executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="predict")
    )
    rollouts: Rollouts = field(init=False)
    _batchers: dict[ServedModel, Batcher] = field(default_factory=dict)
    _in_flight: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    _submissions: set[asyncio.Task[object]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.evidence.call_when_idle(self._after_commit)
        metrics = self.delivery.metrics
        self.rollouts = Rollouts(self.models, self.evidence, self.keyring, metrics)

    async def predict(self, call: PredictCall) -> PredictReply:
        """The stored answer to a call, new or replayed.

        Raises the ServiceError the transport turns into a status, and counts where it refuses the
        content; nothing is answered before its record is durable.
        """
        received_at, started = datetime.now(UTC), perf_counter()
        call.caller.require("predict")
        if call.explain:
            call.caller.require("explain")
        serving = self.models.resolve(call.model)
        served = serving
        if serving.tried is not None:
            served = self.rollouts.chosen(serving, call.caller.tenant, call.request_id)
        if len(call.body) > LARGE_BODY_BYTES:
            ask = await asyncio.to_thread(self._ask, served, call, received_at)
        else:
            ask = self._ask(served, call, received_at)
        self._count_against_quota(served, call, len(ask.body.rows))
        parsed = perf_counter() - started
        answer = self._answer_once if call.is_id_chosen else self._answer
        if serving.tried is None:
            return await answer(served, ask, started, parsed)

        def answer_by(version: ServedModel) -> Coroutine[None, None, PredictReply]:
            plan = self._plan(version, call, len(ask.body.rows))
            return answer(version, ask._replace(plan=plan), started, parsed)

        return await self.rollouts.answer(serving, served, answer_by)

    def _count_against_quota(self, served: ServedModel, call: PredictCall, n_rows: int) -> None:
        """A repetition counts too: only the store knows it as one, once it has been computed."""
        try:
            self.quotas.take(call.caller, n_rows, predict=True, explain=call.explain)
        except QuotaExceededError as error:
            stage = "explain" if call.explain else "predict"
            served.metrics.errors(stage, type(error).__name__).inc()
            raise

    def _ask(self, served: ServedModel, call: PredictCall, received_at: datetime) -> Ask:
        model = served.model
        columns = len(model.schema.columns)
        if call.top is not None and not 0 <= call.top <= columns:
            detail = f"must be between 0 and {columns}"
            raise InvalidRequestError(
                "see errors", errors=[Violation("?top", detail, "out_of_range")]
            )
        top = min(DEFAULT_TOP, columns) if call.top is None else call.top
        try:
            body = model.codec.decode(call.body, max_instances=self.limits.max_instances)
        except NotStrictJsonError as error:
            raise NotJsonError(str(error)) from None
        except InvalidContentError as error:
            raise InvalidRequestError("see errors", errors=error.errors) from None
        instances = model.codec.instances_json(body.rows)
        fingerprint = self._fingerprint(call, model.name, top, body, instances)
        body, instances = served.kept(body, instances)
        plan = self._plan(served, call, len(body.rows))
        wait = self._wait_seconds(call.preference)
        return Ask(
            request_id=call.request_id,
            trace_id=call.trace_id,
            caller=call.caller,
            received_at=received_at,
            body=body,
            instances=instances,
            explain=call.explain,
            top=top,
            fingerprint=fingerprint,
            subjects=self.keyring.keyed_subjects(call.caller.tenant, body.subjects),
            plan=plan,
            answer_by=received_at + timedelta(seconds=wait + SAY_SECONDS) if wait else None,
        )

    def _plan(self, served: ServedModel, call: PredictCall, n_rows: int) -> Plan:
        if not call.explain:
            return NOTHING
        batcher = self._batchers.get(served)  # made on the loop's thread only
        return plan_explanation(
            served.model,
            n_rows,
            inline_budget_seconds=self.limits.inline_budget_seconds,
            queue_is_full=self.delivery.is_full,
            is_overloaded=batcher is not None and batcher.is_overloaded,
        )

    def _wait_seconds(self, preference: Preference) -> float:
        chosen = preference.wait_seconds
        return self.limits.wait_seconds if chosen is None else chosen

    def _fingerprint(
        self, call: PredictCall, model: str, top: int, body: DecodedBody, instances: bytes
    ) -> str:
        """What makes two requests under one ID the same request; keyed, so it reveals nothing."""
        message = orjson.dumps([model, call.explain, top, body.subjects])
        return self.keyring.digest(call.caller.tenant, "fingerprint", message + instances)

    async def _answer_once(
        self, served: ServedModel, ask: Ask, started: float, parsed: float
    ) -> PredictReply:
        """Answer under an ID the client chose: the first answer again if there is one.

        Nothing is looked up before: the store refuses a second record.
        """
        key = (ask.caller.tenant, ask.request_id)
        await self._await_twin(key)
        done = self._in_flight[key] = asyncio.Event()
        try:
            return await self._answer(served, ask, started, parsed)
        finally:
            del self._in_flight[key]
            done.set()

    async def _await_twin(self, key: tuple[str, str]) -> None:
        """Wait for the same ID in flight in this process; InProgressError when it takes long."""
        deadline = perf_counter() + TWIN_WAIT_SECONDS
        while (twin := self._in_flight.get(key)) is not None:
            try:
                await asyncio.wait_for(twin.wait(), max(0.0, deadline - perf_counter()))
            except TimeoutError:
                raise InProgressError from None

    async def _answer(
        self, served: ServedModel, ask: Ask, started: float, parsed: float
    ) -> PredictReply:
        computing = perf_counter()
        try:
            waiting = self._batcher(served).submit(ask)
            outcome = await waiting.outcome
            if outcome is AppendOutcome.CONFLICT:
                return await self._replay(served, ask, waiting.prepared)
        except (
            OverloadedError,
            PredictionError,
            StoreBusyError,
            StoreUnavailableError,
        ) as error:
            raise count_failure(served, ask, error) from None
        prepared, now = waiting.prepared, perf_counter()
        assert prepared is not None
        exemplar = exemplar_of(ask) if waiting.leads else None
        count_success(served, ask, prepared, now - started, exemplar)
        self.rollouts.answered(served, ask, prepared, now - started, outcome)
        explaining = prepared.explained.duration_seconds if prepared.explained else 0.0
        timings = (parsed, waiting.computed - computing, explaining, now - waiting.computed)
        if prepared.unasked is not None:
            await self._store_unasked(served, prepared.unasked, ask.trace_id)
        if outcome is not AppendOutcome.STORED:
            return _unstored(served, prepared, outcome, timings)
        if prepared.is_canary:
            self._later(self.delivery.submit_canary(prepared.event, served.model.digest))
        is_explained = prepared.event.status == "complete"
        if is_explained and self.delivery.measures(ask.caller.tenant, ask.request_id):
            self._later(self.delivery.submit_quality(prepared.event, served.model.digest))
        if prepared.plan.lane == "queued":
            return await self._deliver(served, ask, prepared, started, timings)
        return PredictReply(prepared.answer, is_replay=False, timings=timings)

    async def _store_unasked(
        self, served: ServedModel, event: DecisionEvent, trace_id: str | None
    ) -> None:
        """Store what policy wants explained, once its prediction's record is durable and before
        the answer; nobody waits for the explanation itself.
        """
        metrics = served.metrics
        try:
            if served.is_best_effort:
                outcome = await self.evidence.append_best_effort(event)
            else:
                outcome = await self.evidence.append(event)
        except (StoreBusyError, StoreUnavailableError) as error:
            metrics.wanted["queued"].inc()
            metrics.explanations["queued", "failed"].inc()
            metrics.errors("store", type(error).__name__).inc()
            log.error("unasked_not_stored", request_id=event.request_id, reason=str(error))
            return
        if outcome is AppendOutcome.CONFLICT:
            return
        metrics.wanted["queued"].inc()
        if outcome is AppendOutcome.NOT_KEPT:
            metrics.explanations["queued", "failed"].inc()
        if outcome is not AppendOutcome.STORED:
            return  # the outbox queues what is spooled once it is in the store
        job = job_of(event, served.model.digest, priority="low", trace_id=trace_id)
        self._later(self.delivery.submit(job))

    def _later(self, submission: Coroutine[None, None, object]) -> None:
        """Queue something nobody waits for."""
        task = asyncio.create_task(submission)
        self._submissions.add(task)
        task.add_done_callback(self._submissions.discard)

    async def _deliver(
        self,
        served: ServedModel,
        ask: Ask,
        prepared: Prepared,
        since: float,
        timings: tuple[float, ...],
    ) -> PredictReply:
        """Hand the explanation to a worker and answer with it if it comes in time.

        since: when the request began, by perf_counter.
        """
        started = perf_counter()
        wait = 0.0
        if ask.answer_by is not None:  # the clock may be set meanwhile
            asked = (ask.answer_by - ask.received_at).total_seconds() - SAY_SECONDS
            wait = asked - (started - since)
        digest, trace_id = served.model.digest, ask.trace_id
        job = job_of(prepared.event, digest, priority=ask.priority, trace_id=trace_id)
        answer = await self.delivery.deliver(prepared.event, job, wait)
        parsed, predicted, _, stored = timings
        return PredictReply(
            answer or prepared.answer,
            is_replay=False,
            timings=(parsed, predicted, perf_counter() - started, stored),
            is_pending=answer is None,
            is_heeded=answer is not None or wait <= 0 or not self.delivery.is_queue_away,
        )

    async def _replay(
        self, served: ServedModel, ask: Ask, prepared: Prepared | None
    ) -> PredictReply:
        """The first answer's bytes; ConflictError for another request or principal, GoneError
        where they have been erased.
        """
        try:
            return await self._repeated(served, ask, prepared)
        except WithheldError as error:
            raise unrepeatable(ask.caller.principal, error) from None
        except UnreadablePayloadError as error:
            log.error("record_unreadable", request_id=ask.request_id, reason=str(error))
            raise UnreadableError from None

    async def _repeated(
        self, served: ServedModel, ask: Ask, prepared: Prepared | None
    ) -> PredictReply:
        spooled = await self.evidence.spooled(ask.caller.tenant, ask.request_id)
        if spooled is not None:
            stored: Record | None = Record(spooled, None, None)
        else:
            stored = await self.evidence.record(ask.caller.tenant, ask.request_id)
        if stored is None and served.is_best_effort:
            raise InProgressError  # on its way into store or spool
        if stored is None:
            raise InternalError("the record that took this ID cannot be found")
        decision = stored.decision
        same = (
            decision.actor == ask.caller.principal
            and decision.parent_request_id is None  # else policy's, with this fingerprint too
            and orjson.loads(decision.part("fingerprint")) == ask.fingerprint
        )
        if not same:
            raise ConflictError
        unasked = None if prepared is None else prepared.unasked
        if unasked is not None and _is_wanted(decision):  # lost if the first answer's process died
            await self._store_unasked(served, unasked, ask.trace_id)
        first: bytes | None = decision.part("answer")
        if spooled is None:  # nobody waited for an explanation of what is spooled
            first = await self.delivery.first_answer(stored)
        if first is None:
            raise InProgressError
        is_pending = decision.status == "pending" and first == decision.part("answer")
        evidence = "stored" if spooled is None else "spooled"
        return PredictReply(first, is_replay=True, is_pending=is_pending, evidence=evidence)

    def _batcher(self, served: ServedModel) -> Batcher:
        batcher = self._batchers.get(served)
        if batcher is None:
            batcher = self._batchers[served] = Batcher(served, self.executor, self.evidence)
        return batcher

    def _after_commit(self) -> None:
        """Flush what gathered during the commit; let go of versions that serve no more."""
        for served, batcher in list(self._batchers.items()):
            batcher.schedule()
            if batcher.is_idle and not self.models.is_answering(served):
                del self._batchers[served]

    def close(self) -> None:
        """Stop the threads; called when no request is in flight any more."""
        self.rollouts.close()
        self.executor.shutdown(wait=True)


def _unstored(
    served: ServedModel, prepared: Prepared, outcome: AppendOutcome, timings: tuple[float, ...]
) -> PredictReply:
    is_pending = outcome is AppendOutcome.SPOOLED and prepared.plan.lane == "queued"
    answer = unstored_answer(served, prepared, outcome)
    return PredictReply(
        answer, is_replay=False, timings=timings, is_pending=is_pending, evidence=outcome.value
    )


def _is_wanted(decision: StoredDecision) -> bool:
    """By the policy when it was predicted."""
    return "policy" in decision.parts and bool(orjson.loads(decision.part("policy"))["wants"])
