from dataclasses import dataclass

import numpy as np
import pytest
from random_ensembles import random_rows, random_trees

from explainers.base import Background, FloatArray, IdentityDerivation, IntArray, Naming
from explainers.linear import LinearExplainer
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer

COLUMNS = 12


@dataclass(frozen=True)
class Reversed:
    """Derived columns are the raw columns from the last to the first, counting their calls."""

    players: IntArray
    seen: list[int]

    def __call__(self, X: FloatArray) -> FloatArray:
        self.seen.append(len(X))
        return X[:, ::-1]


def naming(n_outputs: int) -> Naming:
    outputs = tuple(f"o{c}" for c in range(n_outputs))
    return Naming(tuple(f"f{i}" for i in range(COLUMNS)), outputs, "raw")


def trees_of(
    ensemble: TreeEnsemble, background: FloatArray, engine: TreeEngine = "auto"
) -> TreeExplainer:
    return TreeExplainer(
        ensemble,
        Background.of(background),
        Reversed(np.arange(COLUMNS)[::-1], []),
        naming=naming(ensemble.n_outputs),
        tolerance=1e-9,
        engine=engine,
    )


def linear_of(background: FloatArray) -> LinearExplainer:
    return LinearExplainer(
        np.linspace(-1, 1, 2 * COLUMNS).reshape(COLUMNS, 2),
        np.ones(2),
        Background.of(background),
        Reversed(np.arange(COLUMNS)[::-1], []),
        naming=naming(2),
        tolerance=1e-9,
    )


def assert_same(
    found: TreeExplainer | LinearExplainer, fresh: TreeExplainer | LinearExplainer, X: FloatArray
) -> None:
    one, other = found.explain(X), fresh.explain(X)
    assert one.values.tobytes() == other.values.tobytes()
    assert one.base_values.tobytes() == other.base_values.tobytes()
    assert one.background_digest == other.background_digest
    assert one.engine == other.engine
    assert found.output_scale.tobytes() == fresh.output_scale.tobytes()
    assert found.tolerance == fresh.tolerance
    assert found.outputs(X).tobytes() == fresh.outputs(X).tobytes()


@pytest.mark.parametrize("served", ["table", "walk"])
@pytest.mark.parametrize("size", [1, 64, 130])
@pytest.mark.parametrize("options", [{}, {"n_outputs": 2, "vector_leaves": True, "divisor": 4.0}])
def test_trees_against_another_background_are_those_built_with_it(
    served: TreeEngine, size: int, options: dict[str, float]
) -> None:
    ensemble = random_trees(2, n_columns=COLUMNS, depth=6, **options)
    background, X = random_rows(size, (size, COLUMNS)), random_rows(9, (20, COLUMNS))
    explainer = trees_of(ensemble, random_rows(1, (40, COLUMNS)), served)
    before = explainer.explain(X)
    other = explainer.against(Background.of(background))
    assert (other.engine, other.tolerance) == ("walk", 1e-9)
    assert_same(other, trees_of(ensemble, background, "walk"), X)
    tabled = explainer.against(Background.of(background), engine="auto")
    assert (tabled.engine, tabled.tolerance) == ("table", 1e-5)
    assert_same(tabled, trees_of(ensemble, background), X)
    assert not np.allclose(other.explain(X).values, before.values, rtol=0, atol=1e-3)
    after = explainer.explain(X)
    assert after.values.tobytes() == before.values.tobytes()
    assert after.background_digest == before.background_digest != other.explain(X).background_digest


def test_the_interactions_are_of_the_other_background_too() -> None:
    ensemble = random_trees(2, n_columns=COLUMNS, depth=6)
    background, X = random_rows(3, (30, COLUMNS)), random_rows(9, (5, COLUMNS))
    explainer = trees_of(ensemble, random_rows(1, (40, COLUMNS)))
    found = explainer.against(Background.of(background)).interactions(X).values
    fresh = trees_of(ensemble, background, "walk").interactions(X).values
    assert found.tobytes() == fresh.tobytes()
    assert not np.allclose(found, explainer.interactions(X).values, rtol=0, atol=1e-3)


def test_a_linear_model_against_another_background_is_the_one_built_with_it() -> None:
    first, background, X = (
        np.random.default_rng(seed).normal(size=(size, COLUMNS))
        for seed, size in enumerate((40, 7, 20))
    )
    explainer = linear_of(first)
    assert_same(explainer.against(Background.of(background)), linear_of(background), X)
    assert_same(explainer, linear_of(first), X)


def test_laying_out_and_derivation_are_shared() -> None:
    explainer = trees_of(random_trees(2, n_columns=COLUMNS), random_rows(1, (40, COLUMNS)))
    derivation = explainer._derivation
    assert isinstance(derivation, Reversed)
    derivation.seen.clear()
    other = explainer.against(Background.of(random_rows(3, (30, COLUMNS))))
    assert other._trees is explainer._trees
    assert derivation.seen == [30]


def test_tables_against_another_background_keep_within_the_same_memory() -> None:
    ensemble, background = random_trees(2, n_columns=COLUMNS), random_rows(1, (40, COLUMNS))
    explainer = TreeExplainer(
        ensemble,
        Background.of(background),
        IdentityDerivation.over(COLUMNS),
        naming=naming(1),
        tolerance=1e-9,
        table_bytes=0,
    )
    assert explainer.against(Background.of(background[:9]), engine="auto").table_bytes == 0


def test_a_background_of_other_columns_is_refused() -> None:
    rows = random_rows(1, (4, COLUMNS))
    wider = Background.of(np.zeros((3, COLUMNS + 1)))
    for explainer in (trees_of(random_trees(2, n_columns=COLUMNS), rows), linear_of(rows)):
        with pytest.raises(ValueError, match=f"{COLUMNS + 1} columns for a model of {COLUMNS}"):
            explainer.against(wider)
    with pytest.raises(ValueError, match="a background of 2 columns for a model of 1"):
        LinearExplainer(
            np.ones((1, 1)),
            np.zeros(1),
            Background.of(np.zeros((3, 2))),
            IdentityDerivation.over(1),
            naming=Naming(("a",), ("y",), "raw"),
            tolerance=1e-9,
        )
