"""Feedback and labels over HTTP."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import BrokenLog, put_in
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client, Reply
from tables import diabetes, instances_of

from service.disposal import Destruction, Order, erase, of_subject
from service.evidence import AppendOutcome, Event, StoreUnavailableError
from service.registry import Registry
from service.secrets import Keyring

Instance = dict[str, Any]


def post(client: Client, path: str, content: object) -> Reply:
    return client.request("POST", path, json.dumps(content).encode(), JSON)


def rate(client: Client, request_id: str, content: object) -> Reply:
    return post(client, f"/explanations/{request_id}/feedback", content)


def label(client: Client, request_id: str, labels: object) -> Reply:
    return post(client, f"/explanations/{request_id}/label", {"labels": labels})


def votes(client: Client, request_id: str) -> Any:
    return client.get(f"/explanations/{request_id}/feedback").json()


@pytest.fixture
def request_id(live: LiveApp, mixed_rows: list[Instance]) -> str:
    """A record of two instances, whose classes are the numbers 0 and 1."""
    reply = live.client().predict(mixed_rows[:2], path="/models/mixed/predict")
    return str(reply.json()["request_id"])


def test_a_later_vote_replaces_the_earlier_one(live: LiveApp, request_id: str) -> None:
    client = live.client()
    for content in ({"rating": 2, "comment": "too long"}, {"rating": 5}):
        reply = rate(client, request_id, content)
        assert (reply.status, reply.body) == (204, b"")
    for labels in ([0, None], [0, 1]):
        assert label(client, request_id, labels).status == 204
    found = votes(client, request_id)
    assert [(v["rating"], v.get("comment"), v["principal"]) for v in found["feedback"]] == [
        (5, None, "local")
    ]
    assert [v["labels"] for v in found["labels"]] == [[0, 1]]


def test_votes_change_nothing_of_the_record(live: LiveApp, request_id: str) -> None:
    client = live.client()
    before = client.get(f"/explanations/{request_id}")
    rate(client, request_id, {"rating": 1})
    after = client.get(f"/explanations/{request_id}")
    assert (after.body, after.headers["etag"]) == (before.body, before.headers["etag"])


def test_who_learns_later_how_a_case_turned_out_labels_what_others_predicted(
    keyed: Any, rows: list[Instance]
) -> None:
    alice, explain, rest = (keyed.client(name) for name in ("alice", "explain", "not-explain"))
    request_id = alice.predict(rows[:1]).json()["request_id"]
    reply = label(explain, request_id, ["benign"])
    assert (reply.status, reply.body) == (204, b"")
    assert_problem(label(rest, request_id, ["malignant"]), 403, "forbidden")
    assert_problem(explain.get(f"/explanations/{request_id}"), 404, "not_found")
    assert_problem(explain.get(f"/explanations/{request_id}/feedback"), 404, "not_found")
    told = [(vote["principal"], vote["labels"]) for vote in votes(alice, request_id)["labels"]]
    assert told == [("explain", ["benign"])]


def test_everybody_votes_for_himself(keyed: Any, rows: list[Instance]) -> None:
    alice, bob, eve = (keyed.client(name) for name in ("alice", "bob", "eve"))
    request_id = alice.predict(rows[:1]).json()["request_id"]
    assert rate(alice, request_id, {"rating": 1}).status == 204
    assert rate(bob, request_id, {"rating": 4}).status == 204
    assert rate(bob, request_id, {"rating": 5}).status == 204
    assert_problem(rate(eve, request_id, {"rating": 5}), 404, "not_found")
    assert_problem(label(eve, request_id, ["benign"]), 404, "not_found")
    expected = [("alice", 1), ("bob", 5)]
    for reader in (alice, keyed.client("audit")):
        found = votes(reader, request_id)["feedback"]
        assert [(v["principal"], v["rating"]) for v in found] == expected
    assert_problem(bob.get(f"/explanations/{request_id}/feedback"), 404, "not_found")


@pytest.mark.parametrize("unknown", ["no-such-request", "short", "a b"])
def test_what_is_unknown_cannot_be_voted_on(live: LiveApp, unknown: str) -> None:
    path = unknown.replace(" ", "%20")
    assert_problem(rate(live.client(), path, {"rating": 3}), 404, "not_found")
    assert_problem(label(live.client(), path, [1]), 404, "not_found")
    assert_problem(live.client().get(f"/explanations/{path}/feedback"), 404, "not_found")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"rating": 0},
        {"rating": 6},
        {"rating": 4.5},
        {"rating": True},
        {"rating": "5"},
        {"rating": None},
        {"rating": 3, "comment": ""},
        {"rating": 3, "comment": "x" * 2001},
        {"rating": 3, "why": "none"},
        [],
    ],
)
def test_feedback_that_does_not_fit_is_refused(
    live: LiveApp, request_id: str, content: object
) -> None:
    assert_problem(rate(live.client(), request_id, content), 422, "invalid_content")
    assert votes(live.client(), request_id)["feedback"] == []


@pytest.mark.parametrize(
    "labels",
    [
        [],
        [1],
        [1, 1, 1],
        [2, 1],
        [1, -1],
        ["1", "0"],
        [True, False],
        [1.0, 0.0],
        [1, 10**300],
        [1, 1e300],
        [1, {"class": 1}],
        1,
        None,
    ],
)
def test_labels_that_do_not_fit_are_refused(live: LiveApp, request_id: str, labels: object) -> None:
    assert_problem(label(live.client(), request_id, labels), 422, "invalid_content")
    assert votes(live.client(), request_id)["labels"] == []


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    from xgboost import XGBRegressor

    data_dir = tmp_path_factory.mktemp("regression")
    X, y = diabetes()
    model = XGBRegressor(n_estimators=5, n_jobs=1).fit(X, y)
    Registry(data_dir / "registry").register("diabetes", model, X, y)
    with live_app(data_dir) as live:
        yield live


@pytest.mark.parametrize(
    ("labels", "status"),
    [([151.5], 204), ([151], 204), ([None], 204), ([True], 422), (["151"], 422), ([10**300], 422)],
)
def test_labels_of_a_regression_are_numbers(
    regression: LiveApp, labels: list[object], status: int
) -> None:
    rows = instances_of(diabetes()[0].iloc[:1])
    request_id = regression.client().predict(rows).json()["request_id"]
    assert label(regression.client(), request_id, labels).status == status


def test_ratings_are_counted(live: LiveApp, request_id: str) -> None:
    def buckets() -> list[float]:
        lines = live.client().get("/metrics").body.decode().splitlines()
        return [
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("explain_feedback_rating_bucket{") and "mixed" in line
        ]

    before = buckets()
    rate(live.client(), request_id, {"rating": 4})
    assert [now - then for now, then in zip(buckets(), before, strict=True)] == [0, 0, 0, 1, 1, 1]


def test_a_comment_is_blacked_out_before_it_is_stored(live: LiveApp, request_id: str) -> None:
    client = live.client()
    rate(client, request_id, {"rating": 2, "comment": "ask joe@example.com, +1 415 555 2671"})
    (found,) = votes(client, request_id)["feedback"]
    assert found["comment"] == "ask [email], [phone]"


class ReadOnly(BrokenLog):
    """An evidence log that takes nothing."""

    def _check(self) -> None: ...

    async def append(self, _: Event) -> AppendOutcome:
        raise StoreUnavailableError("the disk is full")


@pytest.mark.parametrize("kind", [ReadOnly, BrokenLog])
def test_nothing_is_said_to_be_stored_that_is_not(
    data_dir: Path, rows: list[Instance], kind: type[BrokenLog]
) -> None:
    with live_app(data_dir) as app:
        request_id = app.client().predict(rows[:1]).json()["request_id"]
        log = app.runtime.evidence
        put_in(app.runtime, kind(log))
        for reply in (
            rate(app.client(), request_id, {"rating": 3}),
            label(app.client(), request_id, ["benign"]),
        ):
            assert_problem(reply, 503, "store_unavailable")
        put_in(app.runtime, log)  # type: ignore[arg-type]
        assert votes(app.client(), request_id) == {"feedback": [], "labels": []}


def test_what_is_said_of_somebody_erased_from_the_record_is_refused(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        client, store = app.client(), app.runtime.evidence.store
        body = {"instances": rows[:2], "subjects": ["anna", "bert"]}
        request_id = post(client, "/predict", body).json()["request_id"]
        assert rate(client, request_id, {"rating": 3}).status == 204
        anna = Keyring.open(data_dir / "secret").digest("default", "subject", b"anna")
        what = Destruction("erasure", Order("test", "asked", datetime.now(UTC)), subject=anna)
        assert erase(store, of_subject(store, "default", anna), what).erased == 1
        assert client.get(f"/explanations/{request_id}").status == 200
        assert_problem(rate(client, request_id, {"rating": 4}), 410, "erased")
        assert [vote["rating"] for vote in votes(client, request_id)["feedback"]] in ([], [3])


def test_a_vote_is_durable_when_it_is_answered(data_dir: Path, rows: list[Instance]) -> None:
    with live_app(data_dir) as app:
        request_id = app.client().predict(rows[:1]).json()["request_id"]
        rate(app.client(), request_id, {"rating": 3})
        with sqlite3.connect(f"file:{data_dir / 'evidence.db'}?mode=ro", uri=True) as database:
            found = database.execute(
                "SELECT event_type, actor FROM events WHERE request_id = ?", (request_id,)
            ).fetchall()
        database.close()
    assert found == [("decision", "local"), ("feedback", "local")]
