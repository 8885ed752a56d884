"""Candidates beside the serving version: who answers, what is counted, and the way back."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import TypeVar

from service.accesses import Access
from service.auth import DEFAULT_TENANT
from service.counting import FALLS_BACK
from service.errors import CommandError, PredictionError
from service.evidence import AppendOutcome, EvidenceError, EvidenceLog, ShadowEvent
from service.keyed_hash import keyed_hash
from service.logs import log, place_of
from service.metrics import TRIED_OUTCOMES, Metrics
from service.planning import INLINE, NOTHING
from service.preparing import Ask, Prepared, run
from service.registry.rollouts import end_rollout
from service.secrets import Keyring
from service.served import ServedModel, Tried
from service.serving import ServedModels

ROLLOUT_KEYS = "rollout"
"""Purpose of the keys by which requests are drawn."""

MOST_WAITING = 64
"""Requests that wait for a shadow; more are dropped."""

SHADOWED_AT_ONCE = 32
SHADOWED_ROWS = 512
"""Of the requests of one batch together, unless one alone has more."""

PAUSE_SECONDS = 0.2
"""Before each batch, which is one commit: a request that comes while one runs waits for its end."""

DUTY = 0.25
"""Share of a processor a shadow takes at most, by its thread's CPU time."""

Reply = TypeVar("Reply")


