import numpy as np
import pytest

from explainers.base import Explanation, FloatArray, Link
from explainers.checks import additivity_error, all_finite, dummy_violations, link_error

SCALES = [1e-8, 1.0, 1e8]
SPREAD = np.array([1.0, 1.0])


def explanation_of(
    values: FloatArray, base: FloatArray, outputs: FloatArray | None, **more: FloatArray
) -> Explanation:
    return Explanation(
        values=values,
        base_values=base,
        feature_names=tuple(f"f{i}" for i in range(values.shape[1])),
        output_names=tuple(f"o{c}" for c in range(values.shape[2])),
        output_space="raw",
        method="tree_interventional",
        engine="walk",
        exact=True,
        background_digest="sha256:0",
        outputs=outputs,
        **more,
    )


def consistent(scale: float) -> Explanation:
    rng = np.random.default_rng(0)
    values, base = scale * rng.normal(size=(3, 4, 2)), scale * rng.normal(size=(3, 2))
    return explanation_of(values, base, base + values.sum(axis=1))


@pytest.mark.parametrize("scale", SCALES)
def test_values_that_add_up_pass_at_any_scale(scale: float) -> None:
    errors = additivity_error(consistent(scale), output_scale=scale * SPREAD)
    assert errors.shape == (3,)
    assert np.all(errors <= 1e-15)


@pytest.mark.parametrize("scale", SCALES)
def test_one_value_off_by_a_ten_thousandth_fails_at_any_scale(scale: float) -> None:
    good = consistent(scale)
    values = good.values.copy()
    values[1, 2, 1] += 1e-4 * scale
    assert good.outputs is not None
    bad = explanation_of(values, good.base_values, good.outputs)
    errors = additivity_error(bad, output_scale=scale * SPREAD)
    assert errors[1] > 1e-5
    assert max(errors[0], errors[2]) <= 1e-15


@pytest.mark.parametrize("scale", SCALES)
def test_values_that_are_all_zero_fail_at_any_scale(scale: float) -> None:
    good = consistent(scale)
    zero = explanation_of(np.zeros((3, 4, 2)), good.base_values, good.outputs)
    assert np.all(additivity_error(zero, output_scale=scale * SPREAD) > 1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["values", "base_values", "outputs"])
def test_what_is_not_finite_never_passes(part: str, broken: float) -> None:
    good = consistent(1.0)
    assert good.outputs is not None
    parts = {
        "values": good.values.copy(),
        "base_values": good.base_values.copy(),
        "outputs": good.outputs.copy(),
    }
    parts[part][0].flat[0] = broken
    bad = explanation_of(parts["values"], parts["base_values"], parts["outputs"])
    errors = additivity_error(bad, output_scale=SPREAD)
    assert errors[0] == np.inf
    assert np.all(errors[1:] <= 1e-15)
    assert all_finite(bad).tolist() == [False, True, True]


@pytest.mark.parametrize("spread", [np.nan, np.inf])
def test_a_spread_that_is_not_finite_never_passes(spread: float) -> None:
    errors = additivity_error(consistent(1.0), output_scale=np.array([1.0, spread]))
    assert np.all(errors == np.inf)


def test_values_too_large_to_add_never_pass() -> None:
    values = np.full((1, 2, 1), 1.7e308) * [[[1], [-1]]]
    bad = explanation_of(values, np.zeros((1, 1)), np.ones((1, 1)))
    assert additivity_error(bad, output_scale=np.zeros(1))[0] == np.inf


def test_a_model_that_is_zero_everywhere_passes_with_zero_values_only() -> None:
    nothing, one = np.zeros((1, 2, 1)), np.zeros((1, 1))
    flat = explanation_of(nothing, one, one)
    assert additivity_error(flat, output_scale=np.zeros(1))[0] == 0
    wrong = explanation_of(nothing, one, one + 5e-324)
    assert additivity_error(wrong, output_scale=np.zeros(1))[0] > 0


def test_additivity_without_served_outputs_is_refused() -> None:
    good = consistent(1.0)
    with pytest.raises(ValueError, match="no served outputs"):
        additivity_error(explanation_of(good.values, good.base_values, None), output_scale=SPREAD)


def test_standard_errors_must_be_finite() -> None:
    good = consistent(1.0)
    spread = np.ones((3, 4, 2))
    spread[2, 0, 0] = np.nan
    bad = explanation_of(good.values, good.base_values, good.outputs, standard_errors=spread)
    assert all_finite(bad).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("link", "outputs", "scores"),
    [
        ("logit", [[0.0], [800.0], [-800.0]], [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]),
        ("softmax", [[0.0, 0.0], [900.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]),
        ("softmax", [[0.0, np.log(2), 0.0]], [[0.25, 0.5, 0.25]]),
        ("log", [[0.0], [np.log(3e9)]], [[1.0], [3e9]]),
        ("identity", [[0.3]], [[0.7, 0.3]]),
        ("identity", [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]),
        ("identity", [[-4e8], [0.0]], [[-4e8], [0.0]]),
    ],
)
def test_scores_that_follow_from_the_outputs_pass_and_others_fail(
    link: Link, outputs: list[list[float]], scores: list[list[float]]
) -> None:
    given, served = np.array(outputs), np.array(scores)
    assert np.all(link_error(given, served, link) <= 1e-12)
    assert np.all(link_error(given, served * 1.001 + 1e-5, link) > 1e-6)


def test_swapped_classes_and_broken_numbers_fail_the_link() -> None:
    assert link_error(np.array([[2.0]]), np.array([[0.88, 0.12]]), "logit")[0] > 0.7
    for outputs, scores in [([[np.nan]], [[0.5, 0.5]]), ([[0.0]], [[np.nan, 0.5]])]:
        assert link_error(np.array(outputs), np.array(scores), "logit")[0] == np.inf
    assert link_error(np.array([[1e3]]), np.array([[np.inf]]), "log")[0] == np.inf
    assert link_error(np.full((1, 2), np.inf), np.full((1, 2), 0.5), "softmax")[0] == np.inf


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="served were"):
        link_error(np.zeros((1, 3)), np.zeros((1, 2)), "softmax")


def test_an_unused_column_with_any_value_is_a_violation() -> None:
    values = np.zeros((4, 3, 2))
    values[:, 0] = 1.0
    values[1, 2, 1] = 1e-300
    values[2, 1, 0] = np.nan
    assert dummy_violations(values, np.array([1, 2])).tolist() == [False, True, True, False]
    assert not dummy_violations(values, np.array([], dtype=np.int64)).any()
