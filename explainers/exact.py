"""The oracle: values by enumerating all coalitions, from their definitions and nothing else.

A game of K players is the vector of its 2^K values (or, for C outputs, a (2^K, C) matrix); bit i
of the index says whether player i is in. Cost doubles with every player.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from math import factorial

import numpy as np

from explainers.base import FloatArray, IntArray, Values

Predict = Callable[[FloatArray], FloatArray]
"""(N, F) raw rows to (N, C) outputs."""

ROWS_PER_CALL = 65_536


def enumerate_shapley(game: FloatArray, n_players: int) -> FloatArray:
    """Shapley values of a game: (K,), or (K, C) for C outputs. Source: Shapley 1953."""
    coalitions = _coalitions(game, n_players)
    sizes = np.bitwise_count(coalitions)
    weights = _orders(n_players)
    values = np.empty((n_players, *game.shape[1:]))
    for player in range(n_players):
        without = coalitions[coalitions >> player & 1 == 0]
        gains = game[without | 1 << player] - game[without]
        values[player] = np.tensordot(weights[sizes[without]], gains, axes=1)
    return values


def interaction_index(game: FloatArray, first: int, second: int, *, n_players: int) -> FloatArray:
    """Shapley interaction index of two players: () or (C,). Source: Grabisch, Roubens 1999."""
    coalitions = _coalitions(game, n_players)
    pair = 1 << first | 1 << second
    without = coalitions[coalitions & pair == 0]
    together = game[without | pair] - game[without | 1 << first]
    apart = game[without | 1 << second] - game[without]
    weights = _orders(n_players - 1)[np.bitwise_count(without)]
    return np.asarray(np.tensordot(weights, together - apart, axes=1))


def enumerate_interactions(game: FloatArray, n_players: int) -> FloatArray:
    """(K, K), or (K, K, C): halves of all interaction indices, and main effects on the diagonal,
    so that rows sum to the Shapley values. Source: Lundberg et al. 2020.
    """
    values = enumerate_shapley(game, n_players)
    pairs = np.zeros((n_players, *values.shape))
    for i, j in permutations(range(n_players), 2):
        pairs[i, j] = interaction_index(game, i, j, n_players=n_players) / 2
    each = np.arange(n_players)
    pairs[each, each] = values - pairs.sum(axis=1)
    return pairs


def owen_values(game: FloatArray, unions: Sequence[Sequence[int]]) -> FloatArray:
    """Owen values of a game whose players are partitioned into unions. Source: Owen 1977."""
    n_players = sum(len(union) for union in unions)
    _coalitions(game, n_players)
    values = np.zeros((n_players, *game.shape[1:]))
    for own, union in enumerate(unions):
        others = [_bits(other) for k, other in enumerate(unions) if k != own]
        for player in union:
            mates = [1 << mate for mate in union if mate != player]
            for outside, outer in _weighted_subsets(others):
                for inside, inner in _weighted_subsets(mates):
                    base = outside | inside
                    values[player] += outer * inner * (game[base | 1 << player] - game[base])
    return values


def interventional_values(
    predict: Predict,
    x: FloatArray,
    background_rows: FloatArray,
    *,
    players: IntArray | None = None,
) -> FloatArray:
    """(K, C) Shapley values of row x, (F,), against background rows, (B, F).

    players (F,) names each column's player, 0 to K - 1; by default each column is its own.
    Cost: 2^K * B model rows.
    """
    owners = np.arange(len(x)) if players is None else players
    n_players = int(owners.max()) + 1
    groups = [np.flatnonzero(owners == player) for player in range(n_players)]
    return enumerate_shapley(play(predict, x, background_rows, groups), n_players)


def interventional_interactions(
    predict: Predict, x: FloatArray, background_rows: FloatArray
) -> FloatArray:
    """(F, F, C) interactions of the columns of row x, (F,), as `enumerate_interactions` lays them
    out. Cost: 2^F * B model rows.
    """
    groups = [np.array([column]) for column in range(len(x))]
    return enumerate_interactions(play(predict, x, background_rows, groups), len(x))


def play(
    predict: Predict, x: FloatArray, background_rows: FloatArray, groups: Sequence[IntArray]
) -> FloatArray:
    """(2^K, C) mean outputs over the background with each coalition's columns taken from x.

    groups: each player's columns; a column in no group is the background's throughout. Cost:
    2^K * B model rows.
    """
    n_rows = len(background_rows)
    membership = np.zeros((1 << len(groups), len(x)), dtype=np.bool_)
    for player, columns in enumerate(groups):
        present = np.arange(len(membership)) >> player & 1 == 1
        membership[:, columns] = present[:, None]
    step = coalitions_at_once(n_rows)
    means = []
    for start in range(0, len(membership), step):
        chosen = membership[start : start + step, None, :]
        hybrids = np.where(chosen, x, background_rows).reshape(-1, len(x))
        outputs = predict(hybrids)
        means.append(outputs.reshape(-1, n_rows, outputs.shape[1]).mean(axis=1))
    return np.concatenate(means)


def coalitions_at_once(n_background_rows: int) -> int:
    """How many coalitions `play` evaluates in one call."""
    return max(1, ROWS_PER_CALL // n_background_rows)


def restricted_oracle(
    predict: Predict, X: FloatArray, background_rows: FloatArray, columns: IntArray
) -> Values:
    """(N, K, C) Shapley values of K chosen columns in each row's restricted game.

    In every background row all other columns take the explained row's value, so that wide models
    can be enumerated too. Cost: N * 2^K * B model rows.
    """
    groups = [np.array([column]) for column in columns]
    games = (
        play(predict, x, restricted_background(background_rows, x, columns), groups) for x in X
    )
    return np.stack([enumerate_shapley(game, len(columns)) for game in games])


def restricted_background(
    background_rows: FloatArray, x: FloatArray, columns: IntArray
) -> FloatArray:
    """(B, F) background rows that differ from x in the chosen columns only."""
    rows = np.tile(x, (len(background_rows), 1))
    rows[:, columns] = background_rows[:, columns]
    return rows


def _coalitions(game: FloatArray, n_players: int) -> IntArray:
    if len(game) != 1 << n_players:
        raise ValueError(f"{n_players} players have {1 << n_players} coalitions, not {len(game)}")
    return np.arange(len(game))


def _orders(n_players: int) -> FloatArray:
    """weights[s] = s! (n - s - 1)! / n!, the share of orders with s given players just before."""
    n = n_players
    return np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])


def _bits(players: Sequence[int]) -> int:
    return sum(1 << player for player in players)


def _weighted_subsets(blocks: Sequence[int]) -> Iterator[tuple[int, float]]:
    weights = _orders(len(blocks) + 1)
    for size in range(len(blocks) + 1):
        for chosen in combinations(blocks, size):
            yield sum(chosen), float(weights[size])
