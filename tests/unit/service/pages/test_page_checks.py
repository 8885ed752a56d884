"""The checker of pages sees what is wrong, and the palette has the contrast it needs."""

import re

import pytest
from page_checks import contrast, findings

from service.pages.rendering import FOLDER

GOOD = """<!doctype html><html lang="en"><head><title>T</title>
<meta name="viewport" content="width=device-width"></head><body>
<a class="skip" href="#m">Skip</a><header>
<nav aria-label="Pages"><a href="/">Home</a></nav></header>
<main id="m"><h1>One</h1><h2>Two</h2>
<figure><svg role="img" aria-labelledby="t"><title id="t">Plot</title></svg>
<figcaption>What it shows</figcaption></figure>
<div class="scroll" tabindex="0" aria-labelledby="c"><table><caption id="c">Numbers</caption>
<tr><th scope="col">A</th><th scope="col">B</th></tr><tr><th scope="row">a</th><td>1</td></tr>
</table></div>
<form><label for="i">Name</label><input id="i" name="n"><button>Go</button></form></main>
<footer></footer></body></html>"""
CHANGES = {
    "no lang": (' lang="en"', ""),
    "no title": ("<title>T</title>", ""),
    "no viewport": ('name="viewport"', 'name="other"'),
    "two mains": ("<footer></footer>", "<footer></footer><main></main>"),
    "no footer": ("<footer></footer>", ""),
    "a nav without a name": (' aria-label="Pages"', ""),
    "no skip link": ('href="#m"', 'href="#n"'),
    "no h1": ("<h1>One</h1>", ""),
    "a level left out": ("<h2>Two</h2>", "<h3>Two</h3>"),
    "an empty heading": ("<h2>Two</h2>", "<h2></h2>"),
    "no caption": ('<caption id="c">Numbers</caption>', '<caption id="c"></caption>'),
    "no scope": ('<th scope="row">', "<th>"),
    "no column headers": ('scope="col"', 'scope="row"'),
    "rows of other lengths": ("<td>1</td>", ""),
    "an empty header": ('<th scope="col">B', '<th scope="col">'),
    "no label": ('for="i"', 'for="j"'),
    "a button without text": ("<button>Go", "<button>"),
    "a plot that is no image": (' role="img"', ""),
    "a plot without a name": ("Plot</title>", "</title>"),
    "a plot named by nothing": ('labelledby="t"', 'labelledby="u"'),
    "a plot without caption": ("<figcaption>What it shows</figcaption>", ""),
    "a link without text": (">Home<", "><"),
    "an id twice": ('id="i"', 'id="m"'),
    "what scrolls and cannot be reached": (' tabindex="0"', ""),
    "a script": ("<footer>", "<footer><script>1</script>"),
    "an image": ("<footer>", '<footer><img src="x">'),
    "a style": ("<h1>", '<h1 style="color:red">'),
    "a handler": ("<h1>", '<h1 onclick="x()">'),
    "a script in a link": ('href="/"', 'href=" JavaScript:x()"'),
}


def test_a_good_page_passes() -> None:
    assert findings(GOOD) == []


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_found(change: str) -> None:
    old, new = CHANGES[change]
    assert old in GOOD
    assert findings(GOOD.replace(old, new))


def test_what_is_not_closed_is_found() -> None:
    with pytest.raises(AssertionError):
        findings(GOOD.replace("</h2>", ""))


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


PLOT_CSS = (FOLDER / "plot.css").read_text()
PALETTES = [
    dict(re.findall(r"--([a-z0-9]+):(#[0-9a-f]+)", block))
    for block in re.findall(r":root\{([^}]*)\}", PLOT_CSS)
]
TEXTS = ("fg", "muted", "link", "bad", "up", "down")
LINES = ("rule", *(f"c{n}" for n in range(8)))


@pytest.mark.parametrize("palette", PALETTES, ids=["light", "dark"])
def test_texts_and_lines_stand_out_from_the_ground(palette: dict[str, str]) -> None:
    assert {*TEXTS, *LINES, "bg", "soft"} == palette.keys()
    assert min(contrast(palette[name], palette["bg"]) for name in TEXTS) >= 4.5
    assert min(contrast(palette[name], palette["bg"]) for name in LINES) >= 3


def test_there_is_a_light_palette_and_a_dark_one_for_screens() -> None:
    assert len(PALETTES) == 2
    assert "@media screen and (prefers-color-scheme:dark)" in PLOT_CSS
