"""A model's card as it is now: over HTTP and by command, for who may see it."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from live_app import LiveApp, live_app
from masked_roles import settings_of
from problems import assert_problem
from second_version import register_second_version
from servers import JSON, Client, Reply

from schemas import ModelCard
from service.drift.keeping import Keeper
from service.drifting import DriftWatch
from service.measuring import PerformanceWatch
from service.registry import Registry
from service.registry.rollouts import Rollout, start_rollout
from service.registry.sections import write_section

PATH = "/models/breast_cancer/card"
Instance = dict[str, Any]


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, two_models: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("cards")
    shutil.copytree(two_models, folder / "registry")
    register_second_version(Registry(folder / "registry"))
    limits = {"drift_min_rows": 100, "performance_min_labels": 50}
    with live_app(folder, **settings_of(folder, keys), **limits) as live:
        yield live


@pytest.fixture
def client(live: LiveApp, keys: dict[str, str]) -> Client:
    return live.client(keys["owner"])


def as_json(client: Client, path: str = PATH) -> dict[str, Any]:
    reply = client.request("GET", path, None, {"Accept": "application/json"})
    ModelCard.model_validate_json(reply.body)
    return reply.json()  # type: ignore[no-any-return]


def write(live: LiveApp, model: str, *sections: str, text: str = "For doctors.") -> None:
    registry = live.runtime.models.registry
    for section in sections:
        write_section(registry.layout, registry.load(model, 1), section, text)


def test_a_card_has_the_frozen_part_and_what_is_not_written_yet(client: Client) -> None:
    reply = client.get("/models/mixed/card")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/markdown")
    assert text.startswith("# Model card: mixed, version 1\n\n**Status: unwritten.**")
    assert "\n## Intended use\n\n_To be written._\n" in text
    assert "\n### mixed, version 1\n" in text
    assert "\n#### Limits of these explanations\n" in text
    assert "they are not causes." in text
    assert "- This version serves, since 20" in text
    card = as_json(client, "/models/mixed/card")
    assert card["status"] == "unwritten"
    assert card["troubles"] == ["intended_use is empty", "owner is empty"]
    assert card["frozen"].startswith("# mixed, version 1\n")


def test_what_is_written_shows_at_once_with_the_version_it_is_for(
    live: LiveApp, client: Client
) -> None:
    write(live, "breast_cancer", "intended_use", "owner", text="# For doctors\n\nNobody else.")
    text = client.get(PATH).body.decode()
    assert "**Status: current.**" in text
    assert "\n## Intended use\n\n### For doctors\n\nNobody else.\n\n_Written or confirmed" in text
    card = as_json(client)
    assert card["status"] == "current"
    assert [each["status"] for each in card["sections"]] == ["current", "empty", "empty", "current"]
    assert {each["written_for"] for each in card["sections"]} == {1, None}


def test_what_was_written_for_something_else_is_said_to_be_stale(
    live: LiveApp, client: Client
) -> None:
    write(live, "breast_cancer", "ethics", text="None known.")
    path = live.runtime.models.registry.layout.root / "breast_cancer" / "card" / "ethics.md"
    path.write_text(path.read_text().replace('"method": "tree_interventional"', '"method": null'))
    text = client.get(PATH).body.decode()
    assert "**Status: incomplete.**" in text
    reason = "was written for version 1; since then changed: explanation method"
    assert f"\n- ethics {reason}" in text
    assert f"\n## Ethical considerations\n\n> **Stale:** {reason}.\n\nNone known.\n" in text
    path.unlink()


def test_today_tells_of_rollouts(live: LiveApp, client: Client) -> None:
    layout = live.runtime.models.registry.layout
    start_rollout(layout, "breast_cancer", Rollout.begun("shadow", 2, 0.5))
    assert "Last tried: version 2 as a shadow, since " in client.get(PATH).body.decode()
    rollout = as_json(client)["rollout"]
    assert (rollout["mode"], rollout["version"], rollout["ended_at"]) == ("shadow", 2, None)


def test_today_tells_of_drift_once_there_are_enough_rows(
    live: LiveApp, client: Client, rows: list[Instance]
) -> None:
    assert as_json(client)["drift"] == {"rows": 0, "is_alarm": None, "moved": []}
    strange = [{**row, "mean texture": 39.0} for row in rows] * 2
    reply = client.predict(strange, path="/models/breast_cancer/predict", query="")
    assert reply.status == 200
    keeper = live.runtime.drift
    assert isinstance(keeper, Keeper)
    keeper.count()
    keeper.save()
    drift = as_json(client)["drift"]
    assert (drift["rows"], drift["is_alarm"]) == (128, True)
    assert "feature mean texture" in drift["moved"]
    assert "- Drift: **yes**, over 128 rows: `" in client.get(PATH).body.decode()


def test_today_tells_what_labels_that_came_later_say(
    live: LiveApp, client: Client, mixed_rows: list[Instance]
) -> None:
    calm = [{**row, "visits": 3} for row in mixed_rows]
    sent = client.predict(calm, path="/models/mixed/predict", query="").json()
    assert as_json(client, "/models/mixed/card")["performance"]["measures"] == {}
    labels = [row["label"] for row in sent["predictions"]]
    path = f"/explanations/{sent['request_id']}/label"
    assert client.request("POST", path, json.dumps({"labels": labels}).encode(), JSON).status == 204
    runtime = live.runtime
    drift = DriftWatch.of(runtime.evidence, runtime.models, runtime.metrics.drift, runtime.settings)
    shown = runtime.metrics.performance
    PerformanceWatch(runtime.evidence, runtime.models, shown, drift, runtime.settings).look()
    performance = as_json(client, "/models/mixed/card")["performance"]
    assert (performance["rows"], performance["measures"]["auc"]["value"]) == (64, 1.0)
    text = client.get("/models/mixed/card").body.decode()
    assert "- Labels that came later: " in text
    assert "AUC 1 (standard error 0), over 64 rows in the last 7 days." in text


@pytest.mark.parametrize(("name", "sees"), [("alice", False), ("not-audit", True)])
def test_what_all_tenants_rows_say_is_for_who_may_see_metrics(
    keyed: Any, name: str, *, sees: bool
) -> None:
    card = as_json(keyed.client(name))
    assert (card["drift"] is not None, card["performance"] is not None) == (sees, sees)


def test_who_may_not_see_every_column_gets_no_card(live: LiveApp, keys: dict[str, str]) -> None:
    for role, status in (("support", 403), ("misspelt", 403), ("trusted", 200)):
        assert live.client(keys[role]).get("/models/mixed/card").status == status


def test_an_unknown_model_has_none(client: Client) -> None:
    assert_problem(client.get("/models/nobody/card"), 404, "not_found")


def test_files_that_are_not_the_registered_ones_are_not_shown(
    live: LiveApp, client: Client
) -> None:
    path = live.runtime.models.registry.layout.folder("mixed", 1) / "card.md"
    content = path.read_bytes()
    path.write_bytes(content + b"It is perfect.\n")
    try:
        reply: Reply = client.get("/models/mixed/card")
        assert reply.status == 503
        assert b"perfect" not in reply.body
        assert os.fsencode(path) not in reply.body
    finally:
        path.write_bytes(content)


def test_the_command_writes_and_prints_the_same_card_and_makes_no_database(data_dir: Path) -> None:
    place = ("--data-dir", str(data_dir))
    text = data_dir / "text.md"
    text.write_text("For doctors.")
    done = explaind("card", "breast_cancer", "--set", f"owner={text}", *place)
    assert (done.returncode, done.stdout) == (0, "")
    card = json.loads(explaind("card", "breast_cancer", "--json", *place).stdout)
    assert card["troubles"] == ["intended_use is empty"]
    assert datetime.fromisoformat(card["serving_since"]) <= datetime.now(UTC)
    assert [path.name for path in data_dir.iterdir() if "evidence" in path.name] == []
    with live_app(data_dir) as live:
        over_http = as_json(live.client())
        printed = explaind("card", "breast_cancer", *place).stdout
        assert printed == live.client().get(PATH).body.decode()
    assert over_http["drift"] == {"rows": 0, "is_alarm": None, "moved": []}
    unasked = dict.fromkeys(("drift", "performance"))
    assert over_http | unasked == card


@pytest.mark.parametrize(
    ("options", "code"),
    [(("nobody",), 3), (("breast_cancer", "--set", "owner"), 2)],
    ids=["no model", "no file named"],
)
def test_what_cannot_be_done_has_an_exit_code(
    demo_registry: Path, options: tuple[str, ...], code: int
) -> None:
    done = explaind("card", *options, "--registry", str(demo_registry))
    assert done.returncode == code
    assert done.stderr.startswith("explaind: ")
