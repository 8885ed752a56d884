"""What holds for every explainer that only calls the model."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from called_models import COLUMNS, Model, classifier, naming_of, network, normal_rows

from explainers.base import Background, Explanation, FloatArray, MalformedModelError
from explainers.checks import Invariants
from explainers.exact import interventional_values
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

CalledExplainer = EnumerationExplainer | PermutationExplainer
Build = Callable[[Model, FloatArray], CalledExplainer]
ROWS_PER_CALL = 192
SCALE = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))


def enumeration(model: Model, background: FloatArray, n_outputs: int = 3) -> EnumerationExplainer:
    return EnumerationExplainer(
        model,
        Background.of(background),
        naming=naming_of(background.shape[1], n_outputs),
        tolerance=1e-9,
        rows_per_call=ROWS_PER_CALL,
    )


def permutation(model: Model, background: FloatArray, n_outputs: int = 3) -> PermutationExplainer:
    return PermutationExplainer(
        model,
        Background.of(background),
        naming=naming_of(background.shape[1], n_outputs),
        tolerance=1e-9,
        config=PermutationConfig(
            passes=4, target=0.01, budget_rows=20_000, rows_per_call=ROWS_PER_CALL
        ),
    )


both = pytest.mark.parametrize("build", [enumeration, permutation])


@dataclass
class Recorded:
    """A model that keeps the shapes it is called with."""

    model: Model
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, X: FloatArray) -> FloatArray:
        self.shapes.append(X.shape)
        return self.model(X)


def depending_on_the_call(X: FloatArray) -> FloatArray:
    """Every output depends on the shape of the call and on all rows of it: what one row's numbers
    must not depend on is made visible.
    """
    return classifier(COLUMNS, 3)(X) + 1e-3 * len(X) + 1e-3 * X.sum()


def drawn(seed: int, n_rows: int = 6) -> FloatArray:
    rows = normal_rows(n_rows, np.random.default_rng(seed))
    rows[:, 3] = 1.0
    rows[:, 4] = np.nan
    rows[:, 5] = rows[:, 5] > 0
    return rows


def without_missing(model: Model) -> Model:
    return lambda X: model(np.nan_to_num(X))


def blurred(X: FloatArray) -> FloatArray:
    return depending_on_the_call(np.nan_to_num(X))


def assert_same(one: Explanation, other: Explanation) -> None:
    assert one.values.tobytes() == other.values.tobytes()
    assert one.base_values.tobytes() == other.base_values.tobytes()
    assert (one.standard_errors is None) == (other.standard_errors is None)
    if one.standard_errors is not None and other.standard_errors is not None:
        assert one.standard_errors.tobytes() == other.standard_errors.tobytes()


@both
def test_a_row_has_the_same_bytes_alone_in_a_batch_and_again(build: Build) -> None:
    X, seeds = drawn(1), np.arange(6) + 77
    explainer = build(blurred, drawn(0, 12))
    batch = explainer.explain(X, seeds=seeds)
    assert_same(batch, build(blurred, drawn(0, 12)).explain(X, seeds=seeds))
    backwards = explainer.explain(X[::-1].copy(), seeds=seeds[::-1].copy())
    assert batch.values[::-1].tobytes() == backwards.values.tobytes()
    for i in range(len(X)):
        alone = explainer.explain(X[i : i + 1], seeds=seeds[i : i + 1])
        assert alone.values.tobytes() == batch.values[i : i + 1].tobytes()
    outputs = np.vstack([explainer.outputs(x[None]) for x in X])
    assert explainer.outputs(X).tobytes() == outputs.tobytes()


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    explainer, x = permutation(blurred, drawn(0, 12)), drawn(1, 1)
    values = [explainer.explain(x, seeds=np.array([seed])).values for seed in (5, 6)]
    assert not np.allclose(values[0], values[1], rtol=0, atol=1e-6)
    assert_same(explainer.explain(x), explainer.explain(x, seeds=np.array([0])))
    exact = enumeration(blurred, drawn(0, 12))
    assert_same(exact.explain(x, seeds=np.array([5])), exact.explain(x))


@both
def test_every_call_has_one_shape_and_is_counted(build: Build) -> None:
    model = Recorded(without_missing(classifier(COLUMNS, 3)))
    explainer = build(model, drawn(0, 12))
    explainer.warm_up()
    model.shapes.clear()
    explanation = explainer.explain(drawn(1))
    assert set(model.shapes) == {(ROWS_PER_CALL, COLUMNS)}
    assert explanation.model_evaluations == ROWS_PER_CALL * len(model.shapes)
    model.shapes.clear()
    explainer.outputs(drawn(1))
    assert set(model.shapes) == {(1, COLUMNS)}


@both
@pytest.mark.parametrize("size", [1, 12, 200])
def test_no_row_costs_more_than_planned(build: Build, size: int) -> None:
    rng = np.random.default_rng(0)
    model = Recorded(classifier(COLUMNS, 3))
    explainer = build(model, normal_rows(size, rng)[:, :10])
    model.shapes.clear()
    found = explainer.explain(normal_rows(3, rng)).model_evaluations
    planned = explainer.cost(3)
    assert found <= (planned if isinstance(planned, int) else planned[1])
    assert found == sum(shape[0] for shape in model.shapes)


@both
def test_values_add_up_and_pass_the_checks(build: Build) -> None:
    model = without_missing(classifier(COLUMNS, 3))
    explainer = build(model, drawn(0, 12))
    X = drawn(1)
    explanation = explainer.explain(X)
    outputs = explainer.outputs(X)
    invariants = Invariants(
        1e-9,
        explainer.output_scale,
        np.array([3, 4]),
        "identity",
        tuple(f"f{i}" for i in range(COLUMNS)),
    )
    checked = invariants.check(explanation, outputs, outputs)
    assert checked.reasons == (None,) * len(X)
    assert checked.additivity.max() < 1e-12
    np.testing.assert_allclose(
        explanation.base_values[0], model(drawn(0, 12)).mean(axis=0), rtol=0, atol=1e-12
    )


@both
def test_columns_equal_everywhere_get_exactly_zero_whatever_the_calls_give(build: Build) -> None:
    explanation = build(blurred, drawn(0, 12)).explain(drawn(1))
    assert np.all(explanation.values[:, 3:5] == 0)
    assert np.abs(explanation.values[:, [0, 1, 2, 5]]).min() > 0
    if explanation.standard_errors is not None:
        assert np.all(explanation.standard_errors[:, 3:5] == 0)
        assert explanation.standard_errors[:, :3].min() > 0


@both
def test_a_row_that_is_the_background_gains_nothing(build: Build) -> None:
    explainer = build(without_missing(classifier(COLUMNS, 3)), drawn(0, 1))
    explanation = explainer.explain(drawn(0, 1))
    assert np.all(explanation.values == 0)
    assert explanation.model_evaluations <= ROWS_PER_CALL


@pytest.mark.small_version_of(
    "test_one_explainer_shared_by_threads_for_long_gives_the_serial_answers"
)
@both
def test_one_explainer_shared_by_threads_gives_the_serial_answers(build: Build) -> None:
    explainer = build(blurred, drawn(0, 4))
    X, seeds = drawn(1, 16), np.arange(16)
    serial = explainer.explain(X, seeds=seeds).values
    with ThreadPoolExecutor(32) as pool:
        jobs = [
            pool.submit(explainer.explain, X[i : i + 1], seeds=seeds[i : i + 1])
            for i in np.tile(np.arange(16), 4)
        ]
    for job, i in zip(jobs, np.tile(np.arange(16), 4), strict=True):
        assert job.result().values.tobytes() == serial[i : i + 1].tobytes()


@pytest.mark.drill
@both
def test_one_explainer_shared_by_threads_for_long_gives_the_serial_answers(build: Build) -> None:
    explainer = build(blurred, drawn(0, 4))
    X, seeds = drawn(1, 64), np.arange(64)
    serial = explainer.explain(X, seeds=seeds).values
    asked = np.random.default_rng(0).integers(64, size=max(64, int(1000 * SCALE)))
    with ThreadPoolExecutor(32) as pool:
        found = pool.map(
            lambda i: explainer.explain(X[i : i + 1], seeds=seeds[i : i + 1]).values.tobytes(),
            asked,
        )
        wrong = [i for i, values in zip(asked, found, strict=True) if values != serial[i].tobytes()]
    assert wrong == []


@both
def test_against_another_background_is_the_explainer_built_with_it(build: Build) -> None:
    explainer, X = build(blurred, drawn(0, 12)), drawn(1, 2)
    other = explainer.against(Background.of(drawn(5, 7)))
    assert_same(other.explain(X), build(blurred, drawn(5, 7)).explain(X))
    assert not np.allclose(other.explain(X).values, explainer.explain(X).values, atol=1e-3)
    assert other.explain(X).background_digest != explainer.explain(X).background_digest
    with pytest.raises(ValueError, match=f"11 columns for a model of {COLUMNS}"):
        explainer.against(Background.of(np.zeros((2, 11))))


@both
def test_nothing_is_stored_and_the_scale_is_the_backgrounds(build: Build) -> None:
    background = drawn(0, 12)
    model = without_missing(classifier(COLUMNS, 3))
    explainer = build(model, background)
    assert explainer.stored_tables() is None
    np.testing.assert_allclose(explainer.output_scale, model(background).std(axis=0))


@both
def test_outputs_of_another_shape_are_refused(build: Build) -> None:
    with pytest.raises(MalformedModelError, match=r"\(192, 2\) outputs, not \(192, 3\)"):
        build(classifier(COLUMNS, 2), normal_rows(4, np.random.default_rng(0)))


@both
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_come_through_and_end_the_sampling(
    build: Build, number: float
) -> None:
    def broken(X: FloatArray) -> FloatArray:
        return np.where(X[:, :1] > 9, number, classifier(COLUMNS, 3)(X))

    rng = np.random.default_rng(0)
    explainer, x = build(broken, normal_rows(8, rng)), normal_rows(1, rng)
    x[0, 0] = 10.0
    explanation = explainer.explain(x)
    assert np.isnan(explanation.values).any()
    planned = explainer.cost(1)
    assert explanation.model_evaluations <= (planned if isinstance(planned, int) else planned[0])


def test_enumeration_is_brute_force_over_the_varying_columns() -> None:
    model, background = network(14, 2), np.random.default_rng(0).normal(size=(5, 14))
    background[:, 8:] = 1.0
    x = np.random.default_rng(1).normal(size=14)
    x[8:] = 1.0
    found = enumeration(model, background, 2).explain(x[None]).values[0]
    expected = interventional_values(
        lambda X: model(np.hstack([X, np.ones((len(X), 6))])), x[:8], background[:, :8]
    )
    np.testing.assert_allclose(found[:8], expected, rtol=0, atol=1e-12)
    assert np.all(found[8:] == 0)
