"""Pages and plots over HTTP: another representation of what the JSON says, to the same callers."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from drawn import lines, marks
from later import NO_INLINE, Worker
from live_app import LiveApp, live_app
from page_checks import Node, findings, parsed_page
from page_sites import HTML, MODELS, SVG, explained, page_of, registry_of_kinds
from problems import assert_problem
from servers import JSON, Client, Reply, wait_until
from sqlalchemy import create_engine, update

from service.accesses import AccessFilter, listed
from service.disposal import Destruction, Order, erase, of_requests
from service.evidence.tables import checkpoints

MOST_BYTES = 60_000
STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
PLOT = re.compile(r"<svg.*?</svg>", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, two_models: Path) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("pages")
    registry = registry_of_kinds(folder, two_models)
    with live_app(folder, registry=registry, model="breast_cancer") as live:
        yield live


@pytest.fixture
def client(site: LiveApp) -> Client:
    return site.client()


def checked(reply: Reply, status: int = 200) -> Node:
    """A page that passes every structural check and carries the policy of its own style."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert findings(reply.body) == []
    assert_policy(reply)
    return parsed_page(reply.body)


def assert_policy(reply: Reply) -> None:
    (style,) = STYLE.findall(reply.body)
    digest = base64.b64encode(hashlib.sha256(html.unescape(style.decode()).encode()).digest())
    policy = reply.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest.decode()}'; ")
    assert "unsafe" not in policy


def table_of(page: Node, caption: str) -> list[list[str]]:
    (found,) = (t for t in page.all("table") if t.all("caption")[0].text.startswith(caption))
    return [[cell.text for cell in row.all("th", "td")] for row in found.all("tr")]


@pytest.mark.parametrize("model", MODELS)
def test_every_number_of_a_page_is_the_stored_one(client: Client, model: str) -> None:
    path = explained(client, model)
    record, reply = client.get(path).json(), page_of(client, path)
    page, explanation = checked(reply), record["explanation"]
    assert len(reply.body) < MOST_BYTES
    outputs, names = explanation["output_names"], explanation["feature_names"]
    head, *rows, base, output = table_of(page, "Contributions")
    assert sorted(head[3:]) == sorted(outputs)
    order = [outputs.index(name) for name in head[3:]]
    assert [float(cell) for cell in base[3:]] == [explanation["base_values"][0][c] for c in order]
    assert [float(cell) for cell in output[3:]] == [explanation["outputs"][0][c] for c in order]
    found = {row[1]: [float(cell) for cell in row[3:]] for row in rows}
    values = explanation["values"][0]
    assert found == {name: [values[f][c] for c in order] for f, name in enumerate(names)}
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, len(names) + 1)]
    strengths = [abs(cells[0]) for cells in found.values()]
    assert strengths == sorted(strengths, reverse=True)
    probabilities = record["predictions"][0]["probabilities"]
    listed_ones = {name: float(value) for name, value in table_of(page, "Probabilities")[1:]}
    assert listed_ones == probabilities


@pytest.mark.parametrize("model", MODELS)
def test_every_plotted_number_is_the_stored_one(client: Client, model: str) -> None:
    path = explained(client, model)
    explanation = client.get(path).json()["explanation"]
    outputs, names = explanation["output_names"], explanation["feature_names"]
    svg = page_of(client, path, SVG).body.decode()
    first, *bars, last = marks(svg)
    shown = next(c for c, name in enumerate(outputs) if f"Waterfall plot of {name}<" in svg)
    own = {name: explanation["values"][0][f][shown] for f, name in enumerate(names)}
    assert first.value == explanation["base_values"][0][shown]
    assert last.value == explanation["outputs"][0][shown]
    drawn = {mark.name: mark.value for mark in bars}
    rest = {name: value for name, value in drawn.items() if name not in own}
    assert len(drawn) - len(rest) == min(len(own), 13 if len(own) == 13 else 12)
    assert {name: value for name, value in drawn.items() if name in own}.items() <= own.items()
    left = [value for name, value in own.items() if name not in drawn]
    assert list(rest.values()) == ([pytest.approx(sum(left))] if left else [])
    waterfall, second = PLOT.findall(page_of(client, path).body.decode())
    assert marks(waterfall) == [first, *bars, last]
    if len(outputs) == 1:
        pushes = {mark.name: mark.value for mark in marks(second)[:-2]}
        assert pushes == {name: value for name, value in own.items() if value}
        return
    for c, output in enumerate(outputs):
        base, score, contributions = lines(second)[output]
        assert [base, score] == [explanation[k][0][c] for k in ("base_values", "outputs")]
        for f, name in enumerate(names):
            assert (
                contributions.get(name, explanation["values"][0][f][c])
                == (explanation["values"][0][f][c])
            )


