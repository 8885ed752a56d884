"""Every call of the model is told of while it is explained, whatever the method."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from called_models import naming_of, network

from explainers.base import Background, FloatArray
from explainers.sampled.calls import ModelCalls, telling_of_calls
from explainers.sampled.choose import CalledMethod, build_by_method
from explainers.sampled.gradients import integrate_gradients
from explainers.sampled.local_model import explain_locally
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

ROWS = np.random.default_rng(0).normal(size=(9, 4))
BACKGROUND, ROW = Background.of(ROWS[:8]), ROWS[8:]


def told(work: Callable[[], object]) -> int:
    heard: list[None] = []
    with telling_of_calls(lambda: heard.append(None)):
        work()
    before = len(heard)
    work()
    assert len(heard) == before
    return before


@pytest.mark.parametrize("method", ["permutation", "exact", "kernel"])
def test_values_tell_of_every_call(method: CalledMethod) -> None:
    explainer = build_by_method(method, network(4), BACKGROUND, naming=naming_of(4), tolerance=1e-9)
    rows = explainer.explain(ROW).model_evaluations
    assert rows
    assert told(lambda: explainer.explain(ROW)) == rows // 1024 > 0


@pytest.mark.parametrize("method", ["permutation", "exact"])
def test_pairs_tell_of_every_call(method: CalledMethod) -> None:
    explainer = build_by_method(method, network(4), BACKGROUND, naming=naming_of(4), tolerance=1e-9)
    assert told(lambda: explainer.interactions(ROW)) > 0


def test_what_is_no_shapley_value_tells_too() -> None:
    model, naming = network(4), naming_of(4)
    assert told(lambda: explain_locally(model, BACKGROUND, ROW, naming=naming)) >= 5

    def gradient(X: FloatArray) -> FloatArray:
        return np.ones((*X.shape, 1))

    assert (
        told(lambda: integrate_gradients(model, gradient, ROW, baseline=ROWS[0], naming=naming))
        == 1
    )


def test_a_call_that_fails_is_not_told_of() -> None:
    def failing(_: FloatArray) -> FloatArray:
        raise ZeroDivisionError

    heard: list[None] = []
    with telling_of_calls(lambda: heard.append(None)), pytest.raises(ZeroDivisionError):
        ModelCalls(failing, 1, 8)(ROWS)
    assert not heard


def test_sampling_keeps_the_outputs_of_one_pass_at_a_time() -> None:
    """100,000 model rows of 200 outputs would be 160 MB."""
    rng = np.random.default_rng(0)
    explainer = PermutationExplainer(
        network(4, 200),
        Background.of(rng.normal(size=(50, 4))),
        naming=naming_of(4, 200),
        tolerance=1e-9,
        config=PermutationConfig(target=0.0, budget_rows=100_000),
    )
    tracemalloc.start()
    try:
        assert explainer.explain(ROW).model_evaluations > 60_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("size", [1, 3, 8, 12, 24])
def test_parts_are_those_of_the_same_calls(size: int) -> None:
    rows, shapes = np.arange(48.0).reshape(24, 2), []

    def model(X: FloatArray) -> FloatArray:
        shapes.append(X.shape)
        return np.where(X[:, :1] == 4, np.inf, X[:, :1])

    calls = ModelCalls(model, 1, 5)
    parts = [part.copy() for part in calls.in_parts(24, lambda i, j: rows[i:j], size)]
    assert {part.shape for part in parts} == {(size, 1)}
    np.testing.assert_array_equal(np.concatenate(parts), calls(rows))
    assert np.isnan(parts[2 // size][2 % size])
    assert shapes == [(5, 2)] * 10
    assert calls(rows[:0]).shape == (0, 1)
