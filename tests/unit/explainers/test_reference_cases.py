"""Games whose values are known in closed form or from the literature."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from explainers.base import (
    Background,
    Derivation,
    Explanation,
    FloatArray,
    IdentityDerivation,
    IntArray,
    Naming,
)
from explainers.exact import (
    enumerate_shapley,
    interaction_index,
    interventional_values,
    owen_values,
)
from explainers.linear import LinearExplainer
from explainers.tree.explainer import TreeEngine, TreeExplainer
from explainers.tree.sklearn import parse_sklearn

UNIFORM = np.array(list(product([0.0, 1.0], repeat=2)))
ZERO = np.zeros((1, 2))
ONES = np.ones(2)

Model = Callable[[FloatArray], FloatArray]


def game(worth: Callable[[frozenset[int]], float], n_players: int) -> FloatArray:
    coalitions = range(1 << n_players)
    members = [frozenset(i for i in range(n_players) if s >> i & 1) for s in coalitions]
    return np.array([worth(coalition) for coalition in members])


GLOVE = game(lambda s: float(0 in s and len(s) > 1), 3)
AIRPORT = game(lambda s: float(max((i + 1 for i in s), default=0)), 3)
VOTES = game(lambda s: float(sum((50, 30, 20)[i] for i in s) >= 51), 3)


def column(function: Callable[..., FloatArray]) -> Model:
    return lambda X: function(*X.T)[:, None]


def both(a: FloatArray, b: FloatArray) -> FloatArray:
    return a * b


def either(a: FloatArray, b: FloatArray) -> FloatArray:
    return (a != b).astype(np.float64)


def explained(
    function: Callable[..., FloatArray],
    x: FloatArray,
    background: FloatArray,
    engine: TreeEngine,
    derivation: Derivation | None = None,
) -> Explanation:
    """By a tree that equals the function wherever its columns are 0, 1, 2 or 3."""
    n_columns = function.__code__.co_argcount
    grid = np.array(list(product(range(4), repeat=n_columns)), dtype=np.float64)
    tree = DecisionTreeRegressor(random_state=0).fit(grid, function(*grid.T))
    explainer = TreeExplainer(
        parse_sklearn(tree),
        Background.of(background),
        derivation or IdentityDerivation.over(n_columns),
        naming=Naming(tuple(f"f{i}" for i in range(len(x))), ("y",), "raw"),
        tolerance=1e-9,
        engine=engine,
    )
    return explainer.explain(x[None])


def played_by(game_: FloatArray) -> Callable[[FloatArray, FloatArray, FloatArray], FloatArray]:
    """A column that is not 0 brings its player in."""
    return lambda a, b, c: game_[((a > 0) + 2 * (b > 0) + 4 * (c > 0)).astype(int)]


ENGINES: tuple[TreeEngine, ...] = ("table", "walk")
TREES: dict[str, tuple[Callable[..., FloatArray], list[float], FloatArray, float, list[float]]] = {
    "R1": (played_by(GLOVE), [1, 1, 1], np.zeros((1, 3)), 0, [2 / 3, 1 / 6, 1 / 6]),
    "R2": (played_by(AIRPORT), [1, 1, 1], np.zeros((1, 3)), 0, [1 / 3, 5 / 6, 11 / 6]),
    "R3": (played_by(VOTES), [1, 1, 1], np.zeros((1, 3)), 0, [2 / 3, 1 / 6, 1 / 6]),
    "R4 at 1 and 1": (either, [1, 1], UNIFORM, 0.5, [-0.25, -0.25]),
    "R4 at 0 and 1": (either, [0, 1], UNIFORM, 0.5, [0.25, 0.25]),
    "R5, uniform": (
        lambda a, b: np.minimum(a * b, 1), [1, 1], UNIFORM, 0.25, [0.375, 0.375],
    ),
    "R5, from zero": (lambda a, b: np.minimum(a * b, 1), [1, 1], ZERO, 0, [0.5, 0.5]),
    "R6": (lambda a, b: 80 * a * b, [1, 1], UNIFORM, 20, [30, 30]),
    "R6, cough also alone": (lambda a, b: 80 * a * b + 10 * b, [1, 1], UNIFORM, 25, [30, 35]),
    "R8": (
        lambda a, b, c: np.maximum(np.maximum(a, b), c), [3, 1, 2], np.zeros((1, 3)), 0,
        [11 / 6, 1 / 3, 5 / 6],
    ),
    "R9, columns apart": (
        lambda a, b, c: (a == 1) * (b == 0) * (c == 1) * 1.0, [1, 0, 1], np.array([[0, 1, 0]]), 0,
        [1 / 3, 1 / 3, 1 / 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", TREES.values(), ids=TREES)
def test_trees_of_the_reference_cases_are_worth_what_the_games_are(
    case: tuple[Callable[..., FloatArray], list[float], FloatArray, float, list[float]],
    engine: TreeEngine,
) -> None:
    function, x, background, base, expected = case
    explanation = explained(function, np.array(x, dtype=np.float64), background, engine)
    assert explanation.base_values[0, 0] == pytest.approx(base, abs=1e-12)
    np.testing.assert_allclose(explanation.values[0, :, 0], expected, rtol=0, atol=1e-6 * max(x))


@dataclass(frozen=True)
class Grouped:
    """R9's one-hot group: column 0 is 0 for (1, 0) and 1 for (0, 1); the other is itself."""

    players: IntArray

    def __call__(self, X: FloatArray) -> FloatArray:
        return np.column_stack([X[:, 0] == 0, X[:, 0] == 1, X[:, 1]]).astype(np.float64)


