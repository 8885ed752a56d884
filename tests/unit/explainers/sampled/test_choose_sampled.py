import numpy as np
import pytest
from called_models import naming_of, network

from explainers.base import Background, FloatArray, UnsupportedModelError
from explainers.sampled.choose import (
    SAMPLING_SECONDS,
    CalledMethod,
    affordable,
    build_by_method,
    choose_method,
)
from explainers.sampled.permutation import PermutationConfig

CONFIG = PermutationConfig()


def rows(n_columns: int, n_rows: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=(n_rows, n_columns))


@pytest.mark.parametrize(
    ("n_columns", "microseconds", "method"),
    [
        (12, 24.0, "exact"),
        (12, 24.5, "permutation"),
        (13, 0.0, "permutation"),
        (10, 95.0, "exact"),
        (10, 100.0, "permutation"),
        (6, 1e6, "exact"),
        (7, 1e6, "permutation"),
    ],
)
def test_enumeration_where_it_is_affordable_or_cheaper_anyway(
    n_columns: int, microseconds: float, method: str
) -> None:
    seconds = microseconds / 1e6
    assert choose_method(n_columns, 100, seconds_per_row=seconds, config=CONFIG) == method


def test_a_slow_model_has_a_budget_of_seconds_but_never_less_than_the_first_size() -> None:
    first = CONFIG.stages(20, 100)[0].model_rows
    fast = affordable(CONFIG, 20, 100, seconds_per_row=1e-6)
    slow = affordable(CONFIG, 20, 100, seconds_per_row=1e-4)
    slowest = affordable(CONFIG, 20, 100, seconds_per_row=1.0)
    assert fast == CONFIG
    assert slow.budget_rows == round(SAMPLING_SECONDS / 1e-4) > first
    assert slowest.budget_rows == first
    assert [stage.model_rows for stage in slowest.stages(20, 100)] == [first]


def test_both_make_calls_of_the_configured_shape_and_budget() -> None:
    small = PermutationConfig(rows_per_call=64, budget_rows=30_000)
    for method in ("exact", "permutation"):
        explainer = build_by_method(
            method,
            network(8),
            Background.of(rows(8, 100)),
            naming=naming_of(8),
            tolerance=1e-9,
            config=small,
        )
        assert explainer.explain(np.ones((1, 8))).model_evaluations % 64 == 0
    with pytest.raises(UnsupportedModelError, match="30000 model rows allowed"):
        build_by_method(
            "permutation",
            network(40),
            Background.of(rows(40, 100)),
            naming=naming_of(40),
            tolerance=1e-9,
            config=small,
        )


@pytest.mark.parametrize(
    ("method", "engine"),
    [("exact", "enumeration"), ("permutation", "sampler"), ("kernel", "sampler")],
)
def test_a_method_asked_for_by_name_explains_any_number_of_rows(
    method: CalledMethod, engine: str
) -> None:
    explainer = build_by_method(
        method,
        network(4),
        Background.of(rows(4, 5)),
        naming=naming_of(4),
        tolerance=1e-9,
    )
    assert (explainer.method, explainer.engine) == (method, engine)
    assert explainer.tolerance == 1e-9
    for n_rows in (0, 2):
        explanation = explainer.explain(rows(4, 7)[5 : 5 + n_rows])
        assert explanation.values.shape == (n_rows, 4, 1)
        assert explanation.method == method
