from dataclasses import dataclass

import numpy as np
import pytest
from plain_trees import traverse
from random_ensembles import random_rows, random_trees

from explainers import base
from explainers.base import (
    Background,
    Derivation,
    FloatArray,
    IdentityDerivation,
    IntArray,
    Interactions,
    Naming,
    ResultTooLargeError,
)
from explainers.exact import interventional_interactions
from explainers.linear import LinearExplainer
from explainers.tree.build import EnsembleBuilder, TreeNodes
from explainers.tree.ensemble import TreeEnsemble
from explainers.tree.explainer import TreeEngine, TreeExplainer

KINDS = {
    "one output": {},
    "float32 inputs": {"float32_inputs": True},
    "an output a tree": {"n_outputs": 3},
    "leaf vectors": {"n_outputs": 3, "vector_leaves": True, "divisor": 4.0},
    "two columns, deep": {"n_columns": 2, "depth": 7},
    "eight columns, deep": {"n_columns": 8, "depth": 8, "n_trees": 2},
    "one column": {"n_columns": 1, "depth": 5},
    "leaves alone": {"depth": 0},
}
LINEAR = np.array([[2.0, 0.0], [-1.0, 3.0], [0.5, 1.0]])
UNIFORM = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@dataclass(frozen=True)
class OneHot:
    """Column 0, level codes of three, as three indicators; the other columns as they are."""

    players: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return np.column_stack([X[:, :1] == [0.0, 1.0, 2.0], X[:, 1:]])


@dataclass(frozen=True)
class Picked:
    """Derived columns are some of the raw columns."""

    players: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return X[:, self.players]


def naming_of(n_features: int, n_outputs: int) -> Naming:
    outputs = tuple(f"o{c}" for c in range(n_outputs))
    return Naming(tuple(f"f{i}" for i in range(n_features)), outputs, "raw")


def explainer_of(
    ensemble: TreeEnsemble,
    background: FloatArray,
    engine: TreeEngine = "walk",
    derivation: Derivation | None = None,
) -> TreeExplainer:
    return TreeExplainer(
        ensemble,
        Background.of(background),
        derivation or IdentityDerivation.over(ensemble.n_columns),
        naming=naming_of(background.shape[1], ensemble.n_outputs),
        tolerance=1e-9,
        engine=engine,
    )


def linear_explainer() -> LinearExplainer:
    return LinearExplainer(
        LINEAR,
        np.zeros(2),
        Background.of(np.array([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]])),
        IdentityDerivation.over(3),
        naming=naming_of(3, 2),
        tolerance=1e-9,
    )


def exclusive_or() -> TreeEnsemble:
    inner, leaf = [0, 1, 1], [-1] * 4
    builder = EnsembleBuilder(2, base=[0.0])
    builder.add_tree(
        TreeNodes(
            left=np.array([1, 3, 5, *leaf]),
            right=np.array([2, 4, 6, *leaf]),
            column=np.array([*inner, *leaf]),
            threshold=np.full(7, 0.5),
            leaf_values=np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
        )
    )
    return builder.build()


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_interactions_are_those_of_brute_force(seed: int, options: dict[str, float]) -> None:
    ensemble = random_trees(seed, **options)
    background = random_rows(seed + 100, (20, ensemble.n_columns))
    X = random_rows(seed + 200, (4, ensemble.n_columns))
    found = explainer_of(ensemble, background).interactions(X).values
    for x, pairs in zip(X, found, strict=True):
        expected = interventional_interactions(lambda Z: traverse(ensemble, Z), x, background)
        np.testing.assert_allclose(pairs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 129])
