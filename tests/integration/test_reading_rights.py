"""What a caller may not read of a record is not told to him in other ways either."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from later import Worker
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client, Reply, wait_until

from service.auth import LOCAL, KeyFile, Scope
from service.disposal import Destruction, Order, erase, of_requests

Instance = dict[str, Any]
ClientOf = Callable[[str], Client]
POLICY = """
[models.mixed.roles.support]
mask = ["radius", "grade"]

[default.roles.trusted]
mask = []

[[models.mixed.rules]]
name = "all"
when = "visits >= 0"
explain = "always"
"""
ALL: tuple[Scope, ...] = ("predict", "explain", "audit")
KEYS: dict[str, tuple[tuple[Scope, ...], tuple[str, ...]]] = {
    "owner": (ALL, ()),
    "support": (ALL, ("support",)),
    "trusted": (ALL, ("trusted",)),
    "bob": (("explain",), ()),
    "teller": (("predict",), ()),
    "clerk": (("predict", "explain"), ()),
}
PATH = "/models/mixed/predict"


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory,
    two_models: Path,
    keys: dict[str, str],
) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("rights")
    file, content = folder / "keys.json", KeyFile()
    for name, (scopes, roles) in KEYS.items():
        content, keys[name] = content.with_key(name, scopes, roles=roles)
    content.write(file)
    (folder / "policy.toml").write_text(POLICY)
    settings: dict[str, Any] = {"api_keys_file": file, "policy_file": folder / "policy.toml"}
    with live_app(folder, registry=two_models, **settings) as live:
        yield live


@pytest.fixture
def request_id(client_of: ClientOf, mixed_rows: list[Instance]) -> str:
    """A record of the owner's."""
    return predicted(client_of("owner"), mixed_rows[0])


def predicted(client: Client, instance: Instance, **headers: str) -> str:
    reply = client.predict([instance], path=PATH, query="", headers=headers)
    assert reply.status == 200, reply.body
    return str(reply.json()["request_id"])


def posted(client: Client, path: str, content: object) -> Reply:
    return client.request("POST", path, json.dumps(content).encode(), JSON)


def erased(live: LiveApp, request_id: str) -> None:
    store = live.runtime.evidence.store
    order = Order("cli:test", "case-1", datetime.now(UTC))
    erase(store, of_requests(store, "default", [request_id]), Destruction("erasure", order))


def test_of_an_erased_record_a_mask_withholds_what_headers_say_of_sizes(
    live: LiveApp, client_of: ClientOf, request_id: str
) -> None:
    path = f"/explanations/{request_id}"
    erased(live, request_id)
    wait_until(lambda: client_of("owner").get(f"{path}/proof").status == 200)
    assert client_of("trusted").get(f"{path}/proof").status == 200
    assert_problem(client_of("support").get(f"{path}/proof"), 403, "forbidden")
    told = {name: client_of(name).get(path) for name in ("owner", "support")}
    headers = {name: assert_problem(reply, 410)["header"] for name, reply in told.items()}
    assert "payload" in headers["owner"]
    assert headers["support"] == {k: v for k, v in headers["owner"].items() if k != "payload"}


def unasked_of(client: Client, request_id: str) -> str:
    """The ID of the explanation that policy wanted of a prediction."""

    def children() -> list[Any]:
        items: list[Any] = client.get(f"/explanations/{request_id}/related").json()["items"]
        return items

    wait_until(lambda: bool(children()))
    return str(children()[0]["request_id"])


def test_an_explanation_nobody_asked_for_is_not_for_who_may_ask_for_none(
    client_of: ClientOf, mixed_rows: list[Instance]
) -> None:
    teller = client_of("teller")
    request_id = predicted(teller, mixed_rows[0])
    child = unasked_of(teller, request_id)
    assert teller.get(f"/explanations/{request_id}").status == 200
    for way in ("", "/events", "/proof", "/related", "/feedback"):
        assert_problem(teller.get(f"/explanations/{child}{way}"), 404, "not_found")
    assert client_of("owner").get(f"/explanations/{child}").status == 200
    again = teller.predict([mixed_rows[0]], path=PATH, query="", headers={"X-Request-ID": child})
    assert_problem(again, 409)


