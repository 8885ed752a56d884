"""How a number of a record is printed. Half to even, of the number's shortest decimal form."""

from decimal import Decimal

SMALLEST = Decimal("0.001")
LARGEST = Decimal("1e15")
"""Below, and from there on, numbers are written with an exponent."""

DIGITS = 4
"""Significant digits of what is no whole number, without zeros at the end."""

EXPONENT_DIGITS = 2
"""Significant digits of what has an exponent."""


def plain(value: float) -> str:
    """Whole numbers in full; others with four significant digits, from a thousand on as whole
    numbers; below 0.001, and from 1e15 on, two digits and an exponent.
    """
    number = Decimal(repr(value))
    size = abs(number)
    if size == 0:
        return "0"
    if isinstance(value, int) or (_is_whole(number) and size < LARGEST):
        return f"{number:.0f}"
    if size < SMALLEST or size >= LARGEST:
        return f"{number:.{EXPONENT_DIGITS - 1}e}"
    place = min(0, number.adjusted() - DIGITS + 1)
    return _without_zeros(f"{number.quantize(Decimal(1).scaleb(place)):f}")


def signed(value: float) -> str:
    """As `plain`, with its sign."""
    text = plain(value)
    return text if text.startswith("-") or text == "0" else f"+{text}"


def percent(value: float) -> str:
    """A share in percent with one decimal place, and more where it would read as none or all of
    what it is not.
    """
    number = Decimal(repr(value)).scaleb(2)
    places = 1
    while (
        (text := f"{number:.{places}f}") and Decimal(text) in (0, 100) and Decimal(text) != number
    ):
        places += 1
    return f"{_without_zeros(text)} %"


def in_full(value: float) -> str:
    """Every digit: where two numbers that differ would else read the same."""
    return f"{Decimal(repr(value)):f}"


def _is_whole(number: Decimal) -> bool:
    return number == number.to_integral_value()


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
