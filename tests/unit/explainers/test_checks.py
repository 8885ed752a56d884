from dataclasses import replace

import numpy as np
import pytest

from explainers.base import Explanation, FloatArray, IntArray, Link
from explainers.checks import LINK_TOLERANCE, Checked, Invariants

SCALES = [1e-8, 1.0, 1e8]
SPREAD = np.array([1.0, 1.0])
NONE = np.array([], dtype=np.int64)


def explanation_of(values: FloatArray, base: FloatArray, **more: FloatArray) -> Explanation:
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
        **more,  # type: ignore[arg-type]  # fields by name
    )


def consistent(scale: float) -> tuple[Explanation, FloatArray]:
    """An explanation of three rows and the outputs it adds up to."""
    rng = np.random.default_rng(0)
    values, base = scale * rng.normal(size=(3, 4, 2)), scale * rng.normal(size=(3, 2))
    return explanation_of(values, base), base + values.sum(axis=1)


def check(
    explanation: Explanation,
    outputs: FloatArray,
    *,
    spread: FloatArray = SPREAD,
    unused: IntArray = NONE,
    scores: FloatArray | None = None,
    link: Link = "identity",
) -> Checked:
    invariants = Invariants(1e-9, spread, unused, link, explanation.feature_names)
    return invariants.check(explanation, outputs, outputs if scores is None else scores)


@pytest.mark.parametrize("scale", SCALES)
def test_values_that_add_up_pass_at_any_scale(scale: float) -> None:
    checked = check(*consistent(scale), spread=scale * SPREAD)
    assert checked.additivity.shape == (3,)
    assert np.all(checked.additivity <= 1e-15)
    assert checked.reasons == (None, None, None)


@pytest.mark.parametrize("scale", SCALES)
def test_one_value_off_by_a_ten_thousandth_fails_at_any_scale(scale: float) -> None:
    good, outputs = consistent(scale)
    values = good.values.copy()
    values[1, 2, 1] += 1e-4 * scale
    checked = check(explanation_of(values, good.base_values), outputs, spread=scale * SPREAD)
    assert checked.additivity[1] > 1e-5
    assert max(checked.additivity[0], checked.additivity[2]) <= 1e-15
    assert checked.reasons == (None, "additivity", None)


@pytest.mark.parametrize("scale", SCALES)
def test_values_that_are_all_zero_fail_at_any_scale(scale: float) -> None:
    good, outputs = consistent(scale)
    zero = explanation_of(np.zeros((3, 4, 2)), good.base_values)
    assert np.all(check(zero, outputs, spread=scale * SPREAD).additivity > 1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["values", "base_values", "outputs"])
@pytest.mark.parametrize("output", [0, 1])
def test_what_is_not_finite_never_passes(part: str, broken: float, output: int) -> None:
    good, outputs = consistent(1.0)
    parts = {"values": good.values.copy(), "base_values": good.base_values.copy()}
    parts["outputs"] = outputs
    parts[part][0].reshape(-1, 2)[0, output] = broken
    checked = check(explanation_of(parts["values"], parts["base_values"]), outputs)
    assert checked.additivity[0] == np.inf
    assert np.all(checked.additivity[1:] <= 1e-15)
    assert checked.reasons == ("finite", None, None)


@pytest.mark.parametrize("spread", [np.nan, np.inf])
def test_a_spread_that_is_not_finite_never_passes(spread: float) -> None:
    checked = check(*consistent(1.0), spread=np.array([1.0, spread]))
    assert np.all(checked.additivity == np.inf)
    assert checked.reasons == ("additivity",) * 3


def test_values_too_large_to_add_never_pass() -> None:
    values = np.full((1, 2, 1), 1.7e308) * [[[1], [-1]]]
    bad = explanation_of(values, np.zeros((1, 1)))
    assert check(bad, np.ones((1, 1)), spread=np.zeros(1)).additivity[0] == np.inf


def test_a_model_that_is_zero_everywhere_passes_with_zero_values_only() -> None:
    nothing, one = np.zeros((1, 2, 1)), np.zeros((1, 1))
    flat = explanation_of(nothing, one)
    assert check(flat, one, spread=np.zeros(1)).additivity[0] == 0
    assert check(flat, one + 5e-324, spread=np.zeros(1)).additivity[0] > 0