@dataclass(slots=True, eq=False)
class Rollouts:
    """Shared by all requests; one per process, on its event loop."""

    models: ServedModels
    evidence: EvidenceLog
    keyring: Keyring
    metrics: Metrics
    _shadows: dict[str, "Shadow"] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="shadow")
    )

    def chosen(self, served: ServedModel, tenant: str, request_id: str) -> ServedModel:
        """The version that answers a request: the same for the same ID, and more of the same where
        the share is raised.
        """
        tried = served.tried
        if tried is None or tried.rollout.mode != "canary":
            return served
        return tried.candidate if self._is_drawn(tried, tenant, request_id) else served

    def _is_drawn(self, tried: Tried, tenant: str, request_id: str) -> bool:
        model = tried.candidate.model
        key = self.keyring.key(tenant, ROLLOUT_KEYS)
        code = keyed_hash(key, f"{model.name}/{model.version}/{request_id}".encode())
        return (int.from_bytes(code[:8]) >> 11) / 2**53 < tried.rollout.share

    async def answer(
        self,
        served: ServedModel,
        chosen: ServedModel,
        ask: Callable[[ServedModel], Awaitable[Reply]],
    ) -> Reply:
        """The chosen version's answer; where a candidate cannot predict, or not in time, the
        serving version's: its failure is counted, and no client's.
        """
        tried = served.tried
        try:
            return await ask(chosen)
        except FALLS_BACK:
            if tried is None:
                raise
            self._failed(served, tried, is_candidate=chosen is not served)
            if chosen is served:
                raise
        return await ask(served)

    def _failed(self, served: ServedModel, tried: Tried, *, is_candidate: bool) -> None:
        arm = tried.trial.candidate if is_candidate else tried.trial.serving
        arm.failed()
        self._count(served, "canary" if is_candidate else "serving", "error")
        self._judge(served, tried)

    def answered(
        self,
        served: ServedModel,
        ask: Ask,
        prepared: Prepared,
        seconds: float,
        outcome: AppendOutcome,
    ) -> None:
        """Count an answer of either version during a rollout; offer it to a shadow if it is stored:
        what was computed beside a decision that is kept nowhere would be about no record.
        """
        tried, status = served.tried, prepared.event.status
        if tried is None:
            return
        is_candidate = tried.candidate.model is served.model
        arm = tried.trial.candidate if is_candidate else tried.trial.serving
        arm.answered(seconds, status, is_wanted=prepared.plan.counted_in is not None)
        role = "canary" if is_candidate else "serving"
        self._count(served, role, "failed" if status == "failed" else "ok")
        if is_candidate:
            self._judge(served, tried)
        elif tried.rollout.mode == "shadow" and outcome is AppendOutcome.STORED:
            self._offer(tried, ask)

    def _count(self, served: ServedModel, role: str, outcome: str) -> None:
        self.metrics.tried.labels(served.model.name, role, outcome).inc()

    def _offer(self, tried: Tried, ask: Ask) -> None:
        if not self._is_drawn(tried, ask.caller.tenant, ask.request_id):
            return
        name = tried.candidate.model.name
        shadow = self._shadows.get(name)
        if shadow is None or shadow.tried is not tried:
            shadow = Shadow(tried, self.evidence, self.metrics, self._executor)
            self._shadows[name] = shadow
        if shadow.takes(ask):
            self._later(shadow.work())

    def _judge(self, served: ServedModel, tried: Tried) -> None:
        if tried.rollout.mode != "canary":
            return
        reason = tried.trial.breach()
        if reason is not None:
            self._later(self._roll_back(served.model.name, tried, reason))

    async def _roll_back(self, name: str, tried: Tried, reason: str) -> None:
        """Here at once, then in the registry for all replicas, and into the access log."""
        rollout = tried.rollout
        self.models.abandon(name, rollout)
        self.metrics.rollbacks.labels(name).inc()
        log.warning("rolled_back", model=name, version=rollout.version, reason=reason)
        layout = self.models.registry.layout
        try:
            await asyncio.to_thread(
                end_rollout, layout, name, f"rolled back: {reason}", begun_at=rollout.started_at
            )
        except (CommandError, OSError) as error:
            log.error("rollback_not_registered", model=name, reason=str(error))
        facts = {"model": name, "version": rollout.version, "reason": reason}
        access = Access(
            kind="rollback", tenant=DEFAULT_TENANT, principal="service:rollout", facts=facts
        )
        try:
            await self.evidence.append_access(access.row())
        except EvidenceError as error:
            log.error("rollback_not_stored", model=name, reason=str(error))

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Drop what no shadow has computed yet."""
        for task in self._tasks:
            task.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True, eq=False)
class Shadow:
    """A candidate that predicts and explains what was answered without it, in a thread, a part of
    the time; what it cannot keep up with is dropped and counted.
    """

    tried: Tried
    evidence: EvidenceLog
    metrics: Metrics
    executor: ThreadPoolExecutor
    waiting: deque[Ask] = field(default_factory=deque)
    is_working: bool = False

    def takes(self, ask: Ask) -> bool:
        """Keep a request for later; True where somebody must begin to work."""
        if len(self.waiting) >= MOST_WAITING or self.evidence.is_slow:
            self._count("dropped")
            return False
        self.waiting.append(ask)
        begins, self.is_working = not self.is_working, True
        return begins

    async def work(self) -> None:
        """Until nothing waits."""
        try:
            while self.waiting:
                await asyncio.sleep(PAUSE_SECONDS)
                asks = self._taken()
                cpu_seconds = await self._compute(asks)
                await asyncio.sleep(cpu_seconds * (1 / DUTY - 1))
        finally:
            self.is_working = False

    def _taken(self) -> list[Ask]:
        """The next to compute: one, and more as far as their rows are few."""
        taken = [self._own(self.waiting.popleft())]
        n_rows = len(taken[0].body.rows)
        while self.waiting and len(taken) < SHADOWED_AT_ONCE:
            n_rows += len(self.waiting[0].body.rows)
            if n_rows > SHADOWED_ROWS:
                break
            taken.append(self._own(self.waiting.popleft()))
        return taken

    def _own(self, ask: Ask) -> Ask:
        """What the candidate is asked: no worker is bothered for it."""
        can_explain = self.tried.candidate.model.runs_inline and ask.explain
        plan = INLINE if can_explain else NOTHING
        return ask._replace(plan=plan, explain=can_explain, answer_by=None)

    async def _compute(self, asks: Sequence[Ask]) -> float:
        """The thread's CPU seconds."""
        loop, candidate = asyncio.get_running_loop(), self.tried.candidate
        cpu_seconds = 0.0
        try:
            started = perf_counter()
            timed = loop.run_in_executor(self.executor, _run_timed, candidate, asks)
            found, cpu_seconds = await timed
            seconds = (perf_counter() - started) / len(asks)
            kept = [
                self._counted(ask, prepared, seconds)
                for ask, prepared in zip(asks, found, strict=True)
            ]
            appends = [self.evidence.append(event) for event in kept if event is not None]
            for outcome in await asyncio.gather(*appends, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    self._count("dropped")
        except Exception as error:  # noqa: BLE001 - no failure of a shadow is anybody else's
            log.error("shadow_failed", model=candidate.model.name, place=place_of(error))
            self._count("error")
        return cpu_seconds

    def _counted(
        self, ask: Ask, prepared: Prepared | PredictionError, seconds: float
    ) -> ShadowEvent | None:
        """What is to be stored of it."""
        arm, metrics = self.tried.trial.candidate, self.tried.candidate.metrics
        if isinstance(prepared, PredictionError):
            arm.failed()
            self._count("error")
            return None
        status = prepared.event.status
        is_failed = status == "failed"
        arm.answered(seconds, status, is_wanted=prepared.plan.counted_in is not None)
        self._count("failed" if is_failed else "ok")
        if ask.explain:
            metrics.wanted["inline"].inc()
            metrics.explanations["inline", "failed" if is_failed else "stored"].inc()
            metrics.duration["inline"].observe(seconds)
        return ShadowEvent.of(prepared.event)

    def _count(self, outcome: str) -> None:
        assert outcome in TRIED_OUTCOMES
        self.metrics.tried.labels(self.tried.candidate.model.name, "shadow", outcome).inc()


def _run_timed(
    candidate: ServedModel, asks: Sequence[Ask]
) -> tuple[list[Prepared | PredictionError], float]:
    started = thread_time()
    found = run(candidate, asks)
    return found, thread_time() - started
