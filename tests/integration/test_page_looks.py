"""Pages in a real browser: nothing is cut, empty or forbidden, on a desk and on a phone, light and
dark, and axe-core finds nothing.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import DESKTOP, PHONE, Chromium
from live_app import LiveApp, live_app
from page_sites import KINDS, MODELS, explained, page_of, registry_of_kinds
from PIL.Image import Image
from prometheus_server import binary

from service.pages.rendering import FOLDER

LIGHT, DARK = (0xFF, 0xFF, 0xFF), (0x15, 0x18, 0x1B)
UP = {LIGHT: (0xB0, 0x40, 0x0C), DARK: (0xFF, 0x9D, 0x66)}
DOWN = {LIGHT: (0x1B, 0x5E, 0x9E), DARK: (0x7D, 0xB8, 0xF0)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, two_models: Path) -> Iterator[LiveApp]:
    binary("chromium", "chromium")
    folder = tmp_path_factory.mktemp("pages")
    registry = registry_of_kinds(folder, two_models)
    with live_app(folder, registry=registry, model="breast_cancer") as live:
        yield live


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    return Chromium(tmp_path_factory.mktemp("chromium"))


def colours(image: Image) -> Counter[Any]:
    """How many pixels are of each."""
    listed = image.getcolors(maxcolors=1 << 24)
    assert listed is not None
    return Counter({colour: count for count, colour in listed})


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_nothing_overflows_is_cut_or_hard_to_reach(
    site: LiveApp, browser: Chromium, *, is_dark: bool
) -> None:
    client = site.client()
    paths = {name: explained(client, model, 2) for name, model in KINDS.items()}
    others = ("/explanations?limit=5", "/models", "/models/mixed", "/explanations/0123456789")
    paths |= {path: path for path in others}
    pages = {name: page_of(client, path).body for name, path in paths.items()}
    widths = [PHONE] if is_dark else [PHONE, DESKTOP]
    found = browser.looked_at(pages, widths, is_dark=is_dark)
    expected = [(name, width) for name in pages for width in widths]
    assert [(seen.name, seen.width) for seen in found] == expected
    ground = DARK if is_dark else LIGHT
    for seen in found:
        assert seen.violations == [], seen
        assert seen.passes > 10
        assert seen.scrolled <= seen.width, seen
        assert seen.cut == []
        assert seen.background == f"rgb{ground}"
        assert len(seen.plots) == (2 if seen.name in KINDS else 0)
        assert all(0.85 * PHONE < width <= 560 for width in seen.plots)


def test_what_is_wrong_with_a_page_is_seen(site: LiveApp, browser: Chromium) -> None:
    client = site.client()
    page = page_of(client, explained(client, "wine")).body
    pages = {
        "wide": page.replace(b"<h2>Proof", b"<pre>" + b"wide" * 50 + b"</pre><h2>Proof"),
        "pale": page.replace(b"--muted:#555b61", b"--muted:#c5cbd1"),
        "cut": page.replace(b'x="8" ', b'x="-60" ').replace(b'x="8"', b'x="-60"'),
    }
    assert all(changed != page for changed in pages.values())
    seen = {one.name: one for one in browser.looked_at(pages, [PHONE])}
    assert seen["wide"].scrolled > PHONE
    assert any(each.startswith("color-contrast") for each in seen["pale"].violations)
    assert seen["cut"].cut


def assert_drawn(image: Image, said: list[str], *, is_dark: bool = False) -> None:
    """Not refused by its policy, not blank, in the palette that is due."""
    assert said == []
    pixels, ground = colours(image), DARK if is_dark else LIGHT
    assert pixels.most_common(1)[0][0] == ground
    assert 0.6 < pixels[ground] / (image.width * image.height) < 0.98
    assert pixels[UP[ground]] + pixels[DOWN[ground]] > 1000


@pytest.mark.parametrize("model", MODELS)
def test_a_page_is_drawn_under_its_policy(site: LiveApp, browser: Chromium, model: str) -> None:
    url, size = site.url + explained(site.client(), model), (900, 1900)
    image, said = browser.screenshot(url, model, size)
    assert image.size == size
    assert_drawn(image, said)


def test_who_likes_it_dark_gets_it_dark(site: LiveApp, browser: Chromium) -> None:
    url = site.url + explained(site.client(), "wine")
    image, said = browser.screenshot(url, "dark", (900, 1900), is_dark=True)
    assert_drawn(image, said, is_dark=True)


def test_a_plot_alone_is_drawn_under_its_policy(site: LiveApp, browser: Chromium) -> None:
    url = site.url + explained(site.client(), "mixed") + "?format=svg"
    assert_drawn(*browser.screenshot(url, "plot", (500, 600)))


def test_a_page_whose_style_is_not_the_policys_says_so(browser: Chromium, tmp_path: Path) -> None:
    policy = "default-src 'none'; style-src 'sha256-AAAA'"
    page = tmp_path / "page.html"
    page.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{(FOLDER / 'plot.css').read_text()}</style><p>text"
    )
    _, said = browser.screenshot(page.as_uri(), "refused", (500, 500))
    assert any("Content Security Policy" in line for line in said)
