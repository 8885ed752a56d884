"""The rule by which numbers of a record are printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrated import NUMERAL, assert_rounds_to

from service.narratives.numerals import in_full, percent, plain, signed

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (22.0, "22"),
        (1169, "1169"),
        (9007199254740993, "9007199254740993"),
        (0.71094999, "0.7109"),
        (0.99999, "1"),
        (12345.678, "12346"),
        (999.96, "1000"),
        (0.5, "0.5"),
        (-0.84, "-0.84"),
        (2e-9, "2.0e-9"),
        (1.25e20, "1.2e+20"),
    ],
)
def test_four_digits_whole_numbers_in_full_and_exponents_at_the_ends(
    value: float, text: str
) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7109, "71.1 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.00002, "0.002 %"),
        (0.99998, "99.998 %"),
        (0.25, "25 %"),
    ],
)
def test_a_share_never_reads_as_none_or_all_of_what_it_is_not(value: float, text: str) -> None:
    assert percent(value) == text


def test_a_contribution_carries_its_sign() -> None:
    assert [signed(value) for value in (1.2, -1.2, 0.0)] == ["+1.2", "-1.2", "0"]


@given(FLOATS)
def test_every_text_is_one_numeral_that_its_value_rounds_to(value: float) -> None:
    for text in (plain(value), signed(value)):
        assert NUMERAL.fullmatch(text)
        assert_rounds_to(value, text)
    assert float(in_full(value)) == value


@given(st.floats(0, 1))
def test_every_share_is_one_numeral_that_its_value_rounds_to(value: float) -> None:
    assert NUMERAL.fullmatch(percent(value))
    assert_rounds_to(value, percent(value))
