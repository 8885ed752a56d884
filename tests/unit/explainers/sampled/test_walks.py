import numpy as np

from explainers.sampled.walks import Walks, differing, places_of

NAN = np.nan
PINNED = [
    7469956488847629040,
    8248389851834760669,
    6566499890905307795,
    15644250084588677770,
    11445636143933476108,
]


def test_missing_equals_missing_and_nothing_else() -> None:
    x = np.array([1.0, NAN, NAN, 0.0])
    rows = np.array([[1.0, NAN, 2.0, -0.0], [NAN, 3.0, NAN, 1.0]])
    assert differing(x, rows).tolist() == [[False, False, True, False], [True, True, False, True]]


def test_what_is_drawn_from_a_seed_never_changes() -> None:
    """Replays of stored explanations depend on these very numbers."""
    drawn = np.random.Philox(key=(1 << 53) - 1).random_raw(5)
    assert drawn.tolist() == PINNED
    assert places_of(drawn).tolist() == np.argsort(np.argsort(PINNED)).tolist()


def test_a_pair_walks_there_and_back_through_the_columns_that_differ() -> None:
    x, rows = np.array([1.0, 2.0, 3.0, 4.0]), np.array([[9.0, 8.0, 3.0, 7.0]])
    walks = Walks(x, rows)
    assert walks.hybrids_per_pass == 4
    assert walks.can_vary.tolist() == [[True, True, False, True]]
    places = walks.places(np.array([[[30, 10, 0, 20]]], dtype=np.uint64) << np.uint64(8))
    assert places.tolist() == [[[2, 0, 3, 1]]]
    found = walks.hybrids(places, 0, 4)
    assert found.tolist() == [
        [9.0, 2.0, 3.0, 7.0],
        [9.0, 2.0, 3.0, 4.0],
        [1.0, 8.0, 3.0, 4.0],
        [1.0, 8.0, 3.0, 7.0],
    ]
    outputs = np.array([[1.0], [5.0], [20.0], [11.0]])
    gains = walks.gains(places[0], outputs, np.array([[0.0]]), np.array([30.0]))
    # There 1, 4 and 25 for columns 1, 3 and 0; back 10, 9 and 11.
    assert gains[0, :, 0].tolist() == [18.0, 5.5, 0.0, 6.5]


def test_rows_one_or_two_columns_away_are_not_sampled_needlessly() -> None:
    x = np.array([1.0, 1.0, 1.0])
    rows = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    walks = Walks(x, rows)
    assert walks.hybrids_per_pass == 2
    assert not walks.can_vary.any()
    draws = [[[5, 6, 7]] * 3, [[6, 5, 7]] * 3]
    places = walks.places(np.array(draws, dtype=np.uint64) << np.uint64(8))
    found = walks.hybrids(places, 0, 4)
    assert found.tolist() == [[1, 0, 1], [0, 1, 1], [0, 1, 1], [1, 0, 1]]
    starts, end = np.array([[7.0], [4.0], [1.0]]), np.array([7.0])
    # Of f(1, 0, 1) = 2 and f(0, 1, 1) = 4, whichever comes first.
    for place, outputs in zip(places, ([[2.0], [4.0]], [[4.0], [2.0]]), strict=True):
        gains = walks.gains(place, np.array(outputs), starts, end)
        assert gains[:, :, 0].tolist() == [[0, 0, 0], [3, 0, 0], [2, 4, 0]]


def test_the_stretch_of_hybrids_made_at_once_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    walks = Walks(rng.normal(size=6), rng.normal(size=(5, 6)))
    places = walks.places(rng.integers(1 << 62, size=(3, 5, 6)).astype(np.uint64))
    whole = walks.hybrids(places, 0, 3 * walks.hybrids_per_pass)
    parts = [walks.hybrids(places, i, i + 10) for i in range(0, len(whole), 10)]
    assert np.array_equal(np.concatenate(parts), whole)
    for hybrid in whole:
        from_x = hybrid == walks._x
        assert 0 < from_x.sum() < 6
        assert np.any(np.all(from_x | (hybrid == walks._background_rows), axis=1))
