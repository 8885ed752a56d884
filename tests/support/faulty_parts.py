"""Parts of the running service that are slow or fail, put in through `create_app(customise=)`."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from explainers.base import Explainer, Explanation, FloatArray, IntArray
from service.evidence import (
    Answer,
    AppendOutcome,
    DecisionEvent,
    Event,
    EvidenceLog,
    Record,
    StoredDecision,
    StoreUnavailableError,
)
from service.models.base import NativeModel, Served
from service.runtime import Runtime

Events = Sequence[tuple[DecisionEvent, Answer]]
Customise = Callable[[Runtime], None]


class SlowLog:
    """An evidence log that waits before it appends."""

    def __init__(self, log: EvidenceLog, before: Callable[[], Awaitable[None]]) -> None:
        self._log = log
        self._before = before
        self._tasks: list[asyncio.Task[None]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def submit(self, events: Events) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._submit_later(events)))

    async def _submit_later(self, events: Events) -> None:
        await self._before()
        self._log.submit(events)


def lag(seconds: float) -> Customise:
    """Every append takes this much longer."""

    def customise(runtime: Runtime) -> None:
        slow = SlowLog(runtime.evidence, lambda: asyncio.sleep(seconds))
        runtime.predicting.evidence = slow  # type: ignore[assignment]

    return customise


@dataclass
class Gate:
    """Holds appends back until it is opened."""

    waiting: int = 0
    _is_open: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        self._is_open.set()

    def before_append(self, runtime: Runtime) -> None:
        runtime.predicting.evidence = SlowLog(runtime.evidence, self._pass)  # type: ignore[assignment]

    async def _pass(self) -> None:
        self.waiting += 1
        await asyncio.to_thread(self._is_open.wait)
        self.waiting -= 1


@dataclass(frozen=True)
class OddExplainer:
    """The real explainer but for what `explain` gives or raises."""

    real: Explainer
    change: Callable[[Explanation], Explanation]

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        return self.change(self.real.explain(X, seeds=seeds))


def five_percent_off(explanation: Explanation) -> Explanation:
    return replace(explanation, values=explanation.values * 1.05)


def not_finite(explanation: Explanation) -> Explanation:
    return replace(explanation, values=np.full_like(explanation.values, np.nan))


def names_swapped(explanation: Explanation) -> Explanation:
    first, second, *others = explanation.feature_names
    return replace(explanation, feature_names=(second, first, *others))


def values_swapped(explanation: Explanation) -> Explanation:
    """The two strongest exchanged: adds up as before, so no check made at once can see it."""
    values = explanation.values.copy()
    order = np.argsort(np.abs(values[0, :, 0]))
    values[:, order[[-2, -1]]] = values[:, order[[-1, -2]]]
    return replace(explanation, values=values)


def unread_moves(explanation: Explanation) -> Explanation:
    """The weakest column, which the model never reads, and the strongest exchanged."""
    values = explanation.values.copy()
    order = np.argsort(np.abs(values[0, :, 0]), kind="stable")
    assert not values[:, order[0]].any()
    values[:, order[[0, -1]]] = values[:, order[[-1, 0]]]
    return replace(explanation, values=values)


def unwritable(explanation: Explanation) -> Explanation:
    """Right in every check, but of a type that no JSON encoder takes."""
    return replace(explanation, values=explanation.values.astype(np.longdouble))


def fails(_: Explanation) -> Explanation:
    raise MemoryError("no explanation today")


def with_explainer(change: Callable[[Explanation], Explanation] | None) -> Customise:
    """Serve every model with a changed explainer, or with none."""

    def customise(runtime: Runtime) -> None:
        served = runtime.models._served
        for name, old in served.items():
            assert old.model.explainer is not None
            odd = None if change is None else OddExplainer(old.model.explainer, change)
            model = replace(old.model, explainer=odd)  # type: ignore[arg-type]
            served[name] = replace(old, model=model)

    return customise


@dataclass(frozen=True)
class FragileModel:
    """The real model, which fails on any batch holding a row whose first column is 13."""

    real: NativeModel

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def predict(self, X: FloatArray) -> Served:
        if (X[:, 0] == 13.0).any():
            raise RuntimeError("PLANTED-7f3a")
        return self.real.predict(X)


@dataclass(frozen=True)
class OddScores:
    """The real model, whose probabilities are not those of its outputs."""

    real: NativeModel

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def predict(self, X: FloatArray) -> Served:
        served = self.real.predict(X)
        return Served(served.outputs, served.scores[:, ::-1])


def with_odd_scores(runtime: Runtime) -> None:
    served = runtime.models._served
    for name, old in served.items():
        model = replace(old.model, native=OddScores(old.model.native))  # type: ignore[arg-type]
        served[name] = replace(old, model=model)


def with_fragile_model(runtime: Runtime) -> None:
    served = runtime.models._served
    for name, old in served.items():
        fragile = FragileModel(old.model.native)
        model = replace(old.model, native=fragile)  # type: ignore[arg-type]
        served[name] = replace(old, model=model)


@dataclass(frozen=True)
class FailingModel:
    """The real model, which predicts nothing any more."""

    real: NativeModel

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def predict(self, X: FloatArray) -> Served:
        raise RuntimeError(f"no prediction of {len(X)} rows")


def break_candidate(runtime: Runtime, name: str, change: Callable[[object], object]) -> None:
    """Put another native model into the candidate that is tried."""
    served = runtime.models._served[name]
    assert served.tried is not None
    model = served.tried.candidate.model
    broken = replace(model, native=change(model.native))  # type: ignore[arg-type]
    tried = replace(served.tried, candidate=replace(served.tried.candidate, model=broken))
    object.__setattr__(tried.candidate, "tried", tried)
    runtime.models._served = {**runtime.models._served, name: replace(served, tried=tried)}


class BrokenLog:
    """An evidence log whose database is away while `is_away`."""

    def __init__(self, log: EvidenceLog) -> None:
        self._log = log
        self.is_away = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def submit(self, events: Events) -> None:
        self._check()
        self._log.submit(events)

    async def get(self, tenant: str, request_id: str) -> StoredDecision | None:
        self._check()
        return await self._log.get(tenant, request_id)

    async def record(self, tenant: str, request_id: str) -> Record | None:
        self._check()
        return await self._log.record(tenant, request_id)

    async def list(self, tenant: str, **options: object) -> object:
        self._check()
        return await self._log.list(tenant, **options)  # type: ignore[arg-type]

    async def is_writable(self) -> bool:
        return not self.is_away and await self._log.is_writable()

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("the disk /secret/path is full")


class LateLog(BrokenLog):
    """An evidence log that takes the records of predictions and, while `is_away`, no other."""

    def submit(self, events: Events) -> None:
        self._log.submit(events)

    async def append(self, event: Event) -> AppendOutcome:
        self._check()
        return await self._log.append(event)


class BuggyLog(BrokenLog):
    """An evidence log with a bug: it raises what nobody foresaw."""

    def _check(self) -> None:
        if self.is_away:
            raise ZeroDivisionError("PLANTED-7f3a")


def put_in(runtime: Runtime, log: BrokenLog) -> None:
    """Everybody uses this evidence log."""
    runtime.evidence = log  # type: ignore[assignment]
    for user in (runtime.predicting, runtime.watch, runtime.delivery):
        user.evidence = log  # type: ignore[assignment]


def put_bug_in_store(runtime: Runtime) -> None:
    put_in(runtime, BuggyLog(runtime.evidence))


def lose_later_events(runtime: Runtime) -> None:
    put_in(runtime, LateLog(runtime.evidence))


def break_store(runtime: Runtime) -> None:
    put_in(runtime, BrokenLog(runtime.evidence))
