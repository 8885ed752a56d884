"""Labels that come later, in the running service: figures, triggers, webhook calls, decisions."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from labelling import Receiver, receiving, scored, store_labelled
from live_app import LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import JSON, wait_until

from service.drifting import DriftWatch
from service.measuring import PerformanceWatch
from service.registry.layout import Layout

MODEL = "mixed"
WEEK = timedelta(days=7)
Gauges = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr("service.measuring.TELL_SECONDS", 0.1)
    monkeypatch.setattr("service.measuring.FIRST_LOOK_SECONDS", 3600.0)  # tests look themselves
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def mixed_data_dir(tmp_path: Path, two_models: Path) -> Path:
    shutil.copytree(two_models, tmp_path / "data" / "registry")
    return tmp_path / "data"


@pytest.fixture
def app(mixed_data_dir: Path, receiver: Receiver) -> Iterator[LiveApp]:
    with live_app(mixed_data_dir, model=MODEL, retrain_webhook_url=receiver.url) as app:
        yield app


def watch_of(app: LiveApp, now: datetime) -> PerformanceWatch:
    """As another replica with the clock at that time."""
    runtime = app.runtime
    drift = DriftWatch.of(runtime.evidence, runtime.models, runtime.metrics.drift, runtime.settings)
    shown = runtime.metrics.performance
    own = (runtime.evidence, runtime.models, shown, drift, runtime.settings)
    return PerformanceWatch(*own, clock=lambda: now)


def gauges(app: LiveApp) -> Gauges:
    text = app.client().get("/metrics").body.decode()
    return {
        family.name: {tuple(s.labels.values()): s.value for s in family.samples}
        for family in text_string_to_metric_families(text)
    }


def weeks(app: LiveApp, *strengths: float) -> Callable[[int], Gauges]:
    """Looks at the end of a week, all of whose predictions are labelled and that good."""
    model = app.runtime.models.all[MODEL]
    begin = datetime.now(UTC) - len(strengths) * WEEK
    stored: set[int] = set()

    def look(number: int) -> Gauges:
        for hours in (1, 72) if number not in stored else ():
            found = scored(500, strength=strengths[number], seed=10 * number + hours)
            at = begin + number * WEEK + timedelta(hours=hours)
            store_labelled(app.runtime.evidence.store, at, *found, template=model.header)
        stored.add(number)
        watch_of(app, begin + (number + 1) * WEEK).look()
        return gauges(app)

    return look


def listed(data_dir: Path) -> list[dict[str, Any]]:
    done = explaind("retrain", "list", "--json", "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_a_fall_raises_one_trigger_that_a_person_approves_and_better_labels_close(
    app: LiveApp, receiver: Receiver, mixed_data_dir: Path
) -> None:
    look = weeks(app, 1.0, 0.3, 1.0)
    own = (MODEL, "1")
    first = look(0)
    assert first["explain_performance_auc"][own] == pytest.approx(0.92, abs=0.03)
    assert first["explain_performance_rows"][own] == 1000
    assert first["explain_retrain_needed"]["performance", MODEL] == 0
    second = look(1)
    assert second["explain_performance_reference"]["auc", *own] == pytest.approx(
        first["explain_performance_auc"][own]
    )
    assert second["explain_retrain_needed"]["performance", MODEL] == 1
    look(1)
    wait_until(lambda: len(receiver.calls) == 1)
    (trigger,) = listed(mixed_data_dir)
    assert (trigger["state"], trigger["cause"]) == ("open", "performance")
    assert trigger["facts"]["worse"] > 0.05

    where = ("--data-dir", str(mixed_data_dir))
    done = explaind("retrain", "approve", trigger["trigger"], "--note", "case 7", *where)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(receiver.calls) == 2)
    assert [call["event"] for call in receiver.documents] == ["raised", "approved"]
    assert look(1)["explain_retrain_needed"]["performance", MODEL] == 1
    assert look(2)["explain_retrain_needed"]["performance", MODEL] == 0
    (closed,) = listed(mixed_data_dir)
    assert (closed["state"], closed["decided"]["note"]) == ("closed", "case 7")
    again = explaind("retrain", "dismiss", trigger["trigger"], "--note", "late", *where)
    assert (again.returncode, "closed already" in again.stderr) == (2, True)


def test_weeks_that_are_alike_raise_nothing_and_a_dismissed_one_is_not_needed(
    app: LiveApp, mixed_data_dir: Path
) -> None:
    look = weeks(app, 0.7, 0.7, 0.2)
    assert look(0)["explain_retrain_needed"]["performance", MODEL] == 0
    assert look(1)["explain_retrain_needed"]["performance", MODEL] == 0
    assert listed(mixed_data_dir) == []
    assert look(2)["explain_retrain_needed"]["performance", MODEL] == 1
    (trigger,) = listed(mixed_data_dir)
    where = ("--note", "known", "--data-dir", str(mixed_data_dir))
    assert explaind("retrain", "dismiss", trigger["trigger"], *where).returncode == 0
    assert look(2)["explain_retrain_needed"]["performance", MODEL] == 0
    assert len(listed(mixed_data_dir)) == 1


def test_few_labels_and_a_week_that_is_not_over_are_no_reference(app: LiveApp) -> None:
    model = app.runtime.models.all[MODEL]
    store, now = app.runtime.evidence.store, datetime.now(UTC)
    store_labelled(
        store, now - timedelta(days=1), *scored(150, strength=1.0), template=model.header
    )
    watch_of(app, now).look()
    assert gauges(app)["explain_performance_rows"] == {(MODEL, "1"): 150}
    assert gauges(app)["explain_performance_auc"] == {}
    store_labelled(
        store, now - timedelta(days=2), *scored(150, strength=1.0), template=model.header
    )
    watch_of(app, now).look()
    assert gauges(app)["explain_performance_auc"]
    assert gauges(app)["explain_performance_reference"] == {}


def test_labels_told_over_http_are_counted(app: LiveApp, mixed_rows: list[dict[str, Any]]) -> None:
    client = app.client()
    before = gauges(app)["explain_labels"][MODEL,]
    for _ in range(2):
        made = client.predict(mixed_rows[:3], path=f"/models/{MODEL}/predict").json()
        path = f"/explanations/{made['request_id']}/label"
        content = json.dumps({"labels": [0, None, 1]}).encode()
        assert client.request("POST", path, content, JSON).status == 204
    watch_of(app, datetime.now(UTC)).look()
    found = gauges(app)
    assert found["explain_performance_rows"][MODEL, "1"] == 4
    assert found["explain_labels"][MODEL,] - before == 4


def test_a_trigger_is_closed_when_the_registry_says_that_another_version_serves(
    app: LiveApp, mixed_data_dir: Path
) -> None:
    look = weeks(app, 1.0, 0.3)
    look(0)
    assert look(1)["explain_retrain_needed"]["performance", MODEL] == 1
    served = dict(app.runtime.models.all)
    manifest = served[MODEL].model.manifest.model_copy(update={"version": 2})
    served[MODEL] = replace(served[MODEL], model=replace(served[MODEL].model, manifest=manifest))
    app.runtime.models._served = served  # a replica ahead of the others, or behind them
    watch = watch_of(app, datetime.now(UTC))
    watch.look()
    assert gauges(app)["explain_retrain_needed"]["performance", MODEL] == 1
    folder = mixed_data_dir / "registry" / MODEL
    shutil.copytree(folder / "1", folder / "2")
    Layout(folder.parent).set_serving(MODEL, 2)
    watch.look()
    assert gauges(app)["explain_retrain_needed"]["performance", MODEL] == 0


def test_a_version_whose_files_are_gone_does_not_stop_the_others(app: LiveApp) -> None:
    model = app.runtime.models.all[MODEL]
    store, now = app.runtime.evidence.store, datetime.now(UTC)
    gone = replace(model.header, version=9)
    for template in (gone, model.header):
        at = now - timedelta(days=1)
        store_labelled(store, at, *scored(100, strength=1.0), template=template)
    watch_of(app, now).look()
    assert gauges(app)["explain_performance_rows"] == {(MODEL, "1"): 100}


def test_a_stale_hour_that_was_counted_does_not_hold_up_the_reference(
    app: LiveApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = weeks(app, 1.0)
    monkeypatch.setattr("service.measuring.BEGINS_WITHIN", -1.0)
    assert look(0)["explain_performance_reference"] == {}
    monkeypatch.undo()
    begin = datetime.now(UTC) - WEEK
    model, store = app.runtime.models.all[MODEL], app.runtime.evidence.store
    at = begin + timedelta(hours=1)
    store_labelled(store, at, *scored(50, strength=1.0), template=model.header)
    monkeypatch.setattr("service.measuring.SECONDS_A_LOOK", 0.0)
    assert look(0)["explain_performance_reference"] != {}


def test_the_receiver_is_given_its_key(app: LiveApp, mixed_data_dir: Path) -> None:
    done = explaind("retrain", "webhook-key", "--data-dir", str(mixed_data_dir))
    key = app.runtime.predicting.keyring.key("", "webhook")
    assert done.stdout.strip() == key.hex()