def test_who_does_not_care_gets_json_and_each_representation_has_a_tag(client: Client) -> None:
    path = explained(client, "breast_cancer")
    wait_until(lambda: client.get(f"{path}/proof").status == 200)
    checkpoint = client.get("/log/checkpoint").body  # a page's proof names the last one
    replies = [client.get(path), page_of(client, path), page_of(client, path, SVG)]
    assert client.get("/log/checkpoint").body == checkpoint
    assert page_of(client, path, "*/*").body == replies[0].body
    kinds = [reply.headers["content-type"] for reply in replies]
    assert kinds == ["application/json", "text/html; charset=utf-8", "image/svg+xml"]
    assert len({reply.headers["etag"] for reply in replies}) == 3
    for reply, accept in zip(replies, ("*/*", HTML, SVG), strict=True):
        assert reply.headers["vary"] == "Accept, Authorization"
        assert reply.headers["cache-control"] == "private, no-cache"
        tag = {"If-None-Match": reply.headers["etag"], "Accept": accept}
        again = client.get(path, **tag)
        assert (again.status, again.body) == (304, b"")
        tag["Accept"] = HTML if accept == SVG else SVG
        assert client.get(path, **tag).status == 200
        head = client.request("HEAD", path, None, {"Accept": accept})
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == reply.headers["content-type"]


def test_a_plot_carries_its_style_and_its_policy(client: Client) -> None:
    reply = page_of(client, explained(client, "wine"), SVG)
    assert_policy(reply)


def test_a_link_may_name_the_representation(client: Client) -> None:
    path = explained(client, "breast_cancer")
    for name, kind in (("json", "application/json"), ("svg", SVG)):
        reply = page_of(client, f"{path}?format={name}")
        assert reply.headers["content-type"] == kind
    checked(client.get(f"{path}?format=html"))
    assert_problem(client.get("/models?format=svg"), 422, "invalid_content")
    page = checked(page_of(client, path))
    wait_until(lambda: client.get(f"{path}/proof").status == 200)
    for link in page.all("footer")[0].all("a"):
        assert client.get(link.get("href")).status == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [("instance=3", 404), ("instance=-1", 422), ("output=nobody", 404), ("format=pdf", 422)],
)
def test_what_is_not_there_is_refused_as_a_page(client: Client, query: str, status: int) -> None:
    page = checked(page_of(client, f"{explained(client, 'wine')}?{query}"), status)
    assert f"?{query.partition('=')[0]}" in page.all("li")[-1].text


def test_instances_and_outputs_are_a_link_away(client: Client) -> None:
    path = explained(client, "wine", 2)
    values = client.get(path).json()["explanation"]["values"][1]
    page = checked(page_of(client, path))
    (following,) = (a for a in page.all("a") if a.text == "Next instance")
    second = checked(page_of(client, following.get("href")))
    outputs = next(nav for nav in second.all("nav") if nav.get("aria-label") == "Outputs")
    other = outputs.all("a")[0]
    third = checked(page_of(client, other.get("href")))
    head, first, *_ = table_of(third, "Contributions")
    assert head[3] == other.text
    assert float(first[3]) == max((row[int(other.text)] for row in values), key=abs)


def test_the_proof_is_checked_and_told_with_its_places(client: Client) -> None:
    path = explained(client, "breast_cancer")
    wait_until(lambda: client.get(f"{path}/proof").status == 200)
    proof = client.get(f"{path}/proof").json()
    text = checked(page_of(client, path)).text
    (entry,) = proof["entries"]
    assert f"included in the log {proof['log']} at place {entry['seq']} (decision)" in text
    assert re.search(r"The checkpoint of \d{4}-\d\d-\d\d [0-9:]{8} UTC, over \d+ entries, is", text)


def test_a_proof_that_does_not_hold_is_told(data_dir: Path) -> None:
    with live_app(data_dir) as app:
        client = app.client()
        path = explained(client, "breast_cancer")
        wait_until(lambda: "included in the log" in page_of(client, path).body.decode())
        wait_until(lambda: client.get("/log/checkpoint").status == 200)
        note = client.get("/log/checkpoint").body.decode()
        root = note.splitlines()[2]
        forged = note.replace(root, base64.b64encode(bytes(32)).decode())
        for stored in (forged, "garbled"):
            engine = create_engine(app.runtime.settings.database_url)
            with engine.begin() as connection:
                connection.execute(update(checkpoints).values(note=stored))
            engine.dispose()
            assert "The proof does not hold" in checked(page_of(client, path)).text


def test_the_list_is_searched_by_a_form_and_turned_by_its_link(client: Client) -> None:
    paths = {explained(client, "mixed") for _ in range(3)}
    form = "model=mixed&since=2026-01-01&until=&status=complete&limit=2"
    page = checked(page_of(client, f"/explanations?{form}"))
    fields = {each.get("name"): each.get("value") for each in page.all("input")}
    assert fields == {"limit": "2", "model": "mixed", "since": "2026-01-01", "until": ""}
    seen = {a.get("href") for a in page.all("td", "th") for a in a.all("a")}
    assert len(seen) == 2
    (older,) = (a for a in page.all("a") if a.get("rel") == "next")
    reply = page_of(client, older.get("href"))
    checked(reply)
    assert reply.headers["vary"] == "Accept, Authorization"
    assert paths <= seen | set(re.findall(r'href="(/explanations/[^"?]+)"', reply.body.decode()))
    nothing = checked(page_of(client, "/explanations?until=2026-01-01"))
    assert "Nothing matches" in nothing.text
    assert client.get("/explanations?model=&until=2026-01-01").json()["items"] == []
    for refused in ("since=yesterday", "status=none", "model=a/b", "limit=", "since=2026-02-30"):
        assert_problem(client.get(f"/explanations?{refused}"), 422, "invalid_content")


