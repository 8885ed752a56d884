from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.planning import INLINE, LEFT_OUT, QUEUED, SHED, Plan, plan_explanation
from service.registry import RegisteredModel, Registry


@pytest.fixture(scope="module")
def model(demo_registry: Path) -> RegisteredModel:
    return Registry(demo_registry).serving("breast_cancer")


def with_cost(model: RegisteredModel, **cost: float) -> RegisteredModel:
    manifest = model.manifest
    return replace(
        model, manifest=manifest.model_copy(update={"cost": manifest.cost.model_copy(update=cost)})
    )


def plan(
    model: RegisteredModel, rows: int = 1, *, full: bool = False, overloaded: bool = False
) -> Plan:
    return plan_explanation(
        model,
        rows,
        inline_budget_seconds=0.1,
        queue_is_full=full,
        is_overloaded=overloaded,
    )


def test_what_is_exact_and_cheap_is_computed_before_the_answer(model: RegisteredModel) -> None:
    assert plan(model) == INLINE
    assert plan(model, full=True) == INLINE


def test_rows_cost_what_they_cost_in_a_batch(model: RegisteredModel) -> None:
    costly = with_cost(model, explain_row=0.02, explain_row_in_batch=0.001)
    assert plan(costly, 1) == plan(costly, 100) == INLINE
    assert plan(costly, 101) == QUEUED
    assert plan(with_cost(model, explain_row=0.11), 1) == QUEUED


def test_a_full_queue_sheds_the_explanation_and_counts_it_as_wanted(model: RegisteredModel) -> None:
    costly = with_cost(model, explain_row=9.0)
    assert plan(costly, full=True) == SHED
    assert SHED.lane is None
    assert SHED.counted_in == "queued"


def test_too_many_predictions_that_wait_shed_the_explanation(model: RegisteredModel) -> None:
    assert plan(model, overloaded=True) == LEFT_OUT
    assert (LEFT_OUT.lane, LEFT_OUT.counted_in) == (None, "inline")
    assert plan(with_cost(model, explain_row=9.0), overloaded=True) == QUEUED


class Sampler:
    """Stands for an explainer that calls the model, however cheap."""

    engine = "sampler"

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_what_calls_the_model_is_queued_however_cheap(model: RegisteredModel) -> None:
    assert plan(replace(model, explainer=Sampler(model.explainer))) == QUEUED  # type: ignore[arg-type]


def test_without_an_explainer_the_reason_is_said(model: RegisteredModel) -> None:
    found = plan(replace(model, explainer=None))
    assert found.lane is None
    assert found.counted_in == "inline"
    assert "no explainer" in (found.refusal or "")
