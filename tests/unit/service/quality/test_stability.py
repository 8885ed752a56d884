"""Neighbours of a row, and the likeness of their attributions."""

import math

import numpy as np
import pytest

from service.quality.stability import Surroundings, mean_cosine, neighbours_of

COUNT = 400
BACKGROUND = np.column_stack(
    [
        np.linspace(-1, 1, 50),  # a number
        np.arange(50) % 7 * 10.0,  # a whole number
        np.arange(50) % 3 * 1.0,  # a category
        np.full(50, 4.0),  # a number that never varies
        np.full(50, math.nan),  # a number that is always missing
    ]
)
AROUND = Surroundings(
    background=BACKGROUND,
    lows=np.array([-1.0, 0.0, -math.inf, 4.0, -math.inf]),
    highs=np.array([1.0, 60.0, math.inf, 4.0, math.inf]),
    is_numeric=np.array([True, True, False, True, True]),
    is_whole=np.array([False, True, False, False, False]),
)
X = np.array([0.2, 30.0, 1.0, 4.0, math.nan])


def near(x: np.ndarray = X, seed: int = 0, around: Surroundings = AROUND) -> np.ndarray:
    return neighbours_of(x, around, np.random.default_rng(seed), COUNT)


def test_numbers_move_by_a_share_of_their_spread_and_stay_what_they_are() -> None:
    found = near()
    assert len(found) == COUNT
    assert np.std(found[:, 0] - X[0]) == pytest.approx(0.05 * np.std(BACKGROUND[:, 0]), rel=0.15)
    assert np.array_equal(found[:, 1], np.rint(found[:, 1]))
    assert len(np.unique(found[:, 1])) > 3
    assert (found[:, 3] == 4).all()
    assert np.isnan(found[:, 4]).all()


def test_categories_seldom_change_and_then_to_one_of_the_background() -> None:
    found = near()[:, 2]
    assert set(np.unique(found)) == {0.0, 1.0, 2.0}
    assert 0.01 < np.mean(found != X[2]) < 0.07


def test_numbers_stay_in_the_range_seen_or_where_the_row_itself_was() -> None:
    edge = near(np.array([1.0, 60.0, 0.0, 4.0, math.nan]))
    assert edge[:, 0].max() == 1
    assert edge[:, 1].max() == 60
    low = near(np.array([-1.0, 0.0, 0.0, 4.0, math.nan]))
    assert (low[:, 0].min(), low[:, 1].min()) == (-1, 0)
    outside = near(np.array([5.0, 30.0, 0.0, 4.0, math.nan]))
    assert (outside[:, 0].min() < 5, outside[:, 0].max()) == (True, 5)


def test_every_neighbour_differs_even_where_only_categories_can() -> None:
    found = near(np.array([math.nan, math.nan, 1.0, 4.0, math.nan]))
    assert len(found) > COUNT / 4
    assert (found[:, 2] != 1).all()


@pytest.mark.parametrize("x", [[math.nan] * 5, [math.nan, math.nan, math.nan, 4.0, math.nan]])
def test_a_row_without_anything_to_move_has_no_neighbours(x: list[float]) -> None:
    assert len(near(np.array(x))) == 0


def test_the_same_seed_gives_the_same_neighbours() -> None:
    assert np.array_equal(near(seed=5), near(seed=5), equal_nan=True)
    assert not np.array_equal(near(seed=5), near(seed=6), equal_nan=True)


def test_likeness_is_the_cosine_over_all_outputs_together() -> None:
    values = np.array([[3.0, 0.0], [0.0, 4.0]])
    turned = np.array([[0.0, -4.0], [3.0, 0.0]])
    assert mean_cosine(values, values[None] * 7, 0.0) == pytest.approx(1)
    assert mean_cosine(values, -values[None], 0.0) == pytest.approx(-1)
    assert mean_cosine(values, np.stack([values, turned]), 0.0) == pytest.approx(0.5)


def test_what_is_no_longer_than_the_floor_is_like_nothing() -> None:
    values = np.array([[3.0], [4.0]])
    others = np.stack([values, values * 1e-12, np.zeros((2, 1))])
    assert mean_cosine(values, others, 1e-9) == pytest.approx(1 / 3)
