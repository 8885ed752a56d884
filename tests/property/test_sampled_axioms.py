"""The axioms of Shapley values that hold for models that are only called, whatever is drawn."""

from dataclasses import dataclass, field

import numpy as np
from called_models import Model as Called
from called_models import classifier, forest, naming_of, network
from hypothesis import given, settings
from hypothesis import strategies as st

from explainers.base import Background, Explanation, FloatArray
from explainers.exact import interventional_values
from explainers.sampled.enumeration import EnumerationExplainer
from explainers.sampled.permutation import PermutationConfig, PermutationExplainer

COLUMNS = 5
CONFIG = PermutationConfig(passes=4, target=np.inf, rows_per_call=128)
CLOSE = {"rtol": 0, "atol": 1e-11}

quick = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class Model:
    call: Called
    n_outputs: int
    background: FloatArray
    X: FloatArray = field(repr=False)

    @classmethod
    def random(cls, kind: str, seed: int, size: int) -> "Model":
        call, n_outputs = {
            "smooth": (network(COLUMNS, 2, seed=seed), 2),
            "steep": (classifier(COLUMNS, 3, seed=seed), 3),
            "stepped": (forest(COLUMNS, seed=seed), 1),
        }[kind]
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(size + 2, COLUMNS))
        rows[:, 1] = rng.integers(2, size=size + 2)
        return cls(call, n_outputs, rows[2:], rows[:2])

    def sampled(self, call: Called | None = None) -> Explanation:
        return PermutationExplainer(
            call or self.call,
            Background.of(self.background),
            naming=naming_of(COLUMNS, self.n_outputs),
            tolerance=1e-9,
            config=CONFIG,
        ).explain(self.X, seeds=np.arange(len(self.X)))

    def enumerated(self, call: Called | None = None) -> Explanation:
        return EnumerationExplainer(
            call or self.call,
            Background.of(self.background),
            naming=naming_of(COLUMNS, self.n_outputs),
            tolerance=1e-9,
            rows_per_call=64,
        ).explain(self.X)


models = st.builds(
    Model.random,
    kind=st.sampled_from(["smooth", "steep", "stepped"]),
    seed=st.integers(0, 1 << 32),
    size=st.sampled_from([1, 2, 7, 40]),
)


@quick
@given(model=models)
def test_enumerated_values_are_brute_force(model: Model) -> None:
    for x, found in zip(model.X, model.enumerated().values, strict=True):
        np.testing.assert_allclose(
            found, interventional_values(model.call, x, model.background), **CLOSE
        )


@quick
@given(model=models)
def test_values_add_up_from_base_to_output_whatever_is_drawn(model: Model) -> None:
    for explanation in (model.sampled(), model.enumerated()):
        total = explanation.base_values + explanation.values.sum(axis=1)
        np.testing.assert_allclose(total, model.call(model.X), **CLOSE)
        means = np.tile(model.call(model.background).mean(axis=0), (2, 1))
        np.testing.assert_allclose(explanation.base_values, means, **CLOSE)


@quick
@given(model=models, column=st.integers(0, COLUMNS - 1))
def test_a_column_the_model_does_not_read_gains_nothing(model: Model, column: int) -> None:
    def blind(X: FloatArray) -> FloatArray:
        return model.call(np.where(np.arange(COLUMNS) == column, 0.0, X))

    for explanation in (model.sampled(blind), model.enumerated(blind)):
        np.testing.assert_allclose(explanation.values[:, column], 0, **CLOSE)


@quick
@given(model=models)
def test_pairs_of_columns_are_worth_what_they_are_whatever_is_drawn(model: Model) -> None:
    def quadratic(X: FloatArray) -> FloatArray:
        products = X[:, :1] * X[:, 1:2] - X[:, 2:3] * X[:, 3:4] ** 2 + np.sin(X[:, 4:])
        return np.repeat(products, model.n_outputs, axis=1)

    sampled = model.sampled(quadratic)
    np.testing.assert_allclose(sampled.values, model.enumerated(quadratic).values, **CLOSE)


@quick
@given(model=models, share=st.floats(-3, 3))
def test_a_sum_of_models_is_worth_the_sum_of_their_values(model: Model, share: float) -> None:
    """Whatever is drawn, as long as the same is drawn of all."""
    other = network(COLUMNS, model.n_outputs, seed=1)
    calls = (lambda X: model.call(X) + share * other(X), model.call, other)
    for explain in (model.sampled, model.enumerated):
        both, one, added = (explain(call).values for call in calls)
        np.testing.assert_allclose(both, one + share * added, **CLOSE)
