"""The axioms of Shapley values for models linear in columns that are derived from raw ones."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from explainers.base import Background, FloatArray, IntArray, Naming
from explainers.exact import interventional_values
from explainers.linear import LinearExplainer

COLUMNS = 5
SHAPES = (np.sin, np.square, np.negative, lambda x: x > 0, lambda x: x == 0)
"""What a derived column may be of its raw column; some are not linear, as one-hot columns are."""
CLOSE = {"rtol": 1e-11, "atol": 1e-11}

quick = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Derived:
    """Derived column p is shape[p] of raw column players[p]."""

    players: IntArray
    shapes: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        columns = [
            SHAPES[shape](X[:, player])
            for player, shape in zip(self.players, self.shapes, strict=True)
        ]
        return np.column_stack(columns).astype(np.float64)


@dataclass(frozen=True)
class Model:
    derived: Derived
    coefficients: FloatArray
    intercept: FloatArray
    background: FloatArray
    X: FloatArray = field(repr=False)

    @classmethod
    def random(cls, seed: int, size: int, derived: int, outputs: int) -> "Model":
        rng = np.random.default_rng(seed)
        shapes = rng.integers(len(SHAPES), size=derived)
        return cls(
            Derived(rng.integers(COLUMNS, size=derived), shapes),
            rng.normal(size=(derived, outputs)),
            rng.normal(size=outputs),
            rng.normal(size=(size, COLUMNS)),
            rng.normal(size=(3, COLUMNS)),
        )

    def explainer(
        self,
        *,
        coefficients: FloatArray | None = None,
        background: FloatArray | None = None,
        derived: Derived | None = None,
    ) -> LinearExplainer:
        outputs = tuple(f"o{c}" for c in range(len(self.intercept)))
        return LinearExplainer(
            self.coefficients if coefficients is None else coefficients,
            self.intercept,
            Background.of(self.background if background is None else background),
            self.derived if derived is None else derived,
            naming=Naming(tuple(f"f{i}" for i in range(COLUMNS)), outputs, "raw"),
            tolerance=1e-9,
        )


models = st.builds(
    Model.random,
    seed=st.integers(0, 1 << 32),
    size=st.sampled_from([1, 2, 7, 64, 100]),
    derived=st.integers(1, 12),
    outputs=st.integers(1, 3),
)


@quick
@given(model=models)
def test_values_are_brute_force(model: Model) -> None:
    explainer = model.explainer()
    for x, found in zip(model.X, explainer.explain(model.X).values, strict=True):
        expected = interventional_values(explainer.outputs, x, model.background)
        np.testing.assert_allclose(found, expected, **CLOSE)


@quick
@given(model=models)
def test_values_add_up_from_base_to_output(model: Model) -> None:
    explanation = model.explainer().explain(model.X)
    total = explanation.base_values + explanation.values.sum(axis=1)
    outputs = model.derived(model.X) @ model.coefficients + model.intercept
    np.testing.assert_allclose(total, outputs, **CLOSE)


@quick
@given(model=models)
def test_a_column_nothing_is_derived_from_gets_exactly_zero(model: Model) -> None:
    unused = np.setdiff1d(np.arange(COLUMNS), model.derived.players)
    assert np.all(model.explainer().explain(model.X).values[:, unused] == 0)


@quick
@given(model=models)
def test_columns_the_model_treats_alike_share_alike(model: Model) -> None:
    X, background = model.X.copy(), model.background.copy()
    X[:, 1], background[:, 1] = X[:, 0], background[:, 0]
    swapped = np.array([1, 0, *range(2, COLUMNS)])[model.derived.players]
    mirrored = Derived(swapped, model.derived.shapes)
    total = sum(
        model.explainer(background=background, derived=derived).explain(X).values
        for derived in (model.derived, mirrored)
    )
    np.testing.assert_allclose(total[:, 0], total[:, 1], **CLOSE)


@quick
@given(model=models, share=st.floats(-3, 3))
def test_a_sum_of_models_is_worth_the_sum_of_their_values(model: Model, share: float) -> None:
    parts = (share * model.coefficients, (1 - share) * model.coefficients)
    values = [model.explainer(coefficients=part).explain(model.X).values for part in parts]
    whole = model.explainer().explain(model.X).values
    np.testing.assert_allclose(values[0] + values[1], whole, **CLOSE)


@quick
@given(model=models, order=st.permutations(range(COLUMNS)))
def test_the_order_of_the_raw_columns_does_not_matter(model: Model, order: list[int]) -> None:
    moved = Derived(np.argsort(order)[model.derived.players], model.derived.shapes)
    explainer = model.explainer(background=model.background[:, order], derived=moved)
    values = model.explainer().explain(model.X).values
    np.testing.assert_allclose(
        explainer.explain(model.X[:, order]).values, values[:, order], **CLOSE
    )


@quick
@given(model=models, times=st.integers(2, 4))
def test_a_background_repeated_is_the_same_background(model: Model, times: int) -> None:
    once = model.explainer().explain(model.X)
    often = model.explainer(background=np.tile(model.background, (times, 1))).explain(model.X)
    np.testing.assert_allclose(often.values, once.values, **CLOSE)
    np.testing.assert_allclose(often.base_values, once.base_values, **CLOSE)
