"""Requests that arrive together, within a few turns of the event loop, are answered together."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

from service.errors import OverloadedError, PredictionError
from service.evidence import Answer, EvidenceLog
from service.preparing import Ask, Prepared, run
from service.served import ServedModel

LOOP_BUDGET_SECONDS = 0.002
"""Work above this leaves the event loop for a thread; the kernels release the GIL."""

MOST_ROWS = 512
MOST_THREADS = 2
MOST_OWED_SECONDS = 5.0
"""Of waiting work, by its calibrated cost: more is refused, as it would be answered too late."""

SHED_SECONDS = 1.0
"""Of waiting work: from there on explanations are left out, so that predictions go on."""

ENOUGH_REQUESTS = 64
"""As many waiting requests do not wait for a running commit to end."""

FULL_BATCH = 32
"""As many waiting requests do not wait for others: a larger batch saves little."""

QUIET_TURNS = 2
"""Turns of the loop without a new request after which none is on its way: one reads it from its
socket, the next one validates it.
"""


@dataclass(slots=True, eq=False)
class Waiting:
    """A request between its tick and its commit; prepared is there once computed.

    leads: it is the first of its batch, the example for all of them.
    """

    ask: Ask
    outcome: Answer
    seconds: float
    """What it costs in a batch."""

    prepared: Prepared | None = None
    computed: float = 0.0
    leads: bool = False


@dataclass(slots=True, eq=False)
class Gathering:
    """Whether more requests are on their way into the next batch. Clients that have just been
    answered ask again within a few turns of the loop; without them half of all clients would be
    computed while the records of the other half are committed, in batches of half the size.
    """

    n_before: int = 0
    """Requests of the batch before."""

    n_seen: int = 0
    quiet_turns: int = 0

    def expects_more(self, n_waiting: int) -> bool:
        """Asked once a turn, of how many wait; a lone client never waits for company."""
        is_alone = n_waiting == 1 and self.n_before <= 1
        if is_alone or n_waiting >= FULL_BATCH:
            return False
        self.quiet_turns = 0 if n_waiting > self.n_seen else self.quiet_turns + 1
        self.n_seen = n_waiting
        return self.quiet_turns < QUIET_TURNS

    def end(self, n_taken: int) -> None:
        """A batch of so many was taken."""
        self.n_before, self.n_seen = n_taken, 0


@dataclass(slots=True, eq=False)
class Batcher:
    """The pending requests of one served version."""

    served: ServedModel
    executor: ThreadPoolExecutor
    evidence: EvidenceLog
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    waiting: list[Waiting] = field(default_factory=list)
    gathering: Gathering = field(default_factory=Gathering)
    threads: int = 0
    scheduled: bool = False
    owed_seconds: float = 0.0
    """What the waiting requests will take, were they alone."""

    @property
    def is_overloaded(self) -> bool:
        """No explanation should be computed here for now."""
        return self.owed_seconds > SHED_SECONDS

    def submit(self, ask: Ask) -> Waiting:
        """Queue a request for the flush of this tick; its outcome says when it is durable.

        Raises OverloadedError while what waits would take too long.
        """
        if self.owed_seconds > MOST_OWED_SECONDS:
            raise OverloadedError
        waiting = Waiting(ask, self.loop.create_future(), self._cost(ask))
        self.owed_seconds += waiting.seconds
        self.waiting.append(waiting)
        self.schedule()
        return waiting

    @property
    def is_idle(self) -> bool:
        """Nothing waits or runs."""
        return not self.waiting and not self.threads

    def schedule(self) -> None:
        """Flush in the next turn of the loop, once for all requests of this one."""
        if self.waiting and not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.scheduled = False
        if (
            len(self.waiting) < ENOUGH_REQUESTS
            and self.evidence.backlog()
            and not self.evidence.is_slow
        ):
            return  # the end of the running commit flushes: until then the batch grows
        if self.gathering.expects_more(len(self.waiting)):
            self.schedule()
            return
        while self.waiting:
            batch = self._next_batch()
            if self._seconds(batch) <= LOOP_BUDGET_SECONDS:
                self._take(batch)
                self._store(batch, run(self.served, [w.ask for w in batch]))
            elif self.threads < MOST_THREADS:
                self._take(batch)
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

    def _take(self, batch: Sequence[Waiting]) -> None:
        del self.waiting[: len(batch)]
        self.gathering.end(len(batch))
        owed = self.owed_seconds - sum(waiting.seconds for waiting in batch)
        self.owed_seconds = owed if self.waiting else 0.0

    def _seconds(self, batch: Sequence[Waiting]) -> float:
        alone = self.served.model.manifest.cost.predict_row
        return alone + sum(waiting.seconds for waiting in batch)

    def _cost(self, ask: Ask) -> float:
        """Seconds of a request in a batch."""
        cost, rows = self.served.model.manifest.cost, len(ask.body.rows)
        explaining = cost.explain_row_in_batch if ask.is_inline else 0.0
        return rows * (cost.predict_row_in_batch + explaining)

    def _start_thread(self, batch: list[Waiting]) -> None:
        self.threads += 1
        asks = [waiting.ask for waiting in batch]
        work = self.loop.run_in_executor(self.executor, run, self.served, asks)
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
            if events and self.served.is_best_effort:
                self.evidence.submit_best_effort(events)
            elif events:
                self.evidence.submit(events)
        except Exception as error:  # noqa: BLE001 - nobody but these requests can be told
            for waiting in batch:
                _fail(waiting, error)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.outcome.done():  # the client may have gone away
        waiting.outcome.set_exception(error)
