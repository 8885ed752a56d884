"""The correlation of attributions with drops, over known functions."""

import itertools

import numpy as np
import pytest

from service.quality.faithfulness import correlation, drops, subsets_of


def test_up_to_six_columns_every_subset_is_taken_away() -> None:
    for count in (1, 2, 6):
        found = {tuple(row) for row in subsets_of(count, np.random.default_rng(0))}
        assert found == set(itertools.product((False, True), repeat=count))


def test_of_more_columns_random_halves_are() -> None:
    found = subsets_of(9, np.random.default_rng(3))
    assert found.shape == (64, 9)
    assert set(found.sum(axis=1)) == {4}
    assert len({tuple(row) for row in found}) > 40
    assert np.array_equal(found, subsets_of(9, np.random.default_rng(3)))


def test_a_drop_is_the_output_less_the_mean_with_the_backgrounds_columns() -> None:
    background = np.array([[0.0, 10.0], [2.0, 30.0]])
    calls: list[int] = []

    def evaluate(rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        return (rows[:, :1] * rows[:, 1:]).repeat(2, axis=1)

    x = np.array([3.0, 5.0])
    subsets = np.array([[False, False], [True, False], [False, True], [True, True]])
    beats: list[None] = []
    found = drops(
        evaluate, x, np.array([15.0, 15.0]), background, subsets, beat=lambda: beats.append(None)
    )
    assert found[:, 0].tolist() == [0.0, 15 - 5.0, 15 - 60.0, 15 - 30.0]
    assert np.array_equal(found[:, 0], found[:, 1])
    assert (sum(calls), len(beats)) == (8, 1)


def test_what_beats_may_end_it() -> None:
    def late() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        drops(
            lambda X: X, np.ones(2), np.ones(2), np.ones((3, 2)), np.ones((4, 2), bool), beat=late
        )


def test_correlation_is_pearsons_for_one_output() -> None:
    draws = np.random.default_rng(0)
    summed, dropped = draws.normal(size=(2, 50, 1))
    expected = np.corrcoef(summed[:, 0], dropped[:, 0])[0, 1]
    assert correlation(summed, dropped) == pytest.approx(expected)
    assert correlation(summed, 3 * summed + 7) == pytest.approx(1)
    assert correlation(summed, -summed) == pytest.approx(-1)


def test_outputs_are_centred_apart_and_weigh_by_how_much_they_vary() -> None:
    draws = np.random.default_rng(0)
    summed = np.column_stack([draws.normal(size=50), 100 + 1e-6 * draws.normal(size=50)])
    dropped = summed.copy()
    dropped[:, 1] = 200 - dropped[::-1, 1]
    assert correlation(summed, dropped) > 0.999
    assert correlation(summed[:, 1:], dropped[:, 1:]) < 0.9


@pytest.mark.parametrize("which", [0, 1])
def test_what_does_not_vary_correlates_with_nothing(which: int) -> None:
    pair = [np.arange(5.0)[:, None], np.arange(5.0)[:, None]]
    pair[which] = np.ones((5, 1))
    assert np.isnan(correlation(*pair))
