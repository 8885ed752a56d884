import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from explainers.base import FloatArray
from explainers.tree.kernel import round_to_float32, strongest

# Few different numbers, so that many are equal or differ in sign only.
rows = arrays(
    np.float64,
    st.tuples(st.integers(0, 4), st.integers(1, 40)),
    elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e300, -5e-324, np.inf]),
)


@given(rows, st.integers(0, 50))
def test_entries_come_by_falling_magnitude_and_equal_ones_in_order(
    contributions: FloatArray, most: int
) -> None:
    entries, picked = strongest(contributions, most)
    expected = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :most]
    assert np.array_equal(entries, expected)
    assert np.array_equal(picked, np.take_along_axis(contributions, expected, axis=1))


def test_rows_with_broken_numbers_do_not_disturb_others() -> None:
    contributions = np.array([[np.nan, 1.0, np.nan, -3.0], [1.0, 4.0, -2.0, 3.0]])
    entries, _ = strongest(contributions, 2)
    assert entries[1].tolist() == [1, 3]


def test_rounding_to_float32_is_numpys() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 7)) * 10.0 ** rng.integers(-50, 50, size=(50, 7))
    X[0] = [np.nan, np.inf, -np.inf, 3.5e38, -0.0, 1e-46, 0.1]
    with np.errstate(over="ignore"):
        expected = X.astype(np.float32).astype(np.float64)
    rounded = X.copy()
    round_to_float32(rounded)
    np.testing.assert_array_equal(rounded, expected)
    assert np.array_equal(np.signbit(rounded), np.signbit(expected))
