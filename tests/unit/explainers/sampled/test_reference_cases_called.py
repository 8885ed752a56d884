"""The reference cases by explainers that only call the model."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from called_models import naming_of

from explainers.base import Background, Explanation, FloatArray
from explainers.exact import interventional_interactions
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

UNIFORM = np.array(list(product([0.0, 1.0], repeat=2)))
ZERO = np.zeros((1, 2))
SAMPLED = PermutationConfig(passes=4096, target=1.0, rows_per_call=256)


@dataclass(frozen=True)
class Case:
    function: Callable[..., FloatArray]
    x: tuple[float, ...]
    background: FloatArray
    base: float
    values: tuple[float, ...]
    at_most_pairs_interact: bool = True

    def model(self, X: FloatArray) -> FloatArray:
        return np.asarray(self.function(*X.T), dtype=np.float64)[:, None]

    def enumeration(self) -> EnumerationExplainer:
        return EnumerationExplainer(
            self.model,
            Background.of(self.background),
            naming=naming_of(len(self.x)),
            tolerance=1e-9,
            rows_per_call=8,
        )

    def permutation(self) -> PermutationExplainer:
        return PermutationExplainer(
            self.model,
            Background.of(self.background),
            naming=naming_of(len(self.x)),
            tolerance=1e-9,
            config=SAMPLED,
        )


CASES = {
    "R1": Case(
        lambda a, b, c: a * np.maximum(b, c), (1, 1, 1), np.zeros((1, 3)), 0.0,
        (2 / 3, 1 / 6, 1 / 6), at_most_pairs_interact=False,
    ),
    "R4 at 1 and 1": Case(lambda a, b: a != b, (1, 1), UNIFORM, 0.5, (-0.25, -0.25)),
    "R4 at 0 and 1": Case(lambda a, b: a != b, (0, 1), UNIFORM, 0.5, (0.25, 0.25)),
    "R5, uniform": Case(lambda a, b: a * b, (1, 1), UNIFORM, 0.25, (0.375, 0.375)),
    "R5, from zero": Case(lambda a, b: a * b, (1, 1), ZERO, 0.0, (0.5, 0.5)),
    "R6": Case(lambda a, b: 80 * a * b, (1, 1), UNIFORM, 20.0, (30, 30)),
    "R6, cough also alone": Case(
        lambda a, b: 80 * a * b + 10 * b, (1, 1), UNIFORM, 25.0, (30, 35)
    ),
    "R7": Case(
        lambda a, b, c: 2 * a - b + 0.5 * c + 3, (3, 1, 2),
        np.array([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]), 5.0, (4, 1, -1),
    ),
    "R8": Case(
        lambda a, b, c: np.maximum(np.maximum(a, b), c), (3, 1, 2), np.zeros((1, 3)), 0.0,
        (11 / 6, 1 / 3, 5 / 6), at_most_pairs_interact=False,
    ),
}  # fmt: skip


def explained(case: Case, explainer: EnumerationExplainer | PermutationExplainer) -> Explanation:
    explanation = explainer.explain(np.array([case.x], dtype=np.float64))
    assert explanation.base_values[0, 0] == pytest.approx(case.base, abs=1e-12)
    return explanation


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_enumeration_is_exact(case: Case) -> None:
    explanation = explained(case, case.enumeration())
    np.testing.assert_allclose(explanation.values[0, :, 0], case.values, rtol=0, atol=1e-12)
    assert explanation.exact
    assert explanation.standard_errors is None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_permutation_is_as_near_as_its_standard_errors_say(case: Case) -> None:
    explanation = explained(case, case.permutation())
    assert explanation.standard_errors is not None
    assert not explanation.exact
    errors = explanation.standard_errors[0, :, 0]
    gaps = np.abs(explanation.values[0, :, 0] - case.values)
    if case.at_most_pairs_interact:
        np.testing.assert_allclose(gaps, 0, rtol=0, atol=1e-12)
        # What is left is the floor of what never varied: a thousandth of the outputs' range.
        assert errors.max() < 2e-3 * np.ptp([case.base, case.base + sum(case.values)])
    else:
        assert np.all(gaps <= 3 * errors)
        assert 0.001 < errors.max() < 0.02


@pytest.mark.parametrize(("x", "index"), [((1.0, 1.0), -0.5), ((0.0, 1.0), 0.5)])
def test_exclusive_or_interacts(x: tuple[float, float], index: float) -> None:
    case = CASES["R4 at 1 and 1"]
    found = case.enumeration().interactions(np.array([x]))
    assert found.values[0, 0, 1, 0] == pytest.approx(index / 2)
    assert found.values[0, 1, 0, 0] == pytest.approx(index / 2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_interactions_are_those_of_brute_force_and_sum_to_the_values(case: Case) -> None:
    x = np.array(case.x, dtype=np.float64)
    found = case.enumeration().interactions(x[None])
    expected = interventional_interactions(case.model, x, case.background)
    np.testing.assert_allclose(found.values[0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.values.sum(axis=2), found.explanation.values, atol=1e-12)