def test_standard_errors_must_be_finite() -> None:
    good, outputs = consistent(1.0)
    errors = np.ones((3, 4, 2))
    errors[2, 0, 0] = np.nan
    bad = explanation_of(good.values, good.base_values, standard_errors=errors)
    assert check(bad, outputs).reasons == (None, None, "finite")


def test_columns_of_other_names_fail_every_row() -> None:
    good, outputs = consistent(1.0)
    invariants = Invariants(1e-9, SPREAD, NONE, "identity", good.feature_names)
    swapped = replace(good, feature_names=good.feature_names[::-1])
    assert invariants.check(swapped, outputs, outputs).reasons == ("names",) * 3


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
    right, wrong = link_of(given, served, link), link_of(given, served * 1.001 + 1e-5, link)
    assert np.all(right.link <= 1e-12)
    assert right.reasons == (None,) * len(given)
    assert np.all(wrong.link > LINK_TOLERANCE)
    assert wrong.reasons == ("link",) * len(given)


def link_of(outputs: FloatArray, scores: FloatArray, link: Link) -> Checked:
    """The checks of values that add up, of a model of one column."""
    explanation = explanation_of(outputs[:, None, :], np.zeros_like(outputs))
    return check(explanation, outputs, spread=np.ones(outputs.shape[1]), scores=scores, link=link)


def test_swapped_classes_and_broken_numbers_fail_the_link() -> None:
    assert link_of(np.array([[2.0]]), np.array([[0.88, 0.12]]), "logit").link[0] > 0.7
    for outputs, scores in [([[np.nan]], [[0.5, 0.5]]), ([[0.0]], [[np.nan, 0.5]])]:
        assert link_of(np.array(outputs), np.array(scores), "logit").link[0] == np.inf
    assert link_of(np.array([[1e3]]), np.array([[np.inf]]), "log").link[0] == np.inf
    assert link_of(np.full((1, 2), np.inf), np.full((1, 2), 0.5), "softmax").link[0] == np.inf


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    good, outputs = consistent(1.0)
    with pytest.raises(ValueError, match="give scores"):
        check(good, outputs, scores=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="2 outputs explained"):
        check(good, outputs[:, :1])
    with pytest.raises(ValueError, match="2 outputs explained"):
        check(good, outputs, spread=np.ones(1))
    invariants = Invariants(1e-9, SPREAD, NONE, "identity", ("f0",))
    with pytest.raises(ValueError, match="4 columns explained"):
        invariants.check(good, outputs, outputs)


@pytest.mark.parametrize("column", [-1, 4])
def test_an_unused_column_that_is_none_of_the_columns_is_refused(column: int) -> None:
    with pytest.raises(ValueError, match="beyond the 4"):
        check(*consistent(1.0), unused=np.array([column]))


def test_an_unused_column_with_any_value_is_a_violation() -> None:
    values = np.zeros((4, 3, 2))
    values[:, 0] = 1.0
    values[1, 2, 1] = 1e-300
    values[2, 1, 0] = np.inf
    explanation = explanation_of(values, np.zeros((4, 2)))
    outputs = values.sum(axis=1)
    assert check(explanation, outputs).reasons == (None, None, "finite", None)
    unused = np.array([1, 2])
    assert check(explanation, outputs, unused=unused).reasons == (None, "dummy", "finite", None)


def test_an_estimate_for_an_unused_column_may_lie_off_by_its_standard_error() -> None:
    values, errors = np.zeros((3, 2, 1)), np.zeros((3, 2, 1))
    values[:, 0], values[:, 1] = 1.0, [[0.0], [0.02], [0.02]]
    errors[1], errors[2] = 0.01, 0.001
    explanation = explanation_of(values, np.zeros((3, 1)), standard_errors=errors)
    checked = check(explanation, values.sum(axis=1), unused=np.array([1]), spread=SPREAD[:1])
    assert checked.reasons == (None, None, "dummy")
