"""A model that is disabled answers nobody, and everything about its past stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client, wait_until

Instance = dict[str, Any]


@pytest.fixture
def registry(tmp_path: Path, two_models: Path) -> Path:
    shutil.copytree(two_models, tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def live(tmp_path: Path, registry: Path) -> Iterator[LiveApp]:
    with live_app(tmp_path, registry=registry) as live:
        yield live


def switch(word: str, name: str, registry: Path) -> None:
    run = explaind("models", word, name, "--registry", str(registry))
    assert run.returncode == 0, run.stderr


def status_of(client: Client, rows: list[Instance], name: str = "breast_cancer") -> int:
    return client.predict(rows[:1], path=f"/models/{name}/predict").status


def test_a_disabled_model_answers_nobody_within_two_seconds_and_again_when_enabled(
    live: LiveApp, registry: Path, rows: list[Instance], mixed_rows: list[Instance]
) -> None:
    client = live.client()
    path = "/models/breast_cancer/predict"
    request_id = client.predict(rows[:1], path=path).json()["request_id"]
    switch("disable", "breast_cancer", registry)
    wait_until(lambda: status_of(client, rows) == 404, seconds=2)
    for query in ("", "?explain=true"):
        reply = client.predict(rows[:1], path=path, query=query)
        assert_problem(reply, 404, "model_disabled")
        assert "retry-after" not in reply.headers
    assert_problem(client.get("/models/breast_cancer"), 404, "model_disabled")
    assert [item["name"] for item in client.get("/models").json()["items"]] == ["mixed"]
    assert status_of(client, mixed_rows, "mixed") == 200
    assert client.get(f"/explanations/{request_id}").status == 200
    assert client.get("/models/breast_cancer/review").json()["items"]
    ready = client.get("/readyz")
    assert (ready.status, ready.json()["disabled_models"]) == (200, ["breast_cancer"])
    switch("enable", "breast_cancer", registry)
    wait_until(lambda: status_of(client, rows) == 200)
    assert "disabled_models" not in client.get("/readyz").json()


def test_disabling_one_of_two_does_not_hand_its_callers_to_the_other(
    live: LiveApp, registry: Path, rows: list[Instance]
) -> None:
    client = live.client()
    assert_problem(client.predict(rows[:1]), 404, "not_found")
    switch("disable", "breast_cancer", registry)
    wait_until(lambda: status_of(client, rows) == 404, seconds=2)
    assert_problem(client.predict(rows[:1]), 404, "not_found")


def test_what_was_queued_before_is_explained_all_the_same(
    tmp_path: Path, registry: Path, rows: list[Instance]
) -> None:
    settings = {"inline_budget_seconds": 1e-9, "registry": registry, "embedded_workers": 1}
    with live_app(tmp_path, **settings) as live:
        client = live.client()
        path = "/models/breast_cancer/predict"
        answer = client.predict(rows[:1], path=path, headers={"Prefer": "wait=20"}).json()
        assert answer["explanation"]["status"] == "complete"
        switch("disable", "breast_cancer", registry)
        wait_until(lambda: status_of(client, rows) == 404, seconds=2)
        body = b'{"request_id": "%s"}' % answer["request_id"].encode()
        again = client.request("POST", "/explanations", body, JSON)
        assert again.status == 202
        place = again.headers["location"]
        record = client.get(place, Prefer="wait=20").json()
        assert record["explanation"]["status"] == "complete"
        assert record["explanation"]["values"] == answer["explanation"]["values"]


def test_a_service_whose_only_model_is_disabled_is_ready_for_those_who_read(
    data_dir: Path, rows: list[Instance]
) -> None:
    switch("disable", "breast_cancer", data_dir / "registry")
    with live_app(data_dir) as live:
        assert live.client().get("/readyz").status == 200
        assert_problem(live.client().predict(rows[:1]), 404, "model_disabled")
        assert live.client().get("/explanations").json()["items"] == []


def test_the_list_marks_it_and_unknown_names_are_refused(registry: Path) -> None:
    place = ("--registry", str(registry))
    switch("disable", "mixed", registry)
    switch("disable", "mixed", registry)
    listed = explaind("models", "list", *place).stdout.splitlines()
    assert [line.endswith("(disabled)") for line in listed] == [False, True]
    switch("enable", "mixed", registry)
    assert "disabled" not in explaind("models", "list", *place).stdout
    assert explaind("models", "disable", "no-such-model", *place).returncode == 3
    assert explaind("models", "enable", "no-such-model", *place).returncode == 3
    assert not (registry / "no-such-model").exists()
