"""Pages of callers with a role: what their JSON gives them, and nothing more."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp
from masked_roles import MASKED, PATH, VISIBLE, Instance, app_with_roles, predicted
from page_checks import findings, parsed_page
from page_sites import HTML, SVG, page_of
from servers import wait_until

ROLES = ("support", "blind", "misspelt")
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, two_models: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    with app_with_roles(tmp_path_factory.mktemp("roles"), two_models, keys) as live:
        yield live


@pytest.fixture
def record(live: LiveApp, keys: dict[str, str], calm: Instance) -> str:
    owner = live.client(keys["owner"])
    strange = {**calm, "radius": 1e6, "area": 1e6}
    path = f"/explanations/{predicted(owner, strange).headers['x-request-id']}"
    wait_until(lambda: owner.get(f"{path}/proof").status == 200)
    return path


def numbers(document: Any) -> set[float]:
    """Every number with a decimal point in a JSON document, in text or not."""
    if isinstance(document, dict):
        return {number for value in document.values() for number in numbers(value)}
    if isinstance(document, list):
        return {number for value in document for number in numbers(value)}
    if isinstance(document, str):
        return {float(found) for found in NUMBER.findall(document)}
    return {document} if isinstance(document, float) else set()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("accept", [HTML, SVG])
def test_no_number_is_shown_that_the_json_withholds(
    live: LiveApp, keys: dict[str, str], record: str, role: str, accept: str
) -> None:
    client = live.client(keys[role])
    known = numbers(client.get(record).json())
    whole = numbers(live.client(keys["owner"]).get(record).json())
    reply = page_of(client, record, accept)
    shown = {float(found) for found in NUMBER.findall(STYLE.sub("", reply.body.decode()))}
    if accept == HTML:
        assert findings(reply.body) == []
        assert shown <= known
    assert not shown & (whole - known)
    assert reply.headers["vary"] == "Accept, Authorization"


def test_ranks_and_signs_are_those_of_the_json(
    live: LiveApp, keys: dict[str, str], record: str
) -> None:
    client = live.client(keys["support"])
    (entries,) = client.get(record).json()["explanation"]["visible"]
    page = parsed_page(page_of(client, record).body)
    (table,) = (t for t in page.all("table") if "Visible" in t.all("caption")[0].text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")[1:]]
    words = {1: "raises it", -1: "lowers it", 0: "no effect"}
    assert [(row[2], row[1], row[4]) for row in rows] == [
        (entry["feature"], str(entry["rank"]), words[entry["sign"]]) for entry in entries
    ]
    assert sorted(row[2] for row in rows) == sorted(VISIBLE)
    assert not page.all("svg")
    assert "Proofs are withheld from your role" in page.text
    assert not any(f"{name} lies outside" in page.text for name in MASKED)


def test_who_sees_all_gets_the_whole_page_and_each_role_a_tag_of_its_own(
    live: LiveApp, keys: dict[str, str], record: str
) -> None:
    pages = {name: page_of(live.client(keys[name]), record) for name in ("owner", "trusted")}
    tags = {page.headers["etag"] for page in pages.values()}
    assert len(tags) == 1
    page = parsed_page(pages["owner"].body)
    assert len(page.all("svg")) == 2
    assert "radius lies outside the range seen in training" in page.text
    own = {"If-None-Match": tags.pop()}
    assert page_of(live.client(keys["owner"]), record, **own).status == 304
    assert page_of(live.client(keys["support"]), record, **own).status == 200


def test_importances_are_withheld_from_roles_that_mask(live: LiveApp, keys: dict[str, str]) -> None:
    path = PATH.removesuffix("/predict")
    masked = page_of(live.client(keys["support"]), path)
    assert findings(masked.body) == []
    assert "Withheld from your role" in masked.body.decode()
    whole = page_of(live.client(keys["trusted"]), path)
    assert "Withheld from your role" not in whole.body.decode()