def listed(client: Client, query: str = "") -> list[str]:
    """The IDs of the list, page by page."""
    found, path = [], f"/explanations?limit=1{query}"
    while path:
        reply = client.get(path)
        items = reply.json()["items"]
        assert len(items) == 1 or reply.json()["next_cursor"] is None, "a gap tells of something"
        found += [item["request_id"] for item in items]
        cursor = reply.json()["next_cursor"]
        path = cursor and f"/explanations?limit=1{query}&cursor={cursor}"
    return found


@pytest.mark.parametrize(
    ("name", "is_told"), [("owner", True), ("trusted", True), ("support", False)]
)
def test_a_mask_withholds_what_policy_had_explained_unasked(
    live: LiveApp, client_of: ClientOf, request_id: str, name: str, *, is_told: bool
) -> None:
    owner, client = client_of("owner"), client_of(name)
    unasked = unasked_of(owner, request_id)
    asked = posted(owner, "/explanations", {"request_id": request_id}).json()["request_id"]
    for each in (unasked, asked):
        Worker(live).complete(each)
    related = client.get(f"/explanations/{request_id}/related").json()["items"]
    review = client.get("/models/mixed/review").json()["items"]
    children = [
        [item["request_id"] for item in related],
        [item["request_id"] for item in review],
        listed(client),
        listed(client, "&model=mixed&status=complete"),
    ]
    assert request_id in children[2]
    assert all(asked in found for found in children)
    assert [unasked in found for found in children] == [is_told] * 4


def test_without_a_mask_it_is_told_of_models_that_serve_no_more_too(live: LiveApp) -> None:
    assert live.runtime.views.unasked_of(LOCAL) is None


def test_who_may_ask_for_explanations_reads_those_of_his_predictions(
    client_of: ClientOf, mixed_rows: list[Instance]
) -> None:
    clerk = client_of("clerk")
    child = unasked_of(clerk, predicted(clerk, mixed_rows[1]))
    assert clerk.get(f"/explanations/{child}").status == 200


@pytest.mark.parametrize(
    ("vote", "content"), [("feedback", {"rating": 1}), ("label", {"labels": [0]})]
)
def test_an_erased_record_is_as_unknown_to_a_voter_as_to_a_reader(
    live: LiveApp, client_of: ClientOf, request_id: str, vote: str, content: object
) -> None:
    path = f"/explanations/{request_id}"
    assert posted(client_of("bob"), f"{path}/{vote}", content).status == 204
    erased(live, request_id)
    read = client_of("bob").get(path)
    refused = posted(client_of("bob"), f"{path}/{vote}", content)
    problem = assert_problem(refused, 404, "not_found")
    assert problem["detail"] == assert_problem(read, 404)["detail"]
    assert not {"header", "record_status"} & problem.keys()
    assert "link" not in refused.headers
    assert_problem(posted(client_of("owner"), f"{path}/{vote}", content), 410)


def test_labels_of_a_wrong_number_do_not_tell_the_right_one(
    client_of: ClientOf, request_id: str
) -> None:
    reply = posted(client_of("bob"), f"/explanations/{request_id}/label", {"labels": [0, 1, 0]})
    (error,) = assert_problem(reply, 422)["errors"]
    assert error == {
        "pointer": "/labels",
        "detail": "must have one entry per instance",
        "code": "wrong_length",
    }


def test_a_mask_withholds_comments_and_leaves_ratings_and_classes(
    client_of: ClientOf, request_id: str
) -> None:
    path = f"/explanations/{request_id}"
    feedback = {"rating": 2, "comment": "a radius of 17.99 is too high"}
    assert posted(client_of("owner"), f"{path}/feedback", feedback).status == 204
    assert posted(client_of("owner"), f"{path}/label", {"labels": [0]}).status == 204
    whole, masked = (client_of(name).get(f"{path}/feedback") for name in ("owner", "support"))
    assert whole.json()["feedback"][0]["comment"] == feedback["comment"]
    assert b"17.99" not in masked.body
    assert masked.json()["feedback"] == [{**whole.json()["feedback"][0], "comment": None}]
    assert masked.json()["labels"] == whole.json()["labels"]


def test_a_window_that_begins_before_the_calendar_begins_with_it(client_of: ClientOf) -> None:
    reply = client_of("owner").get("/models/mixed/importance?until=0001-01-03")
    assert reply.status == 200
    assert reply.json()["since"] == "0001-01-01"
