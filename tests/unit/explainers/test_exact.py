from itertools import permutations

import numpy as np
import pytest

from explainers.base import FloatArray
from explainers.exact import (
    enumerate_shapley,
    interaction_index,
    interventional_values,
    owen_values,
    restricted_background,
    restricted_oracle,
)


def by_orders(game: FloatArray, n_players: int) -> FloatArray:
    orders = list(permutations(range(n_players)))
    values = np.zeros((n_players, *game.shape[1:]))
    for order in orders:
        present = 0
        for player in order:
            values[player] += game[present | 1 << player] - game[present]
            present |= 1 << player
    return values / len(orders)


def bumpy(X: FloatArray) -> FloatArray:
    return np.column_stack([X[:, 0] * X[:, 1] * X[:, 2] + np.sin(X[:, 3]), X.max(axis=1)])


def test_enumeration_averages_over_all_orders() -> None:
    game = np.random.default_rng(0).normal(size=(32, 2))
    np.testing.assert_allclose(enumerate_shapley(game, 5), by_orders(game, 5), atol=1e-14)


def test_a_game_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 players have 8 coalitions"):
        enumerate_shapley(np.zeros(7), 3)
    with pytest.raises(ValueError, match="2 players have 4 coalitions"):
        owen_values(np.zeros(8), [[0], [1]])
    with pytest.raises(ValueError, match="2 players have 4 coalitions"):
        interaction_index(np.zeros(8), 0, 1, n_players=2)


def test_interaction_of_two_players_vanishes_in_an_additive_game() -> None:
    worth = np.array([1.0, 2.0, 4.0])
    game = np.array([sum(worth[i] for i in range(3) if s >> i & 1) for s in range(8)])
    assert interaction_index(game, 0, 2, n_players=3) == 0
    with_bonus = game + [10.0 * (s & 5 == 5) for s in range(8)]
    assert interaction_index(with_bonus, 0, 2, n_players=3) == pytest.approx(10)


def test_owen_values_of_singletons_and_of_one_union_are_shapley_values() -> None:
    game = np.random.default_rng(1).normal(size=16)
    shapley = enumerate_shapley(game, 4)
    np.testing.assert_allclose(owen_values(game, [[0], [1], [2], [3]]), shapley, atol=1e-14)
    np.testing.assert_allclose(owen_values(game, [[3, 1, 0, 2]]), shapley, atol=1e-14)


def test_values_add_up_from_the_background_mean_to_the_output() -> None:
    rng = np.random.default_rng(2)
    background, x = rng.normal(size=(7, 4)), rng.normal(size=4)
    values = interventional_values(bumpy, x, background)
    np.testing.assert_allclose(
        values.sum(axis=0), bumpy(x[None])[0] - bumpy(background).mean(axis=0), atol=1e-13
    )


def test_a_game_larger_than_one_model_call_is_the_same_game() -> None:
    rng = np.random.default_rng(3)
    background, x = rng.normal(size=(20_000, 4)), rng.normal(size=4)
    calls = []

    def counting(X: FloatArray) -> FloatArray:
        calls.append(len(X))
        return bumpy(X)

    values = interventional_values(counting, x, background)
    parts = [interventional_values(bumpy, x, half) for half in np.split(background, 2)]
    assert len(calls) > 1
    assert max(calls) <= 65_536
    np.testing.assert_allclose(values, np.mean(parts, axis=0), atol=1e-13)


def test_the_restricted_game_is_the_full_game_on_its_own_background() -> None:
    rng = np.random.default_rng(4)
    background, X, columns = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), np.array([3, 1])
    values = restricted_oracle(bumpy, X, background, columns)
    for x, found in zip(X, values, strict=True):
        full = interventional_values(bumpy, x, restricted_background(background, x, columns))
        np.testing.assert_allclose(found, full[columns], atol=1e-14)
        np.testing.assert_allclose(full[[0, 2]], 0, atol=1e-14)


def test_the_restricted_background_differs_in_the_chosen_columns_only() -> None:
    background, x = np.arange(6.0).reshape(2, 3), np.array([7.0, 8.0, 9.0])
    restricted = restricted_background(background, x, np.array([1]))
    assert restricted.tolist() == [[7.0, 1.0, 9.0], [7.0, 4.0, 9.0]]
