"""A second engine's opinion of stored explanations, and what a worker makes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pytest
from families import FAMILIES

from explainers.base import Background, Explainer, Explanation, FloatArray
from service.canary import Check, Opinion, is_check, second_opinion
from service.compute import Finished
from service.explaining import explain_rows
from service.metrics import Metrics
from service.queue import Job
from service.registry import RegisteredModel, Registry
from service.registry.work import Options
from service.replaying import with_engine
from service.worker.canaries import CanaryAssignment
from service.worker.work import GivenUp

Served = tuple[RegisteredModel, FloatArray]
NAMES = {"cancer_xgboost": "walk", "piped_logistic": "sampler", "piped_linear": "sampler"}


@pytest.fixture(scope="module", params=[*NAMES, "walked"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A model of each kind of engine, and rows to explain."""
    name = "cancer_xgboost" if request.param == "walked" else request.param
    family = FAMILIES[name]()
    registry = Registry(tmp_path_factory.mktemp("canary"))
    options = Options(background_rows=30, **family.options)
    model = registry.register(name, family.model, family.X, family.y, options=options).model
    rows = model.codec.decode(
        orjson.dumps({"instances": [model.sample] * 2}), max_instances=2
    ).codes
    X = np.vstack([np.array(rows, np.float64), model.background.rows[:20]])
    return (with_engine(model, "walk") if request.param == "walked" else model), X


def check_of(model: RegisteredModel, X: FloatArray) -> Check:
    given = model.native.predict(X)
    explained = explain_rows(model, X, given)
    assert explained is not None
    assert explained.explanation is not None
    assert explained.reasons == (None,) * len(X)
    stored = {
        "fed": X,
        "values": explained.explanation.values,
        "base_values": explained.explanation.base_values,
        "outputs": given.outputs,
    }
    plain = orjson.loads(orjson.dumps(stored, option=orjson.OPT_SERIALIZE_NUMPY))
    return Check(model=model.name, version=1, digest=model.digest, **plain)


def test_a_second_engine_agrees(served: Served) -> None:
    model, X = served
    check = check_of(model, X)
    opinion = second_opinion(model, Check.from_bytes(check.to_bytes()))
    expected = "enumeration" if model.engine == "walk" else NAMES[model.name]
    assert opinion.engine == expected
    assert opinion.agrees, opinion
    assert opinion.gap < opinion.tolerance / 5
    assert is_check(check.to_bytes())


def swapped(check: Check) -> Check:
    """What adds up as before."""
    values = np.array(check.values)
    order = np.argsort(np.abs(values[0, :, 0]))
    values[0, order[[0, -1]]] = values[0, order[[-1, 0]]]
    return replace(check, values=values.tolist())


def shifted(check: Check) -> Check:
    """From one column to the next: a thousandth of the row's largest value."""
    values = np.array(check.values)
    amount = 1e-3 * np.abs(values[3]).max()
    values[3, 0] += amount
    values[3, 1] -= amount
    return replace(check, values=values.tolist())


@pytest.mark.parametrize("change", [swapped, shifted])
def test_values_that_add_up_and_are_wrong_are_found(
    served: Served, change: Callable[[Check], Check]
) -> None:
    model, X = served
    opinion = second_opinion(model, change(check_of(model, X)))
    assert not opinion.agrees, opinion


@dataclass(frozen=True)
class WrongWalk:
    """The real one, which gives each of the first two columns what is the other's."""

    real: Explainer

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def explain(self, X: FloatArray) -> Explanation:
        explained = self.real.explain(X)
        order = [1, 0, *range(2, X.shape[1])]
        return replace(explained, values=explained.values[:, order])

    def against(self, background: Background) -> "WrongWalk":
        return WrongWalk(self.real.against(background))


@pytest.mark.parametrize("served", ["walked"], indirect=True)
def test_a_walk_that_is_wrong_each_time_is_found_by_brute_force(served: Served) -> None:
    model, X = served
    wrong = WrongWalk(model.explainer)
    check = replace(check_of(model, X), values=wrong.explain(X).values.tolist())
    assert second_opinion(model, check_of(model, X)).agrees
    assert not second_opinion(replace(model, explainer=wrong), check).agrees


def test_another_background_is_found(served: Served) -> None:
    model, X = served
    rows = model.background.rows.copy()
    rows[:, :] = rows[0]
    other = replace(model, background=replace(model.background, rows=rows))
    if model.engine == "walk":
        assert model.explainer is not None
        other = replace(model, explainer=model.explainer.against(other.background))
    assert not second_opinion(other, check_of(model, X)).agrees


def test_what_is_no_number_disagrees() -> None:
    for gap in (np.nan, np.inf):
        opinion = Opinion.from_bytes(Opinion(gap, 1e-5, "walk").to_bytes())
        assert not opinion.agrees
    assert not Opinion(np.nan, 1e-5, "walk").agrees


JOB = Job(
    tenant="default",
    request_id="request-1",
    model="credit",
    version=1,
    digest="sha256:0",
    priority="low",
    received_us=0,
    kind="canary",
)


async def counted(ending: Any) -> dict[str, float]:
    metrics = Metrics()
    check = Check(
        model="credit", version=1, digest="", fed=[], values=[], base_values=[], outputs=[]
    )
    assignment = CanaryAssignment(JOB, "linear", check, metrics.bind)
    await assignment.store(ending)
    found = {
        sample.name + sample.labels.get("invariant", sample.labels.get("type", "")): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.value and sample.labels.get("model") == "credit" and "le" not in sample.labels
    }
    return {name.removeprefix("explain_"): value for name, value in found.items()}


async def test_the_gap_is_counted_and_a_failure_too() -> None:
    def ended(gap: float) -> Finished:
        return Finished(Opinion(gap, 1e-5, "walk").to_bytes(), 0.1, 0.1)

    fine = await counted(ended(2e-9))
    assert fine == {
        "canary_gap_ratio_count": 1,
        "canary_gap_ratio_sum": 2e-9,
        "cpu_seconds_total": 0.1,
    }
    wrong = await counted(ended(2e-2))
    assert wrong == {
        "canary_gap_ratio_count": 1,
        "canary_gap_ratio_sum": 2e-2,
        "invariant_failures_totalcanary": 1,
        "cpu_seconds_total": 0.1,
    }
    assert await counted(GivenUp("failed", "why")) == {"errors_totalCanaryGaveUp": 1}
