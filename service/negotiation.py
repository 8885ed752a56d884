"""The Accept header (RFC 9110, section 12.5.1): which of the representations there are is meant."""

from collections.abc import Sequence

JSON = "application/json"
HTML = "text/html"
SVG = "image/svg+xml"

Ranges = Sequence[tuple[str, float]]


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The media type of `offers` that the client likes best; the first one where it does not care,
    likes several alike, or takes none of them.
    """
    if accept is None:
        return offers[0]
    ranges = [_range(item) for item in accept.lower().split(",")]
    return max(offers, key=lambda offer: _quality(offer, ranges))


def _range(item: str) -> tuple[str, float]:
    """A media range and its weight; one that cannot be read is worth nothing."""
    name, *parameters = (part.strip() for part in item.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _weight(value.strip())
    return name, 1.0


def _weight(text: str) -> float:
    digits = text.replace(".", "", 1)
    is_number = digits.isascii() and digits.isdecimal()
    return min(float(text), 1.0) if is_number else 0.0


def _quality(offer: str, ranges: Ranges) -> float:
    """By the most specific range that fits; 0 without one."""
    whole = offer.partition("/")[0] + "/*"
    for wanted in (offer, whole, "*/*"):
        found = [weight for name, weight in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
