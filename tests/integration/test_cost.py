"""What the report says of a running service's records is what its metrics counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import explaind
from live_app import live_app
from prometheus_client.parser import text_string_to_metric_families

Instance = dict[str, Any]


def test_the_report_agrees_with_the_metrics(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        for count in (1, 3, 2):
            app.client().predict(rows[:count])
        app.client().predict(rows[:3], query="")
        page = app.client().get("/metrics").body.decode()
    counted = {
        sample.labels["lane"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "explain_cpu_seconds_total"
    }
    printed = explaind("cost", "--json", "--data-dir", str(tmp_path))
    assert printed.returncode == 0, printed.stderr
    document = json.loads(printed.stdout)
    (line,) = document["costs"]
    assert line.pop("cpu_seconds") == pytest.approx(counted["inline"], abs=1e-6)
    assert counted["inline"] > 0
    assert line == {
        "tenant": "default",
        "model": "breast_cancer",
        "method": "tree_interventional",
        "lane": "inline",
        "explanations": 3,
        "failed": 0,
        "instances": 6,
        "model_evaluations": 0,
    }
    assert document["unknown"] == []
    table = explaind("cost", "--from", "2020-01-01", "--data-dir", str(tmp_path)).stdout
    assert table.splitlines()[0].split()[:4] == ["tenant", "model", "method", "lane"]
    assert "breast_cancer" in table
    none = explaind("cost", "--to", "2020-01-01", "--json", "--data-dir", str(tmp_path))
    assert json.loads(none.stdout) == {"costs": [], "unknown": []}


def test_an_erased_record_is_told_of_and_not_guessed(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        name = app.client().predict(rows[:1]).json()["request_id"]
    place = ("--data-dir", str(tmp_path))
    done = explaind("erase", "--request-id", name, "--reason", "asked", "--yes", *place)
    assert done.returncode == 0, done.stderr
    document = json.loads(explaind("cost", "--json", *place).stdout)
    assert document == {
        "costs": [],
        "unknown": [{"tenant": "default", "reason": "erased", "records": 1}],
    }
