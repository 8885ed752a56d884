"""What callers with a role get, on every way by which bytes about instances leave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from later import NO_INLINE, Stream, Worker, read_events
from live_app import LiveApp, live_app
from masked_roles import (
    MASKED,
    PATH,
    POLICY,
    ROLES,
    VISIBLE,
    ClientOf,
    Instance,
    app_with_roles,
    assert_masked,
    predicted,
    settings_of,
)
from problems import assert_problem
from servers import JSON, assert_becomes_ready, wait_until

from schemas import Answer, Record
from service.masking import WITHHELD


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, two_models: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    with app_with_roles(tmp_path_factory.mktemp("roles"), two_models, keys) as live:
        yield live


def test_an_answer_says_label_ranks_and_signs_and_no_number(
    client_of: ClientOf, calm: Instance
) -> None:
    reply = predicted(client_of("support"), calm)
    answer = reply.json()
    (prediction,) = answer["predictions"]
    assert prediction == {"label": prediction["label"], "probabilities": None, "decision": None}
    assert_masked(answer["explanation"])
    assert "server-timing" not in reply.headers
    Answer.model_validate_json(reply.body)
    plain = client_of("support").predict([calm], path=PATH, query="").json()
    assert plain["predictions"] == answer["predictions"]
    assert plain["explanation"] is None


def test_a_warning_about_a_masked_column_is_withheld(client_of: ClientOf, calm: Instance) -> None:
    strange = {**calm, "radius": 1e6, "area": 1e6}
    pointers = {
        name: [w["pointer"] for w in predicted(client_of(name), strange).json()["warnings"]]
        for name in ("owner", "support", "misspelt")
    }
    assert pointers == {
        "owner": ["/instances/0/radius", "/instances/0/area"],
        "support": ["/instances/0/area"],
        "misspelt": [],
    }


def test_a_repetition_is_masked_as_the_first_answer_was(
    client_of: ClientOf, calm: Instance
) -> None:
    named = {"X-Request-ID": "masked-twice"}
    first, again = (predicted(client_of("support"), calm, **named) for _ in range(2))
    assert again.headers["idempotent-replay"] == "true"
    assert again.body == first.body


def test_a_stored_record_is_whole_for_some_and_masked_for_others(
    client_of: ClientOf, calm: Instance
) -> None:
    path = predicted(client_of("owner"), calm).json()["explanation"]["links"]["self"]
    replies = {name: client_of(name).get(path) for name in ROLES}
    whole = replies["owner"].json()
    assert whole["instances"] == [calm]
    assert whole["explanation"]["values"] is not None
    assert replies["trusted"].body == replies["owner"].body
    masked = replies["support"].json()
    assert masked.keys() == whole.keys()
    assert masked["instances"] == [{**calm, **dict.fromkeys(MASKED)}]
    timeless = {"completed_at": None, "cpu_seconds": None}
    assert masked["provenance"] == {**whole["provenance"], **timeless}
    assert_masked(masked["explanation"])
    Record.model_validate_json(replies["support"].body)
    assert replies["blind"].json()["instances"] == [{**calm, "site": None}]
    both = replies["twofold"].json()
    assert both["instances"] == [{**calm, "site": None, **dict.fromkeys(MASKED)}]
    assert len(both["explanation"]["visible"][0]) == len(VISIBLE) - 1


@pytest.mark.parametrize("name", ["misspelt", "half"])
def test_a_role_nobody_knows_gets_the_label_and_nothing_else(
    client_of: ClientOf, calm: Instance, name: str
) -> None:
    path = predicted(client_of("owner"), calm).json()["explanation"]["links"]["self"]
    record = client_of(name).get(path).json()
    assert record["instances"] == [dict.fromkeys(calm)]
    assert record["explanation"]["visible"] == [[]]
    assert record["predictions"][0]["label"] is not None


def test_without_a_policy_no_role_is_known(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    settings = settings_of(tmp_path, keys) | {"policy_file": None}
    with live_app(tmp_path, registry=two_models, **settings) as live:
        answer = predicted(live.client(keys["trusted"]), calm).json()
        assert answer["explanation"]["visible"] == [[]]
        assert answer["predictions"][0]["probabilities"] is None


def test_each_view_has_an_etag_of_its_own_and_keeps_it(client_of: ClientOf, calm: Instance) -> None:
    path = predicted(client_of("owner"), calm).json()["explanation"]["links"]["self"]
    first, again, whole = (client_of(name).get(path) for name in ("support", "support", "owner"))
    assert first.body == again.body
    assert first.headers["etag"] == again.headers["etag"] != whole.headers["etag"]
    assert first.headers["vary"] == "Accept, Authorization"
    etag = whole.headers["etag"]
    assert client_of("support").get(path, **{"If-None-Match": etag}).status == 200
    assert client_of("owner").get(path, **{"If-None-Match": etag}).status == 304


def test_the_last_event_is_masked_too(client_of: ClientOf, calm: Instance) -> None:
    path = predicted(client_of("owner"), calm).json()["explanation"]["links"]["self"]
    body = client_of("support").get(path + "/events").body.decode()
    data = next(line for line in body.splitlines() if line.startswith("data: "))
    assert_masked(json.loads(data.removeprefix("data: ")))


def test_a_rule_is_not_named_to_who_may_not_see_what_it_reads(
    client_of: ClientOf, calm: Instance
) -> None:
    reply = predicted(client_of("support"), {**calm, "visits": 8})
    assert reply.json()["explanation"]["status"] == "skipped"
    assert reply.json()["explanation"]["reason"] == WITHHELD
    body = json.dumps({"request_id": reply.json()["request_id"]}).encode()
    refused = client_of("support").request("POST", "/explanations", body, JSON)
    assert_problem(refused, 422, "invalid_content")
    assert b"many visits" not in refused.body
    told = client_of("owner").request("POST", "/explanations", body, JSON)
    assert b"many visits" in told.body


def test_what_comes_later_is_masked_when_it_is_there(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    settings = settings_of(tmp_path, keys) | NO_INLINE
    settings |= {"registry": two_models, "redis_url": f"unix://{tmp_path / 'nobody'}"}
    with live_app(tmp_path, **settings) as live:
        support, worker = live.client(keys["support"]), Worker(live)
        named = {"X-Request-ID": "pending-and-masked"}
        pending = predicted(support, calm, **named)
        assert pending.json()["explanation"]["status"] == "pending"
        assert pending.json()["explanation"]["visible"] is None
        with Stream(live, "/explanations/pending-and-masked", keys["support"]) as stream:
            worker.announce("progress", named["X-Request-ID"], {"rows": 1})
            worker.complete(named["X-Request-ID"])
            assert_masked(read_events(stream.response)[-1][1])
        assert predicted(support, calm, **named).body == pending.body
        assert_masked(support.get("/explanations/pending-and-masked").json()["explanation"])
        body = json.dumps({"request_id": "pending-and-masked"}).encode()
        accepted = support.request("POST", "/explanations", body, JSON)
        assert set(accepted.json()) == {"request_id", "parent_request_id", "status", "links"}
        worker.complete(accepted.json()["request_id"])
        again = support.get(accepted.headers["location"]).json()
        assert_masked(again["explanation"])


def test_what_an_old_version_answered_is_masked_the_same_when_it_serves_no_more(
    live: LiveApp, client_of: ClientOf, calm: Instance
) -> None:
    path = predicted(client_of("owner"), calm).json()["explanation"]["links"]["self"]
    before = client_of("support").get(path)
    live.runtime.models.registry.layout.disable("mixed")
    try:
        wait_until(lambda: predicted(client_of("owner"), calm).status == 404)
        after = client_of("support").get(path)
        assert after.body == before.body
    finally:
        live.runtime.models.registry.layout.enable("mixed")
        wait_until(lambda: predicted(client_of("owner"), calm).status == 200)


def test_a_change_of_the_policy_changes_the_view_within_two_seconds(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    settings = settings_of(tmp_path, keys)
    with live_app(tmp_path, registry=two_models, **settings) as live:
        client = live.client(keys["support"])
        path = predicted(client, calm).json()["explanation"]["links"]["self"]
        assert client.get(path).json()["instances"][0]["visits"] == 3
        (tmp_path / "policy.toml").write_text(POLICY.replace('"grade"]', '"visits"]'))
        wait_until(lambda: client.get(path).json()["instances"][0]["visits"] is None, seconds=2)


def test_a_mask_that_fits_no_column_leaves_the_old_one_in_force_and_shows(
    tmp_path: Path, two_models: Path, calm: Instance
) -> None:
    keys: dict[str, str] = {}
    settings = settings_of(tmp_path, keys)
    with live_app(tmp_path, registry=two_models, **settings) as live:
        client = live.client(keys["support"])
        path = predicted(client, calm).json()["explanation"]["links"]["self"]
        assert_becomes_ready(client)
        (tmp_path / "policy.toml").write_text(
            POLICY.replace('"grade"]', '"grde"]') + "[models.mixd]\nreview = 1\n"
        )
        wait_until(lambda: client.get("/readyz").json()["status"] == "degraded", seconds=3)
        assert client.get("/readyz").json() == {
            "status": "degraded",
            "unknown_policy_models": ["mixd"],
            "policy_misfits": ["mixed"],
        }
        assert client.get(path).json()["instances"][0]["grade"] is None


def _keys(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _keys(value) for name, value in document.items()}
    return None if document is None else type(document).__name__


def test_the_masked_answer_in_the_docs_is_the_one_that_comes(
    client_of: ClientOf, calm: Instance
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    shown = json.loads(text.partition("<!-- example: masked -->\n```json\n")[2].partition("```")[0])
    answer = predicted(client_of("support"), calm).json()
    del answer["predictions"][0]["decision"]  # which this policy makes and the example's does not
    assert _keys(answer) == _keys(shown)
    assert answer["predictions"][0].keys() == shown["predictions"][0].keys()
    assert answer["explanation"]["visible"][0][0].keys() == (
        shown["explanation"]["visible"][0][0].keys()
    )


def test_only_who_sees_all_gets_proofs_replays_and_importances(
    client_of: ClientOf, calm: Instance
) -> None:
    request_id = predicted(client_of("owner"), calm).json()["request_id"]
    path = f"/explanations/{request_id}"
    wait_until(lambda: client_of("owner").get(f"{path}/proof").status == 200)
    for name in ROLES:
        client, sees_all = client_of(name), name in {"owner", "trusted"}
        assert client.get("/models/mixed/importance").status == (200 if sees_all else 403)
        proof = client.get(f"{path}/proof")
        if sees_all:
            assert all(entry["payload"] is not None for entry in proof.json()["entries"]), name
        else:
            assert_problem(proof, 403, "forbidden")
            assert "entries" not in proof.json()
            assert client.request("POST", f"{path}/replay").status == 403


@pytest.mark.parametrize("name", [name for name in ROLES if name not in ("owner", "trusted")])
def test_aggregates_are_withheld_from_whoever_does_not_see_every_column(
    client_of: ClientOf, name: str
) -> None:
    path = "/models/mixed/importance"
    assert_problem(client_of(name).get(path), 403, "forbidden")
    for whole in ("owner", "trusted"):
        assert client_of(whole).get(path).status == 200
