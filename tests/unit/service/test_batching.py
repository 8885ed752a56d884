"""Batches: what arrives in one tick is computed together, and fails apart."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pytest
from asks import ask_of

from explainers.base import Explanation, FloatArray, IntArray
from schemas import Answer
from service.batching import FULL_BATCH, QUIET_TURNS, Batcher, Waiting
from service.errors import OverloadedError, PredictionError
from service.evidence import EvidenceLog, StoreUnavailableError
from service.metrics import Metrics
from service.models.base import Served
from service.planning import INLINE, NOTHING
from service.preparing import Ask, Prepared, run
from service.registry import Registry
from service.served import ServedModel


@dataclass
class CountingModel:
    """The real model, which remembers how many rows each call had."""

    inner: Any
    calls: list[int] = field(default_factory=list)
    poison: float | None = None
    served_to_poison: float | None = None
    """None: it fails."""

    broken: Literal["outputs", "scores"] = "scores"

    def predict(self, X: FloatArray) -> Served:
        self.calls.append(len(X))
        poisoned = X[:, 0] == self.poison
        if self.served_to_poison is None and poisoned.any():
            raise RuntimeError("a native library failed")
        served: Served = self.inner.predict(X)
        if poisoned.any():
            numbers = getattr(served, self.broken).copy()
            numbers[poisoned, -1] = self.served_to_poison
            return replace(served, **{self.broken: numbers})
        return served


@dataclass
class BrokenExplainer:
    """The real explainer until a row comes that it cannot take, or a factor that makes it lie."""

    inner: Any
    poison: float | None = None
    factor: float = 1.0
    order: Literal["C", "F"] = "C"
    unwritable: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def explain(self, X: FloatArray, *, seeds: IntArray | None = None) -> Explanation:
        if self.poison is not None and np.any(X[:, 0] == self.poison):
            raise RuntimeError("an explainer failed")
        explanation: Explanation = self.inner.explain(X, seeds=seeds)
        values = np.array(explanation.values * self.factor, order=self.order)
        count: Any = {0} if self.unwritable else 0
        return replace(explanation, values=values, model_evaluations=count)


@pytest.fixture(scope="module")
def served(demo_registry: Path) -> ServedModel:
    model = Registry(demo_registry).serving("breast_cancer")
    return ServedModel.of(model, Metrics(), retention_days=1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def with_parts(served: ServedModel, **parts: Any) -> ServedModel:
    return replace(served, model=replace(served.model, **parts))


def ask(served: ServedModel, *, first: float = 14.0, explain: bool = True, rows: int = 1) -> Ask:
    instance = {**served.model.sample, "mean radius": first}
    body = orjson.dumps({"instances": [instance] * rows})
    decoded = served.model.codec.decode(body, max_instances=1000)
    return ask_of(
        served,
        decoded,
        INLINE if explain else NOTHING,
        request_id=f"request-{first}-{explain}-{rows}",
        explain=explain,
        top=3,
    )


def answer_of(result: Prepared | PredictionError) -> Answer:
    assert isinstance(result, Prepared)
    return Answer.model_validate_json(result.answer)


def test_a_row_gets_the_same_bytes_alone_and_among_others(served: ServedModel) -> None:
    asks = [ask(served, first=10 + i, explain=i % 3 != 0) for i in range(20)]
    together = run(served, asks)
    for one, result in zip(asks, together, strict=True):
        alone, shared = answer_of(run(served, [one])[0]), answer_of(result)
        assert alone.predictions == shared.predictions
        assert (alone.explanation is None) == (not one.explain)
        if alone.explanation is not None and shared.explanation is not None:
            assert alone.explanation.values == shared.explanation.values
            assert alone.explanation.top == shared.explanation.top


def test_one_bad_row_fails_only_its_own_request(served: ServedModel) -> None:
    broken = with_parts(served, native=CountingModel(served.model.native, poison=66.0))
    results = run(broken, [ask(served, first=v) for v in (12.0, 66.0, 13.0)])
    assert [isinstance(result, PredictionError) for result in results] == [False, True, False]


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("broken", ["outputs", "scores"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_never_answered(
    served: ServedModel, number: float, broken: Literal["outputs", "scores"], *, explain: bool
) -> None:
    native = CountingModel(served.model.native, poison=66.0, served_to_poison=number, broken=broken)
    asks = [ask(served, first=v, explain=explain) for v in (12.0, 66.0, 13.0)]
    results = run(with_parts(served, native=native), asks)
    assert [isinstance(result, PredictionError) for result in results] == [False, True, False]


def test_a_failing_explainer_leaves_predictions_and_other_explanations(served: ServedModel) -> None:
    explainer = BrokenExplainer(served.model.explainer, poison=66.0)
    broken = with_parts(served, explainer=explainer)
    results = run(broken, [ask(served, first=v) for v in (12.0, 66.0)])
    first, second = (answer_of(result).explanation for result in results)
    assert first is not None
    assert first.status == "complete"
    assert second is not None
    assert second.status == "failed"
    assert second.reason == "the explainer failed (RuntimeError)"
    honest = answer_of(run(served, [ask(served, first=66.0)])[0])
    assert answer_of(results[1]).predictions == honest.predictions


def test_an_explanation_that_cannot_be_written_leaves_the_prediction(served: ServedModel) -> None:
    explainer = BrokenExplainer(served.model.explainer, unwritable=True)
    answer = answer_of(run(with_parts(served, explainer=explainer), [ask(served)])[0])
    assert answer.explanation is not None
    assert answer.explanation.status == "failed"
    assert answer.predictions == answer_of(run(served, [ask(served)])[0]).predictions


def test_any_memory_layout_of_values_is_written(served: ServedModel) -> None:
    explainer = BrokenExplainer(served.model.explainer, order="F")
    explanation = answer_of(
        run(with_parts(served, explainer=explainer), [ask(served, rows=3)])[0]
    ).explanation
    assert explanation is not None
    assert explanation.status == "complete"


@pytest.mark.parametrize("factor", [0.95, 0.0, float("nan")])
def test_wrong_sums_are_never_answered(served: ServedModel, factor: float) -> None:
    broken = with_parts(served, explainer=BrokenExplainer(served.model.explainer, factor=factor))
    explanation = answer_of(run(broken, [ask(served)])[0]).explanation
    assert explanation is not None
    assert explanation.status == "failed"
    assert explanation.values is None


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EvidenceLog]:
    evidence = await EvidenceLog.open(f"sqlite:///{tmp_path}/evidence.db")
    yield evidence
    await evidence.close()


@pytest.fixture
def counting(served: ServedModel) -> CountingModel:
    return CountingModel(served.model.native)


@pytest.fixture
async def batcher(
    served: ServedModel, counting: CountingModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> Batcher:
    batcher = Batcher(with_parts(served, native=counting), pool, log)
    log.call_when_idle(batcher.schedule)
    return batcher


async def answers_of(waiting: list[Waiting]) -> list[Answer]:
    await asyncio.gather(*(one.outcome for one in waiting))
    return [answer_of(one.prepared) for one in waiting if one.prepared is not None]


async def test_requests_of_one_tick_share_one_model_call(
    served: ServedModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> None:
    counting = CountingModel(served.model.native)
    batcher = Batcher(with_parts(served, native=counting), pool, log)
    await answers_of([batcher.submit(ask(served, first=10.0 + i)) for i in range(5)])
    assert counting.calls == [5]


async def test_requests_of_following_turns_join_the_batch(
    served: ServedModel, counting: CountingModel, batcher: Batcher
) -> None:
    waiting = [batcher.submit(ask(served, first=10.0 + i)) for i in range(2)]
    for turns in (1, QUIET_TURNS):
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.append(batcher.submit(ask(served, first=20.0 + turns)))
    await answers_of(waiting)
    assert counting.calls == [4]


async def test_nobody_waits_once_no_other_is_on_its_way(
    served: ServedModel, counting: CountingModel, batcher: Batcher
) -> None:
    await answers_of([batcher.submit(ask(served, first=10.0 + i)) for i in range(2)])
    last = batcher.submit(ask(served, first=20.0))
    for _ in range(QUIET_TURNS + 1):
        assert counting.calls == [2]
        await asyncio.sleep(0)
    assert counting.calls == [2, 1]
    full = [batcher.submit(ask(served, first=30.0 + i)) for i in range(FULL_BATCH)]
    await answers_of([last])
    batcher.schedule()
    await asyncio.sleep(0)
    assert counting.calls == [2, 1, FULL_BATCH]
    await answers_of(full)


async def test_a_batch_grows_while_a_commit_runs_and_none_is_forgotten(
    served: ServedModel, counting: CountingModel, batcher: Batcher, log: EvidenceLog
) -> None:
    first = batcher.submit(ask(served, first=9.0))
    await asyncio.sleep(0)
    assert log.backlog()
    others = []
    for i in range(6):
        others.append(batcher.submit(ask(served, first=10.0 + i)))
        await asyncio.sleep(0)
    assert len(await answers_of([first, *others])) == 7
    assert sum(counting.calls) == 7
    assert batcher.is_idle


async def test_costly_work_leaves_the_loop_and_batches_while_threads_are_busy(
    served: ServedModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> None:
    cost = served.model.manifest.cost.model_copy(update={"explain_row_in_batch": 0.002})
    manifest = served.model.manifest.model_copy(update={"cost": cost})
    counting = CountingModel(served.model.native)
    batcher = Batcher(with_parts(served, native=counting, manifest=manifest), pool, log)
    log.call_when_idle(batcher.schedule)
    waiting = [batcher.submit(ask(served, first=10.0 + i, rows=300)) for i in range(6)]
    assert all(answer.explanation for answer in await answers_of(waiting))
    assert sum(counting.calls) == 1800
    assert max(counting.calls) <= 512


async def test_more_work_than_can_be_answered_in_time_is_refused(
    served: ServedModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> None:
    cost = served.model.manifest.cost.model_copy(update={"predict_row_in_batch": 0.01})
    manifest = served.model.manifest.model_copy(update={"cost": cost})
    batcher = Batcher(with_parts(served, manifest=manifest), pool, log)
    log.call_when_idle(batcher.schedule)
    waiting = [batcher.submit(ask(served, first=10.0, explain=False, rows=90))]
    assert not batcher.is_overloaded
    waiting += [batcher.submit(ask(served, first=11.0 + i, explain=False, rows=90)) for i in (0, 1)]
    assert batcher.is_overloaded
    waiting += [batcher.submit(ask(served, first=13.0 + i, rows=90)) for i in range(3)]
    with pytest.raises(OverloadedError):
        batcher.submit(ask(served, first=17.0))
    await answers_of(waiting)
    assert not batcher.is_overloaded
    await answers_of([batcher.submit(ask(served, first=18.0))])


async def test_a_client_that_went_away_does_not_disturb_the_batch(
    served: ServedModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> None:
    batcher = Batcher(served, pool, log)
    gone, stays = batcher.submit(ask(served, first=11.0)), batcher.submit(ask(served, first=12.0))
    gone.outcome.cancel()
    (answer,) = await answers_of([stays])
    assert answer.predictions


async def test_a_closed_log_fails_the_whole_batch(
    served: ServedModel, pool: ThreadPoolExecutor, log: EvidenceLog
) -> None:
    await log.close()
    waiting = Batcher(served, pool, log).submit(ask(served))
    with pytest.raises(StoreUnavailableError):
        await waiting.outcome
