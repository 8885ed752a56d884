from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_ensembles import LIBRARIES, random_rows, random_trees

from explainers.base import (
    Background,
    Explanation,
    FloatArray,
    IdentityDerivation,
    IntArray,
    Naming,
)
from explainers.exact import interventional_values
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer

COLUMNS = 6
CLOSE: dict[TreeEngine, dict[str, float]] = {
    "walk": {"rtol": 0, "atol": 1e-12},
    "table": {"rtol": 0, "atol": 2e-6},
}
"""Leaf values are about 1, and tables are float32."""

seeds = st.integers(0, 1 << 32)
sizes = st.sampled_from([1, 2, 5, 63, 64, 65, 130])
every_trait = st.fixed_dictionaries(
    {
        "vector_leaves": st.booleans(),
        "divisor": st.sampled_from([1.0, 5.0]),
        "float32_inputs": st.booleans(),
        "oblivious": st.booleans(),
        "weighted": st.booleans(),
    }
)
libraries = st.sampled_from(sorted(LIBRARIES)).map(lambda name: dict(LIBRARIES[name]))
extents = st.fixed_dictionaries(
    {"depth": st.integers(0, 7), "n_trees": st.integers(1, 5), "n_outputs": st.integers(1, 3)}
)
shapes = st.builds(lambda traits, extent: traits | extent, every_trait | libraries, extents)
engines = st.sampled_from(sorted(CLOSE))
quick = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Picked:
    """Derived columns are raw columns in another order, or the same one twice."""

    players: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return X[:, self.players]


def explainer_of(
    engine: TreeEngine,
    ensemble: TreeEnsemble,
    background: FloatArray,
    players: IntArray | None = None,
) -> TreeExplainer:
    outputs = tuple(f"o{c}" for c in range(ensemble.n_outputs))
    return TreeExplainer(
        ensemble,
        Background.of(background),
        IdentityDerivation.over(ensemble.n_columns) if players is None else Picked(players),
        naming=Naming(tuple(f"f{i}" for i in range(background.shape[1])), outputs, "raw"),
        tolerance=1e-9,
        engine=engine,
    )


def only_tree(ensemble: TreeEnsemble, tree: int) -> TreeEnsemble:
    chosen = slice(tree, tree + 1)
    return replace(ensemble, roots=ensemble.roots[chosen], tree_output=ensemble.tree_output[chosen])


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes)
def test_values_add_up_from_base_to_output(
    engine: TreeEngine, seed: int, size: int, shape: dict[str, Any]
) -> None:
    X = random_rows(seed, (4, COLUMNS))
    # Values are sums in float64, also where the library's own are not.
    ensemble = replace(random_trees(seed, n_columns=COLUMNS, **shape), float32_sums=False)
    explainer = explainer_of(engine, ensemble, random_rows(seed + 1, (size, COLUMNS)))
    explanation: Explanation = explainer.explain(X)
    total = explanation.base_values + explanation.values.sum(axis=1)
    np.testing.assert_allclose(total, explainer.outputs(X), **CLOSE[engine])


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes)
def test_a_column_no_split_tests_gets_exactly_zero(
    engine: TreeEngine, seed: int, size: int, shape: dict[str, Any]
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS - 2, **shape)
    wider = replace(ensemble, n_columns=COLUMNS)
    explainer = explainer_of(engine, wider, random_rows(seed + 1, (size, COLUMNS)))
    assert np.all(explainer.explain(random_rows(seed, (4, COLUMNS))).values[:, -2:] == 0)


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes)
def test_columns_the_model_treats_alike_share_alike(
    engine: TreeEngine, seed: int, size: int, shape: dict[str, Any]
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS, **shape)
    swapped = np.array([1, 0, *range(2, COLUMNS)])
    mirrored = replace(ensemble, column=np.where(ensemble.column < 0, -1, swapped[ensemble.column]))
    X, background = random_rows(seed, (4, COLUMNS)), random_rows(seed + 1, (size, COLUMNS))
    X[:, 1], background[:, 1] = X[:, 0], background[:, 0]
    total = sum(
        explainer_of(engine, model, background).explain(X).values for model in (ensemble, mirrored)
    )
    np.testing.assert_allclose(total[:, 0], total[:, 1], **CLOSE[engine])


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes)
def test_an_ensemble_is_worth_the_sum_of_its_trees(
    engine: TreeEngine, seed: int, size: int, shape: dict[str, Any]
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS, **shape)
    X, background = random_rows(seed, (4, COLUMNS)), random_rows(seed + 1, (size, COLUMNS))
    parts = [
        explainer_of(engine, only_tree(ensemble, tree), background).explain(X).values
        for tree in range(ensemble.n_trees)
    ]
    whole = explainer_of(engine, ensemble, background).explain(X).values
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), **CLOSE[engine])


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes, order=st.permutations(range(COLUMNS)))
def test_the_order_of_the_raw_columns_does_not_matter(
    *, engine: TreeEngine, seed: int, size: int, shape: dict[str, Any], order: list[int]
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS, **shape)
    X, background = random_rows(seed, (4, COLUMNS)), random_rows(seed + 1, (size, COLUMNS))
    values = explainer_of(engine, ensemble, background).explain(X).values
    moved = explainer_of(engine, ensemble, background[:, order], np.argsort(order)).explain(
        X[:, order]
    )
    np.testing.assert_allclose(moved.values, values[:, order], **CLOSE[engine])