def test_backgrounds_of_any_size_give_the_interactions_of_brute_force(size: int) -> None:
    ensemble, background, x = (
        random_trees(7, depth=5),
        random_rows(size, (size, 5)),
        np.ones((1, 5)),
    )
    found = explainer_of(ensemble, background).interactions(x).values[0]
    expected = interventional_interactions(lambda Z: traverse(ensemble, Z), x[0], background)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_one_hot_columns_interact_as_the_column_they_are_made_from(seed: int) -> None:
    ensemble = random_trees(seed, n_columns=6, depth=6)
    derivation = OneHot(np.array([0, 0, 0, 1, 2, 3]))
    levels = np.random.default_rng(seed).integers(0, 3, (24, 1)).astype(float)
    rows = np.hstack([levels, random_rows(seed, (24, 3))])
    found = explainer_of(ensemble, rows[4:], derivation=derivation).interactions(rows[:4]).values
    for x, pairs in zip(rows[:4], found, strict=True):
        expected = interventional_interactions(
            lambda Z: traverse(ensemble, derivation(Z)), x, rows[4:]
        )
        np.testing.assert_allclose(pairs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["walk", "table"])
def test_rows_sum_to_the_values_explained(engine: TreeEngine) -> None:
    ensemble = random_trees(1, n_columns=12, n_outputs=2, depth=7)
    explainer = explainer_of(ensemble, random_rows(1, (70, 12)), engine)
    X = random_rows(2, (9, 12))
    found = explainer.interactions(X)
    values = explainer.explain(X).values
    assert found.explanation.engine == engine
    assert found.explanation.values.tobytes() == values.tobytes()
    np.testing.assert_allclose(found.values.sum(axis=2), values, rtol=0, atol=1e-14)
    assert np.array_equal(found.values, found.values.transpose(0, 2, 1, 3))
    assert np.abs(found.values[:, 0, 1:]).max() > 1e-3


def test_columns_no_split_tests_interact_with_none() -> None:
    explainer = explainer_of(
        random_trees(3, n_columns=4),
        random_rows(1, (30, 6)),
        derivation=Picked(np.array([0, 2, 3, 4])),
    )
    pairs = explainer.interactions(random_rows(2, (5, 6))).values
    for unused in (1, 5):
        assert np.all(pairs[:, unused] == 0)
        assert np.all(pairs[:, :, unused] == 0)


@pytest.mark.parametrize(
    ("x", "share", "index"), [((1.0, 1.0), -0.25, -0.5), ((0.0, 1.0), 0.25, 0.5)]
)
def test_exclusive_or_is_interaction_alone(
    x: tuple[float, float], share: float, index: float
) -> None:
    found = explainer_of(exclusive_or(), UNIFORM).interactions(np.array([x]))
    assert found.explanation.base_values.tolist() == [[0.5]]
    assert found.explanation.values[0, :, 0].tolist() == [share, share]
    halves = index / 2
    assert found.values[0, :, :, 0].tolist() == [
        [share - halves, halves],
        [halves, share - halves],
    ]


def test_a_row_has_the_same_bytes_alone_and_in_a_batch() -> None:
    explainer = explainer_of(random_trees(3, n_outputs=2), random_rows(1, (65, 5)))
    X = random_rows(2, (20, 5))
    alone = [explainer.interactions(x[None]).values for x in X]
    assert explainer.interactions(X).values.tobytes() == np.concatenate(alone).tobytes()


def test_columns_of_a_linear_model_do_not_interact() -> None:
    found = linear_explainer().interactions(np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 0.0]]))
    for output in range(2):
        values = found.explanation.values[:, :, output]
        expected = [np.diag(row) for row in values]
        assert np.array_equal(found.values[..., output], expected)
    assert found.explanation.values[0, :, 0].tolist() == [4.0, 1.0, -1.0]


def test_interactions_beyond_the_memory_allowed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "PAIR_BYTES", 3 * 8 * 5 * 5 * 2)
    explainer = explainer_of(random_trees(0, n_outputs=2), random_rows(1, (3, 5)))
    assert len(explainer.interactions(np.zeros((3, 5))).values) == 3
    with pytest.raises(ResultTooLargeError, match=r"400 bytes a row: ask for at most 3 rows"):
        explainer.interactions(np.zeros((4, 5)))
    with pytest.raises(ResultTooLargeError, match="at most 8 rows at once, not 9"):
        linear_explainer().interactions(np.zeros((9, 3)))


def test_interactions_of_another_shape_are_refused() -> None:
    explanation = linear_explainer().explain(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"values must be \(2, 3, 3, 2\)"):
        Interactions(np.zeros((2, 3, 3, 1)), explanation)
