"""Records replayed over the real service and by the command: equal, or what differs and where."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from called_families import CALLED
from commands import explaind
from live_app import LiveApp, live_app
from policies import TUMOUR_RULES
from problems import assert_problem
from servers import JSON, Client
from tables import breast_cancer, instances_of

from schemas import Replay
from service.registry import Registry
from service.registry.work import Options
from service.replays import MOST_AT_ONCE, Resting

RULES = f"""{TUMOUR_RULES}
[[models.mlp.rules]]
explain = "when_asked"

[[models.wide_svm.rules]]
explain = "when_asked"
"""
ROWS = {"mlp": 3, "wide_svm": 1}
"""How many of each model that can only be called: one is enumerated, one sampled."""

LONG = {"Prefer": "wait=30"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    """XGBoost inline, and two models that a real worker calls, under a policy."""
    data_dir = tmp_path_factory.mktemp("replay")
    shutil.copytree(demo_registry, data_dir / "registry")
    for name in ROWS:
        family = CALLED[name]()
        options = Options(background_rows=20, **family.options)
        Registry(data_dir / "registry").register(
            name, family.model, family.X, family.y, options=options
        )
    (data_dir / "policy.toml").write_text(RULES)
    settings = {"model": "breast_cancer", "policy_file": data_dir / "policy.toml"}
    with live_app(data_dir, embedded_workers=1, **settings) as live:
        yield live


@pytest.fixture
def client(live: LiveApp) -> Client:
    return live.client()


def instance(radius: float) -> dict[str, Any]:
    return {**instances_of(breast_cancer()[0].iloc[:1])[0], "mean radius": radius}


def replayed(client: Client, request_id: str) -> Mapping[str, Any]:
    reply = client.request("POST", f"/explanations/{request_id}/replay", b"", JSON)
    assert reply.status == 200, reply.body
    assert reply.headers["cache-control"] == "no-store"
    Replay.model_validate_json(reply.body)
    report: dict[str, Any] = reply.json()
    assert report["request_id"] == request_id
    return report


def asked(client: Client, *rows: dict[str, Any], query: str = "?explain=true", **more: Any) -> Any:
    reply = client.predict(list(rows), query=query, headers=LONG, **more)
    assert reply.status == 200, reply.body
    return reply.json()


def ended(client: Client, explanation: Any) -> Any:
    """That explanation once it has ended: a busy machine takes longer than an answer waits."""
    for _ in range(5):
        if explanation["status"] != "pending":
            break
        explanation = client.get(explanation["links"]["self"], **LONG).json()["explanation"]
    return explanation


def counted(live: LiveApp, outcome: str) -> float:
    labels = {"model": "breast_cancer", "method": "tree_interventional", "outcome": outcome}
    return live.runtime.metrics.registry.get_sample_value("explain_replays_total", labels) or 0.0


def test_an_inline_record_is_equal_with_its_decision(live: LiveApp, client: Client) -> None:
    before = counted(live, "equal")
    answer = asked(client, instance(12.0), instance(25.0), query="?explain=true&top=3")
    assert {p["decision"] for p in answer["predictions"]} <= {"discharge", "look closer"}
    report = replayed(client, answer["request_id"])
    assert report["equal"], report
    assert report["predictions"]["equal"]
    assert report["explanation"]["equal"]
    assert (counted(live, "equal"), counted(live, "different")) == (before + 1, 0)


def test_predictions_alone_and_what_policy_forbids_are_equal(client: Client) -> None:
    alone = asked(client, instance(12.0), query="")
    report = replayed(client, alone["request_id"])
    assert (report["equal"], report["explanation"]) == (True, None)
    forbidden = asked(client, instance(9.0))
    assert forbidden["explanation"]["status"] == "skipped"
    report = replayed(client, forbidden["request_id"])
    assert (report["equal"], report["explanation"]["equal"]) == (True, True)


def test_what_policy_had_explained_unasked_is_equal(client: Client) -> None:
    answer = asked(client, instance(25.0), query="")
    related = client.get(f"/explanations/{answer['request_id']}/related").json()["items"]
    (own,) = [item["request_id"] for item in related]
    final = client.get(f"/explanations/{own}", **LONG).json()
    assert final["explanation"]["status"] == "complete"
    for request_id in (answer["request_id"], own):
        report = replayed(client, request_id)
        assert report["equal"], report
    assert report["explanation"]["equal"]


@pytest.mark.parametrize("name", ROWS)
def test_what_a_worker_computed_is_equal(client: Client, name: str) -> None:
    rows = instances_of(CALLED[name]().X.iloc[: ROWS[name]])
    answer = asked(client, *rows, path=f"/models/{name}/predict")
    explanation = ended(client, answer["explanation"])
    assert (explanation["status"], explanation["lane"]) == ("complete", "queued"), explanation
    assert explanation["exact"] == (name == "mlp")
    report = replayed(client, answer["request_id"])
    assert report["equal"], report
    assert report["explanation"]["equal"]


@pytest.mark.parametrize("method", [None, "permutation", "kernel", "lime", "interactions"])
def test_an_explanation_made_again_is_equal(client: Client, method: str | None) -> None:
    answer = asked(client, instance(13.0))
    body = {"request_id": answer["request_id"], "method": method}
    reply = client.request("POST", "/explanations", json.dumps(body).encode(), JSON)
    assert reply.status == 202, reply.body
    final = client.get(reply.headers["location"], **LONG).json()
    assert final["explanation"]["status"] == "complete", final["explanation"]
    provenance = final["provenance"]
    assert provenance["attempt"] == 1
    assert provenance["queue_seconds"] >= 0
    report = replayed(client, final["request_id"])
    assert report["equal"], report
    assert report["explanation"]["equal"]


def test_more_replays_at_once_than_allowed_are_turned_away(live: LiveApp, client: Client) -> None:
    answer = asked(client, instance(14.0))
    live.runtime.replays._running = MOST_AT_ONCE
    try:
        path = f"/explanations/{answer['request_id']}/replay"
        reply = client.request("POST", path, b"", JSON)
        assert_problem(reply, 503, "overloaded")
        assert reply.headers["retry-after"] == "1"
    finally:
        live.runtime.replays._running = 0
    assert replayed(client, answer["request_id"])["equal"]
    assert live.runtime.replays._running == 0


def test_an_unknown_record_is_not_replayed(client: Client) -> None:
    assert_problem(client.request("POST", "/explanations/unknown-1/replay", b"", JSON), 404)


@pytest.mark.drill
def test_the_command_says_so_by_its_exit_code(
    live: LiveApp, client: Client, tmp_path: Path
) -> None:
    request_id = asked(client, instance(15.0))["request_id"]
    data_dir = live.runtime.settings.data_dir
    options = (f"--data-dir={data_dir}",)
    equal = explaind("replay", request_id, "--json", *options)
    assert equal.returncode == 0, equal.stderr
    report = Replay.model_validate_json(equal.stdout)
    assert report.equal
    said = explaind("replay", request_id, *options)
    assert said.stdout.splitlines()[0] == f"{request_id}: equal"
    assert explaind("replay", "unknown-1", *options).returncode == 3
    assert explaind("replay", request_id, "--tenant=other", *options).returncode == 3
    gone = explaind("replay", request_id, f"--registry={tmp_path / 'empty'}", *options)
    assert gone.returncode == 5, gone.stderr
    assert "no version 1 of model 'breast_cancer'" in gone.stderr
    shutil.copytree(data_dir / "registry", tmp_path / "registry")
    model = tmp_path / "registry" / "breast_cancer" / "1" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1])
    other = explaind(
        "replay", request_id, "--json", f"--registry={tmp_path / 'registry'}", *options
    )
    assert other.returncode == 1, other.stderr
    assert "is not equal to its record" in other.stderr
    assert "model.ubj is not the file that was registered" in json.loads(other.stdout)["reason"]


def test_a_version_that_left_the_registry_is_a_conflict(
    live: LiveApp, client: Client, tmp_path: Path
) -> None:
    request_id = asked(client, instance(16.0))["request_id"]
    replays = live.runtime.replays
    elsewhere = replays.settings.model_copy(update={"registry_dir": tmp_path})
    children, replays.children = replays.children, Resting(elsewhere)
    try:
        path = f"/explanations/{request_id}/replay"
        assert_problem(client.request("POST", path, b"", JSON), 409, "version_gone")
        assert len(replays.children._idle) == 1, "its process can replay others"
    finally:
        ending, loop = replays.children.close(), live.runtime.evidence._writer._loop
        asyncio.run_coroutine_threadsafe(ending, loop).result(10)
        replays.children = children
