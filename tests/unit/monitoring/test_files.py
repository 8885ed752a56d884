"""What deploy/slos.yml promises is what is committed, and every alert can be acted on."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.monitoring.boards import ROW
from scripts.monitoring.definitions import ROOT, Latency, load
from scripts.monitoring.files import DASHBOARDS, RULES, RUNBOOK, TESTS, made, stale
from service.metrics import EXPLANATION_BUCKETS
from service.settings import PREFIX, Settings

DEFINITIONS = load()
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
REPLICAS_SAY_THE_SAME = re.compile(r"explain_(?:drift_\w+|queue_jobs|queue_oldest\w+)")
UNITS = {"percentunit", "short", "s", "h", "reqps", "cps", "wps", "bytes"}
"""Of Grafana's that are used."""


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / RULES).read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def boards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((ROOT / DASHBOARDS).iterdir())]


def expressions() -> Iterable[str]:
    yield from (rule["expr"] for rule in rules())
    for board in boards():
        yield from (target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_what_is_committed_is_what_is_made() -> None:
    texts = made(DEFINITIONS)
    assert stale(texts, ROOT) == []
    folders = (ROOT / RULES).parent, ROOT / DASHBOARDS
    found = {str(file.relative_to(ROOT)) for folder in folders for file in folder.iterdir()}
    assert found <= texts.keys()


def test_what_was_edited_or_removed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a")
    (tmp_path / "edited").write_text("b")
    assert stale({"kept": "a", "edited": "a", "gone": "a"}, tmp_path) == ["edited", "gone"]


def test_every_promise_is_recorded_over_the_named_windows() -> None:
    assert DEFINITIONS.windows == WINDOWS
    recorded = {
        (rule["labels"]["sloth_slo"], rule["record"], rule["labels"].get("sloth_window"))
        for rule in rules()
        if rule.get("record", "").startswith("slo:sli_error")
    }
    assert recorded == {
        (promise.name, f"slo:sli_error:ratio_rate{window}", window)
        for promise in DEFINITIONS.promises
        for window in WINDOWS
    }


def test_every_latency_that_is_promised_is_an_edge_of_its_histogram() -> None:
    promised = [
        promise.indicator.within_seconds
        for promise in DEFINITIONS.promises
        if isinstance(promise.indicator, Latency)
    ]
    assert promised
    assert set(promised) <= set(EXPLANATION_BUCKETS)
    assert 0.3 not in EXPLANATION_BUCKETS


def test_every_alert_has_an_owner_a_severity_and_a_heading_in_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    assert len(set(headings)) == len(headings)
    assert {alert["alert"] for alert in alerts()} == set(headings)
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["labels"]["owner"]
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (page, anchor) == (RUNBOOK, alert["alert"].lower())


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [case for file in TESTS for case in yaml.safe_load((ROOT / file).read_text())["tests"]]
    tested: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for case in cases:
        (one,) = case["alert_rule_test"]
        for alert in one["exp_alerts"]:
            tested[True].add((one["alertname"], alert["exp_labels"]["severity"]))
        if not one["exp_alerts"]:
            tested[False].add((one["alertname"], ""))
    assert tested[True] == {(alert["alert"], alert["labels"]["severity"]) for alert in alerts()}
    assert tested[False] == {(alert["alert"], "") for alert in alerts()}


@pytest.mark.parametrize(
    ("expression", "is_right"),
    [
        ("max by (queue) (explain_queue_jobs)", True),
        ("sum by (queue) (max by (queue, state) (explain_queue_jobs))", True),
        ("sum(explain_queue_jobs)", False),
        ("explain_drift_psi > 1", False),
        ("avg by (model) (explain_drift_psi)", False),
    ],
)
def test_only_a_maximum_over_replicas_is_right(expression: str, *, is_right: bool) -> None:
    assert takes_maxima(expression) == is_right


def takes_maxima(expression: str) -> bool:
    """Every gauge that all replicas export alike stands directly in a maximum."""
    return all(
        re.search(r"max by \([\w, ]+\) \($", expression[: found.start()])
        for found in REPLICAS_SAY_THE_SAME.finditer(expression)
    )


def test_what_every_replica_exports_is_never_added_up() -> None:
    assert [one for one in expressions() if not takes_maxima(one)] == []


def advice() -> dict[str, str]:
    """The runbook's words on each alert."""
    page = (ROOT / RUNBOOK).read_text()
    parts = re.split(r"^### (\w+)$", page, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_runbook_names_only_commands_settings_alerts_and_panels_that_exist() -> None:
    from typer.main import get_command

    from service.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    settings = {PREFIX + name.upper() for name in Settings.names()}
    panels = {panel.title for board in DEFINITIONS.dashboards for panel in board.panels}
    for text in advice().values():
        assert set(re.findall(r"`explaind (\w+)", text)) <= commands
        assert set(re.findall(r"EXPLAIND_\w+", text)) <= settings
        assert set(re.findall(r'"([^"]+)"', text)) <= panels
        assert set(re.findall(r"\bExplaind[A-Z]\w+", text)) <= advice().keys()


def test_every_promise_alert_dashboard_and_panel_is_documented() -> None:
    page = " ".join((ROOT / "docs" / "observability.md").read_text().split())
    names = [promise.name for promise in DEFINITIONS.promises]
    names += [alert["alert"] for alert in alerts()]
    names += [board.name for board in DEFINITIONS.dashboards]
    assert [name for name in names if f"`{name}`" not in page] == []
    titles = [panel.title for board in DEFINITIONS.dashboards for panel in board.panels]
    assert [title for title in titles if title not in page] == []


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_a_dashboard_is_one_grafana_takes(board: dict[str, Any]) -> None:
    assert len(board["uid"]) <= 40
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "model"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    covered: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries", "bargauge", "table"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert [target["refId"] for target in panel["targets"]] == ["A"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < ROW
        assert not cells & covered
        covered |= cells
