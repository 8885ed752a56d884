from dataclasses import dataclass

import numpy as np
import pytest

from explainers.base import (
    Background,
    Derivation,
    FloatArray,
    IdentityDerivation,
    IntArray,
    MalformedModelError,
    Naming,
)
from explainers.choose import build_explainer
from explainers.exact import interventional_values
from explainers.linear import LinearExplainer


@dataclass(frozen=True)
class Expanded:
    """The column itself, its square and an indicator, in an order of their own."""

    players: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return np.column_stack([X[:, 1] ** 2, X[:, 0], X[:, 1] > 0, X[:, 1], X[:, 0] > 1])


EXPANDED = Expanded(np.array([1, 0, 1, 1, 0]))


def explainer_of(
    coefficients: FloatArray, background: FloatArray, derivation: Derivation
) -> LinearExplainer:
    n_features, n_outputs = background.shape[1], coefficients.shape[1]
    return LinearExplainer(
        coefficients,
        np.arange(float(n_outputs)),
        Background.of(background),
        derivation,
        naming=Naming(
            tuple(f"f{i}" for i in range(n_features)),
            tuple(f"o{c}" for c in range(n_outputs)),
            "log_odds",
        ),
        tolerance=1e-9,
    )


def test_values_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    coefficients, background, X = (rng.normal(size=s) for s in [(5, 3), (20, 3), (4, 3)])
    explainer = explainer_of(coefficients, background, EXPANDED)
    explanation = explainer.explain(X)
    for x, values in zip(X, explanation.values, strict=True):
        expected = interventional_values(explainer.outputs, x, background)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13)
    assert np.all(explanation.values[:, 2] == 0)


def test_outputs_are_the_model_and_base_values_their_background_mean() -> None:
    rng = np.random.default_rng(1)
    coefficients, background = rng.normal(size=(5, 2)), rng.normal(size=(20, 3))
    explainer = explainer_of(coefficients, background, EXPANDED)
    expected = EXPANDED(background) @ coefficients + [0.0, 1.0]
    outputs = explainer.outputs(background)
    np.testing.assert_allclose(outputs, expected, atol=1e-14)
    base = explainer.explain(background[:2]).base_values
    np.testing.assert_allclose(base, np.tile(expected.mean(axis=0), (2, 1)), atol=1e-14)
    np.testing.assert_allclose(explainer.output_scale, expected.std(axis=0), atol=1e-14)


def test_a_row_has_the_same_bytes_alone_and_in_a_batch() -> None:
    rng = np.random.default_rng(2)
    players = rng.integers(30, size=200)
    coefficients, background = rng.normal(size=(200, 3)), rng.normal(size=(100, 30))

    @dataclass(frozen=True)
    class Copies:
        players: IntArray

        def __call__(self, X: FloatArray) -> FloatArray:
            return X[:, self.players]

    explainer = explainer_of(coefficients, background, Copies(players))
    X = rng.normal(size=(257, 30))
    together = explainer.explain(X).values
    alone = np.concatenate([explainer.explain(X[i : i + 1]).values for i in range(len(X))])
    assert together.tobytes() == alone.tobytes()


def test_coefficients_of_another_shape_are_refused() -> None:
    background = np.zeros((2, 3))
    with pytest.raises(MalformedModelError, match="coefficients"):
        explainer_of(np.zeros((2, 1)), background, IdentityDerivation.over(3))


def test_coefficients_are_explained_in_closed_form() -> None:
    explainer = build_explainer(
        (np.array([[2.0]]), np.array([1.0])),
        Background.of(np.zeros((2, 1))),
        IdentityDerivation.over(1),
        naming=Naming(("a",), ("y",), "raw"),
        tolerance=1e-9,
    )
    explainer.warm_up()
    assert explainer.stored_tables() is None
    explanation = explainer.explain(np.array([[3.0]]))
    assert (explanation.method, explanation.engine, explanation.exact) == (
        "linear",
        "closed_form",
        True,
    )
    assert explanation.values.tolist() == [[[6.0]]]
    assert explanation.base_values.tolist() == [[1.0]]