@pytest.mark.parametrize("engine", ENGINES)
def test_trees_of_a_one_hot_group_are_worth_its_one_player(engine: TreeEngine) -> None:
    derivation = Grouped(np.array([0, 0, 1]))
    function = TREES["R9, columns apart"][0]
    background = np.array([[1.0, 0.0]])
    values = explained(function, np.array([0.0, 1.0]), background, engine, derivation).values
    np.testing.assert_allclose(values[0, :, 0], [0.5, 0.5], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("played", "expected"),
    [
        (GLOVE, [2 / 3, 1 / 6, 1 / 6]),
        (AIRPORT, [1 / 3, 5 / 6, 11 / 6]),
        (VOTES, [2 / 3, 1 / 6, 1 / 6]),
    ],
    ids=["glove", "airport", "votes"],
)
def test_shapley_values_of_classic_games(played: FloatArray, expected: list[float]) -> None:
    np.testing.assert_allclose(enumerate_shapley(played, 3), expected, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "share", "interaction"), [((1.0, 1.0), -0.25, -0.5), ((0.0, 1.0), 0.25, 0.5)]
)
def test_exclusive_or_splits_evenly_and_interacts(
    x: tuple[float, float], share: float, interaction: float
) -> None:
    row = np.array(x)
    values = interventional_values(column(either), row, UNIFORM)
    np.testing.assert_allclose(values[:, 0], [share, share])
    hybrids = [np.where([s & 1, s >> 1 & 1], row, UNIFORM) for s in range(4)]
    played = np.array([either(*hybrid.T).mean() for hybrid in hybrids])
    assert played[0] == 0.5
    assert interaction_index(played, 0, 1, n_players=2) == pytest.approx(interaction)


@pytest.mark.parametrize(
    ("model", "background", "base", "expected"),
    [
        (both, UNIFORM, 0.25, [0.375, 0.375]),
        (both, ZERO, 0.0, [0.5, 0.5]),
        (lambda a, b: 80 * a * b, UNIFORM, 20.0, [30.0, 30.0]),
        (lambda a, b: 80 * a * b + 10 * b, UNIFORM, 25.0, [30.0, 35.0]),
    ],
    ids=["and", "and from zero", "fever and cough", "fever and cough, cough also alone"],
)
def test_conjunctions(
    model: Callable[..., FloatArray], background: FloatArray, base: float, expected: list[float]
) -> None:
    predict = column(model)
    assert predict(background).mean() == base
    np.testing.assert_allclose(
        interventional_values(predict, ONES, background)[:, 0], expected, atol=1e-13
    )


def test_a_linear_model_by_enumeration_and_in_closed_form() -> None:
    coefficients, intercept = np.array([[2.0], [-1.0], [0.5]]), np.array([3.0])
    x, background = np.array([3.0, 1.0, 2.0]), np.array([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]])
    enumerated = interventional_values(lambda X: X @ coefficients + intercept, x, background)
    explainer = LinearExplainer(
        coefficients,
        intercept,
        Background.of(background),
        IdentityDerivation.over(3),
        naming=Naming(("a", "b", "c"), ("y",), "raw"),
        tolerance=1e-9,
    )
    explanation = explainer.explain(x[None])
    assert explanation.base_values.tolist() == [[5.0]]
    assert explainer.outputs(x[None]).tolist() == [[9.0]]
    assert explanation.values[0, :, 0].tolist() == [4.0, 1.0, -1.0]
    np.testing.assert_allclose(enumerated[:, 0], [4.0, 1.0, -1.0])


def test_the_maximum_of_three() -> None:
    values = interventional_values(
        lambda X: X.max(axis=1, keepdims=True), np.array([3.0, 1.0, 2.0]), np.zeros((1, 3))
    )
    np.testing.assert_allclose(values[:, 0], [11 / 6, 1 / 3, 5 / 6])


def test_a_group_is_worth_something_else_than_the_sum_of_its_columns() -> None:
    predict = column(lambda a, b, c: a * (1 - b) * c)
    x, background = np.array([1.0, 0.0, 1.0]), np.array([[0.0, 1.0, 0.0]])
    columns = interventional_values(predict, x, background)[:, 0]
    players = np.array([0, 0, 1])
    grouped = interventional_values(predict, x, background, players=players)[:, 0]
    np.testing.assert_allclose(columns, [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(grouped, [0.5, 0.5])


@pytest.mark.parametrize("played", [VOTES, GLOVE], ids=["votes", "glove"])
def test_owen_values_where_the_first_two_form_a_union(played: FloatArray) -> None:
    np.testing.assert_allclose(owen_values(played, [[0, 1], [2]]), [0.75, 0.25, 0], atol=1e-15)
