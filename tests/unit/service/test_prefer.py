import pytest

from service.prefer import NO_PREFERENCE, Preference, parse_prefer


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, NO_PREFERENCE),
        ("", NO_PREFERENCE),
        ("respond-async", Preference(0, "respond-async")),
        ("wait=10", Preference(10, "wait=10")),
        ('wait="7"', Preference(7, "wait=7")),
        ("Respond-Async, Wait=10", Preference(10, "respond-async, wait=10")),
        ("wait=5; foo=bar", Preference(5, "wait=5")),
        ("return=minimal, wait=1", Preference(1, "wait=1")),
        ("wait=0", Preference(0, "wait=0")),
    ],
)
def test_what_the_standard_defines(header: str | None, expected: Preference) -> None:
    assert parse_prefer(header) == expected


def test_nobody_waits_longer_than_half_a_minute() -> None:
    assert parse_prefer("wait=31") == Preference(30, "wait=30")
    assert parse_prefer("wait=" + "9" * 5000).wait_seconds == 30


def test_of_two_values_the_first_counts() -> None:
    assert parse_prefer("wait=1, wait=20").wait_seconds == 1


@pytest.mark.parametrize("header", ["wait", "wait=-1", "wait=1.5", "wait=soon", "wait=٣", "async"])
def test_what_makes_no_sense_is_ignored(header: str) -> None:
    assert parse_prefer(header) == NO_PREFERENCE
