import numpy as np
import pytest
from called_models import naming_of, network

from explainers.base import Background, Explainer, FloatArray, UnsupportedModelError
from explainers.sampled.choose import (
    ENUMERATION_SECONDS,
    CalledMethod,
    build_by_method,
    build_sampled,
)
from explainers.sampled.permutation import PermutationConfig


def built(
    n_columns: int,
    n_background_rows: int,
    *,
    microseconds: float,
    config: PermutationConfig | None = None,
) -> Explainer:
    return build_sampled(
        network(n_columns),
        Background.of(rows(n_columns, n_background_rows)),
        naming=naming_of(n_columns),
        tolerance=1e-9,
        seconds_per_row=microseconds / 1e6,
        config=config,
    )


def rows(n_columns: int, n_rows: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=(n_rows, n_columns))


@pytest.mark.parametrize(
    ("n_columns", "microseconds", "engine"),
    [
        (12, 4.8, "enumeration"),
        (12, 4.9, "sampler"),
        (13, 0.0, "sampler"),
        (10, 19.0, "enumeration"),
        (10, 20.0, "sampler"),
        (6, 1e6, "enumeration"),
        (7, 1e6, "sampler"),
    ],
)
def test_enumeration_where_it_is_affordable_or_cheaper_anyway(
    n_columns: int, microseconds: float, engine: str
) -> None:
    explainer = built(n_columns, 100, microseconds=microseconds)
    assert explainer.engine == engine
    assert explainer.method == {"enumeration": "exact", "sampler": "permutation"}[engine]
    assert explainer.exact == (engine == "enumeration")
    assert pytest.approx(2.0) == ENUMERATION_SECONDS


def test_both_make_calls_of_the_configured_shape_and_budget() -> None:
    small = PermutationConfig(rows_per_call=64, budget_rows=30_000)
    for microseconds in (0.0, 1e6):
        explainer = built(8, 100, microseconds=microseconds, config=small)
        assert explainer.explain(np.ones((1, 8))).model_evaluations % 64 == 0
    with pytest.raises(UnsupportedModelError, match="30000 model rows allowed"):
        built(40, 100, microseconds=0.0, config=small)


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
