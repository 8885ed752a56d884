"""Drift of the running service on bike_sharing: 2011 is the baseline, and 2012 comes in."""

import asyncio
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import explaind
from faulty_parts import with_explainer
from live_app import Customise, LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import wait_until
from tables import instances_of, larger_table

from explainers.base import Explanation
from service.drift import windows
from service.drift.baseline import Baseline
from service.drift.bins import Tally
from service.drift.comparing import compare
from service.drift.keeping import Keeper
from service.drifting import DriftWatch
from service.evidence import EvidenceStore
from service.registry import Registry
from service.registry.inference import rows_of
from service.registry.work import Options

pytestmark = pytest.mark.extra_data

MODEL = "bikes"
TARGET = "count"
PAIR = ("humidity", "working_day")
CHUNK = 200
Instance = dict[str, Any]


@pytest.fixture(scope="module")
def bikes() -> pd.DataFrame:
    return larger_table("bike_sharing")


@pytest.fixture(scope="module")
def registry(bikes: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2011, registered with 2011."""
    from lightgbm import LGBMRegressor

    path = tmp_path_factory.mktemp("bikes") / "registry"
    year = bikes[bikes["year"] == 2011].reset_index(drop=True)
    X, y = year.drop(columns=TARGET), year[TARGET]
    prepared = X.astype({"season": pd.CategoricalDtype(sorted(X["season"].unique()))})
    model = LGBMRegressor(n_estimators=60, num_leaves=15, n_jobs=1, verbose=-1).fit(prepared, y)
    options = Options(sources={"year": "the clock", "humidity": "weather.station"})
    Registry(path).register(MODEL, model, X, y, options=options)
    return path


@pytest.fixture(scope="module")
def baseline(registry: Path) -> Baseline:
    return Baseline.read(Registry(registry).layout, MODEL, 1)


@pytest.fixture
def data_dir(registry: Path, tmp_path: Path) -> Path:
    shutil.copytree(registry, tmp_path / "data" / "registry")
    return tmp_path / "data"


def instances(bikes: pd.DataFrame, year: int, count: int, seed: int = 0) -> list[Instance]:
    chosen = bikes[bikes["year"] == year].drop(columns=TARGET)
    return instances_of(chosen.sample(count, random_state=seed))


def send(app: LiveApp, rows: list[Instance], query: str = "?explain=true") -> None:
    client = app.client()
    for start in range(0, len(rows), CHUNK):
        reply = client.predict(rows[start : start + CHUNK], query=query)
        assert reply.status == 200, reply.body


def kept(app: LiveApp) -> Keeper:
    assert app.runtime.drift is not None
    return app.runtime.drift


def looked(app: LiveApp) -> dict[str, dict[tuple[str, str], float]]:
    """Every drift gauge after a look, by kind and feature."""
    kept(app).save()
    runtime = app.runtime
    drift = runtime.metrics.drift
    watch = DriftWatch.of(runtime.evidence, runtime.models, drift, runtime.settings)
    asyncio.run(watch.look())
    text = app.client().get("/metrics").body.decode()
    return {
        family.name: {
            (s.labels.get("kind", ""), s.labels.get("feature", "")): s.value for s in family.samples
        }
        for family in text_string_to_metric_families(text)
        if family.name.startswith("explain_drift")
    }


def alarms(gauges: dict[str, dict[tuple[str, str], float]]) -> set[tuple[str, str]]:
    return {labels for labels, value in gauges["explain_drift_alarm"].items() if value}


def command(data_dir: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = explaind("drift", MODEL, "--data-dir", str(data_dir), "--json", *arguments)
    return done.returncode, json.loads(done.stdout)


def stored(data_dir: Path, baseline: Baseline) -> Tally:
    now = datetime.now(UTC)
    with EvidenceStore.open(f"sqlite:///{data_dir}/evidence.db") as store:
        since = now - timedelta(hours=3)
        return windows.summed(store, baseline, since, now + timedelta(hours=1))


def test_a_sample_of_the_same_year_raises_nothing(data_dir: Path, bikes: pd.DataFrame) -> None:
    with live_app(data_dir) as app:
        send(app, instances(bikes, 2011, 1600))
        gauges = looked(app)
        assert alarms(gauges) == set()
        assert gauges["explain_drift_rows"] == {("feature", ""): 1600, ("attribution", ""): 1600}
        assert gauges["explain_drift_ndcg"]["attribution", "value"] > 0.95
        code, report = command(data_dir)
    assert (code, report["drift"], report["notes"]) == (0, False, [])


def test_the_next_year_raises_the_year_alone(data_dir: Path, bikes: pd.DataFrame) -> None:
    with live_app(data_dir) as app:
        send(app, instances(bikes, 2012, 1600))
        gauges = looked(app)
        assert alarms(gauges) == {("feature", "year")}
        assert gauges["explain_drift_out_of_range_ratio"]["feature", "year"] == 1.0
        code, report = command(data_dir)
    assert code == 1
    first = report["columns"][0]
    assert (first["column"], first["source"], first["drift"]) == ("year", "the clock", True)
    assert not any(column["drift"] for column in report["columns"][1:])


def test_a_single_winter_month_raises_what_goes_with_the_season(
    data_dir: Path, bikes: pd.DataFrame
) -> None:
    january = bikes[(bikes["year"] == 2012) & (bikes["month"] <= 2)].drop(columns=TARGET)
    with live_app(data_dir) as app:
        send(app, instances_of(january), query="")
        raised = alarms(looked(app))
    inputs = {feature for kind, feature in raised if kind == "feature"}
    assert {"year", "month", "season", "temperature", "feeling_temperature"} <= inputs
    assert inputs.isdisjoint({"hour", "weekday", "holiday", "working_day"})
    assert ("prediction", "value") in raised  # fewer people ride in winter


def test_columns_that_a_caller_swaps_are_named_by_inputs_and_attributions(
    data_dir: Path, bikes: pd.DataFrame
) -> None:
    rows = instances(bikes, 2011, 1600)
    for row in rows:
        row["humidity"], row["windspeed"] = row["windspeed"], row["humidity"]
    with live_app(data_dir) as app:
        send(app, rows)
        raised = alarms(looked(app))
        code, report = command(data_dir)
    for kind in ("feature", "attribution"):
        assert {(kind, "humidity"), (kind, "windspeed")} <= raised
    assert code == 1
    assert {column["column"] for column in report["columns"][:2]} == {"humidity", "windspeed"}


def with_pair_swapped(names: tuple[str, ...]) -> Customise:
    """What serves attributes to one column of the pair what is the other's."""
    first, second = map(names.index, PAIR)

    def swapped(explanation: Explanation) -> Explanation:
        values = explanation.values.copy()
        values[:, [first, second]] = values[:, [second, first]]
        return replace(explanation, values=values)

    return with_explainer(swapped)


def test_columns_swapped_in_serving_are_named_by_attributions_alone_within_2000_rows(
    data_dir: Path, bikes: pd.DataFrame, baseline: Baseline
) -> None:
    with live_app(data_dir, customise=with_pair_swapped(baseline.names.features)) as app:
        send(app, instances(bikes, 2011, 1600))
        raised = alarms(looked(app))
        code, report = command(data_dir)
    assert {label for label in raised if label[0] != "order"} == {
        ("attribution", name) for name in PAIR
    }
    assert code == 1
    assert {column["column"] for column in report["columns"][:2]} == set(PAIR)
    assert "weather.station" in {column["source"] for column in report["columns"][:2]}


def test_two_windows_are_compared_with_each_other(data_dir: Path, bikes: pd.DataFrame) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with live_app(data_dir) as app:
        tallies = kept(app).tallies
        for hours, year in ((5, 2012), (3, 2012), (1, 2011)):
            moment = (hour - timedelta(hours=hours)).timestamp()
            tallies.clock = lambda moment=moment: moment  # type: ignore[misc]
            send(app, instances(bikes, year, 1200, seed=hours), query="")
        kept(app).save()

    def at(hours: int) -> str:
        return f"{hour - timedelta(hours=hours):%Y-%m-%dT%H:%M:%S}"

    same = command(data_dir, "--from", at(3), "--to", at(2), "--against", f"{at(5)}/{at(4)}")
    other = command(data_dir, "--from", at(1), "--to", at(0), "--against", f"{at(5)}/{at(4)}")
    assert (same[0], same[1]["drift"]) == (0, False)
    assert (other[0], other[1]["columns"][0]["column"]) == (1, "year")
    assert "too few explained rows" in same[1]["notes"][0]


def test_few_rows_say_nothing_and_their_gauges_are_absent(
    data_dir: Path, bikes: pd.DataFrame
) -> None:
    with live_app(data_dir) as app:
        send(app, instances(bikes, 2012, 200))
        gauges = looked(app)
        code, report = command(data_dir)
    assert not gauges["explain_drift_psi"]
    assert gauges["explain_drift_rows"]["feature", ""] == 200
    assert (code, report["columns"]) == (0, [])
    assert "too few rows" in report["notes"][0]


def test_a_restart_loses_nothing_and_rehearsals_and_refusals_are_not_counted(
    data_dir: Path, bikes: pd.DataFrame, baseline: Baseline
) -> None:
    rows = instances(bikes, 2011, 300)
    for part in (rows[:100], rows[100:]):
        with live_app(data_dir) as app:
            send(app, part)
            assert app.client().predict([{"year": 2011}]).status == 422
    tally = stored(data_dir, baseline)
    expected = baseline.bins.empty()
    model = Registry(data_dir / "registry").load(MODEL, 1)
    coded = rows_of(model.schema, rows)
    baseline.bins.count(coded, model.native.predict(coded).scores, expected)
    assert model.explainer is not None
    baseline.bins.count_values(model.explainer.explain(coded).values, expected)
    assert np.array_equal(tally, expected)


def test_what_a_worker_explains_is_counted_by_the_worker(
    data_dir: Path, bikes: pd.DataFrame, baseline: Baseline
) -> None:
    rows = instances(bikes, 2011, 40)
    # A worker gives way to everything else: on a loaded machine its first job takes a minute.
    patient = {"job_time_limit_seconds": 240.0, "inline_budget_seconds": 1e-9}
    with live_app(data_dir, embedded_workers=1, **patient) as app:
        client = app.client()
        reply = client.predict(rows).json()
        assert reply["explanation"]["lane"] == "queued"
        path = f"/explanations/{reply['request_id']}"
        wait_until(
            lambda: client.get(path).json()["explanation"]["status"] == "complete", seconds=240
        )
    tally = stored(data_dir, baseline)
    assert tally[:2].tolist() == [40, 40]


def test_halves_of_a_shuffled_year_raise_no_alarm_in_100_windows(
    registry: Path, baseline: Baseline, bikes: pd.DataFrame
) -> None:
    model = Registry(registry).load(MODEL, 1)
    assert model.explainer is not None
    year = bikes[bikes["year"] == 2011].drop(columns=TARGET)
    rows = rows_of(model.schema, instances_of(year))
    scores, values = model.native.predict(rows).scores, model.explainer.explain(rows).values
    rng = np.random.default_rng(11)
    by_chance, tests = 0, 0
    for _ in range(100):
        order = rng.permutation(len(rows))
        halves = []
        for half in np.array_split(order, 2):
            halves.append(baseline.bins.empty())
            baseline.bins.count(rows[half], scores[half], halves[-1])
            baseline.bins.count_values(values[half], halves[-1])
        found = compare(baseline.bins, baseline.names, *halves)
        assert not found.is_alarm
        assert not any(one.is_notice for one in found.findings)
        by_chance += sum(one.p_value < 0.05 for one in found.findings)
        tests += len(found.findings)
    assert by_chance / tests == pytest.approx(0.05, abs=0.02)
