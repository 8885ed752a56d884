import pytest

from service.negotiation import HTML, JSON, SVG, preferred

OFFERS = (JSON, HTML, SVG)
CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("", JSON),
        ("application/json", JSON),
        (CHROMIUM, HTML),
        (IMAGE, SVG),
        ("text/html", HTML),
        ("TEXT/HTML; charset=utf-8", HTML),
        ("text/*", HTML),
        ("image/svg+xml", SVG),
        ("text/html, application/json", JSON),
        ("text/html;q=0.9, application/json;q=0.8", HTML),
        ("text/html;q=0.8, application/json;q=0.9", JSON),
        ("text/html;q=0, */*", JSON),
        ("application/json;q=0, */*;q=0.1", HTML),
        ("*/*;q=0.5, text/html;q=0.5", JSON),
        ("application/json;q=0.1, application/*;q=1, text/html;q=0.5", HTML),
        ("video/mp4", JSON),
        ("text/html;q=high", JSON),
        ("text/html;q=-1, application/json;q=0.1", JSON),
        ("text/html;q=1.5", HTML),
        (",;,=;q", JSON),
        ("text/html;level=1;q=0.3, application/json;q=0.2", HTML),
    ],
)
def test_the_best_liked_is_given_and_json_to_who_does_not_care(
    accept: str | None, expected: str
) -> None:
    assert preferred(accept, OFFERS) == expected


def test_what_is_not_offered_is_not_given() -> None:
    assert preferred("image/svg+xml, text/html;q=0.1", (JSON, HTML)) == HTML