@quick
@given(engine=engines, seed=seeds, size=sizes, shape=shapes, times=st.integers(2, 4))
def test_a_background_repeated_is_the_same_background(
    *, engine: TreeEngine, seed: int, size: int, shape: dict[str, Any], times: int
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS, **shape)
    X, background = random_rows(seed, (4, COLUMNS)), random_rows(seed + 1, (size, COLUMNS))
    once = explainer_of(engine, ensemble, background).explain(X)
    often = explainer_of(engine, ensemble, np.tile(background, (times, 1))).explain(X)
    np.testing.assert_allclose(often.values, once.values, **CLOSE[engine])
    np.testing.assert_allclose(often.base_values, once.base_values, **CLOSE[engine])


@quick
@given(engine=engines, seed=seeds, shape=shapes)
def test_a_row_that_is_the_background_has_nothing_to_explain(
    engine: TreeEngine, seed: int, shape: dict[str, Any]
) -> None:
    x = random_rows(seed, (1, COLUMNS))
    explainer = explainer_of(engine, random_trees(seed, n_columns=COLUMNS, **shape), x)
    assert np.all(explainer.explain(x).values == 0)


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, size=sizes, extent=extents, n_columns=st.sampled_from([1, 3, 6, 12]))
def test_tables_and_walk_agree_on_trees_like_any_librarys(
    *, library: str, seed: int, size: int, extent: dict[str, int], n_columns: int
) -> None:
    ensemble = random_trees(seed, n_columns=n_columns, **LIBRARIES[library], **extent)
    X, background = random_rows(seed, (6, n_columns)), random_rows(seed + 1, (size, n_columns))
    table, walk = (explainer_of(e, ensemble, background).explain(X).values for e in sorted(CLOSE))
    scale = float(np.abs(ensemble.leaf_values).max()) / ensemble.divisor
    largest = max(float(np.abs(walk).max()), scale)
    assert np.abs(table - walk).max() <= 1e-6 * largest


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=8, deadline=None)
@given(engine=engines, seed=seeds, extent=extents)
def test_values_of_trees_like_any_librarys_are_brute_force(
    *, library: str, engine: TreeEngine, seed: int, extent: dict[str, int]
) -> None:
    ensemble = random_trees(seed, n_columns=COLUMNS, **LIBRARIES[library], **extent)
    exact = replace(ensemble, float32_sums=False)
    X, background = random_rows(seed, (2, COLUMNS)), random_rows(seed + 1, (7, COLUMNS))
    explainer, model = (explainer_of(engine, e, background) for e in (ensemble, exact))
    for x, found in zip(X, explainer.explain(X).values, strict=True):
        expected = interventional_values(model.outputs, x, background)
        np.testing.assert_allclose(found, expected, **CLOSE[engine])