def test_a_model_is_described(client: Client) -> None:
    info = client.get("/models/mixed").json()
    reply = page_of(client, "/models/mixed")
    page = checked(reply)
    assert {row[0] for row in table_of(page, "What an instance")[1:]} == set(
        info["json_schema"]["properties"]
    )
    assert "too few people" in page.text
    assert "tree_interventional" in page.text
    names = {a.get("href") for a in checked(page_of(client, "/models")).all("h2")[0].all("a")}
    assert names == {"/models/breast_cancer"}
    assert client.get("/models").headers["vary"] == reply.headers["vary"] == "Accept, Authorization"


def test_refusals_are_pages_where_a_page_was_asked_for(client: Client) -> None:
    for path in ("/explanations/0123456789", "/models/nothing", "/no/such/path"):
        page = checked(page_of(client, path), 404)
        assert "Request ID" in page.text
        assert_problem(client.get(path), 404, "not_found")
        assert_problem(page_of(client, path, "text/html;q=0.1, */*"), 404, "not_found")
    sent = client.request("POST", "/predict", b"{", {**JSON, "Accept": HTML})
    assert_problem(sent, 400, "not_strict_json")
    assert client.get("/v1/models/nothing", Accept=HTML).json().keys() == {"error"}


def test_a_pending_one_refreshes_itself_until_it_is_complete(
    tmp_path: Path, two_models: Path
) -> None:
    with live_app(tmp_path, registry=two_models, model="breast_cancer", **NO_INLINE) as app:
        client = app.client()
        path = explained(client, "breast_cancer")
        reply = page_of(client, path)
        refresh = [m for m in checked(reply).all("meta") if m.get("http-equiv") == "refresh"]
        assert [each.get("content") for each in refresh] == [reply.headers["retry-after"]]
        assert reply.headers["cache-control"] == "no-store"
        assert "etag" not in reply.headers
        assert "being computed" in page_of(client, path, SVG).body.decode()
        Worker(app).complete(path.rpartition("/")[2])
        page = checked(page_of(client, path))
        assert len(page.all("svg")) == 2
        assert not [m for m in page.all("meta") if m.get("http-equiv") == "refresh"]


def test_an_erased_one_says_so_and_leads_to_its_proof(site: LiveApp, client: Client) -> None:
    path = explained(client, "mixed")
    store, request_id = site.runtime.evidence.store, path.rpartition("/")[2]
    order = Order("cli:test", "case-1", datetime.now(UTC))
    erase(store, of_requests(store, "default", [request_id]), Destruction("erasure", order))
    page = checked(page_of(client, path), 410)
    assert "The record has been erased" in page.all("h1")[0].text
    assert [a.get("href") for a in page.all("footer")[0].all("a")] == [f"{path}/proof"]
    assert_problem(client.get(path), 410, "erased")


def test_looking_at_a_page_is_written_down_as_looking_at_json_is(keyed: Any) -> None:
    alice, audit = keyed.client("alice"), keyed.client("audit")
    path = explained(alice, "breast_cancer")
    assert page_of(keyed.client("bob"), path).status == 404
    assert page_of(keyed.client(None), path).status == 401
    checked(page_of(alice, path))
    for accept in (HTML, SVG):
        assert page_of(audit, path, accept).status == 200
    store, request_id = keyed.live.runtime.evidence.store, path.rpartition("/")[2]
    kinds = [each["event_type"] for each in listed(store, AccessFilter(request_id=request_id))]
    assert kinds == ["access/read"] * 2
    checked(page_of(audit, "/explanations?limit=1"))
    *_, last = listed(store, AccessFilter(principal="audit"))
    assert (last["event_type"], last["asked"]) == ("access/list", {"limit": 1})


def test_a_models_page_shows_no_more_than_the_scopes_of_its_reader(keyed: Any) -> None:
    path = "/models/breast_cancer"
    texts = {
        name: checked(page_of(keyed.client(name), path)).text
        for name in ("predict", "not-audit", "not-metrics")
    }
    assert ["scope audit" in text for text in texts.values()] == [True, True, False]
    assert ["scope metrics" in text for text in texts.values()] == [True, False, True]
    store = keyed.live.runtime.evidence.store
    for name, expected in (("predict", []), ("not-metrics", ["access/importance"])):
        found = listed(store, AccessFilter(principal=name))
        assert [each["event_type"] for each in found] == expected
