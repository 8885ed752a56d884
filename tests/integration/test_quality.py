"""A share of explanations has its stability and faithfulness measured by a worker, unseen."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import values_swapped, with_explainer
from live_app import LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import wait_until

Instance = dict[str, Any]
FIDELITY = "explain_fidelity_ratio"
STABILITY = "explain_attribution_stability_ratio"


def scraped(app: LiveApp) -> dict[str, float]:
    page = app.client().get("/metrics").body.decode()
    told = ("lane", "measure", "outcome")
    return {
        "/".join([sample.name, *(sample.labels[n] for n in told if n in sample.labels)]): (
            sample.value
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.parametrize("lane", ["inline", "queued"])
def test_what_is_served_is_measured_once_with_its_cost(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], lane: str
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    settings = {
        "quality_share": 1.0,
        "embedded_workers": 1,
        "job_time_limit_seconds": 100,  # it may have kernels to compile
        "inline_budget_seconds": 0.1 if lane == "inline" else 1e-9,
    }
    with live_app(tmp_path, **settings) as app:
        client = app.client()
        first = scraped(app)
        assert (first[f"{FIDELITY}_count"], first[f"{STABILITY}_count"]) == (0, 0)
        assert first["explain_cpu_seconds_total/quality"] == 0
        client.predict(rows[:3])
        client.predict(rows[:3], query="")
        measured = "explain_quality_samples_total/fidelity/measured"
        wait_until(lambda: scraped(app).get(measured, 0) >= 1, seconds=110)
        found = scraped(app)
        assert (found[f"{FIDELITY}_count"], found[f"{STABILITY}_count"]) == (1, 1)
        assert found[f"{FIDELITY}_sum"] > 0.9
        assert found[f"{STABILITY}_sum"] > 0.8
        assert found["explain_cpu_seconds_total/quality"] > 0
        assert found["explain_model_evaluations_total/quality"] >= 64 * 100
        assert found[f"explain_cpu_seconds_total/{lane}"] > 0


def test_wrong_values_that_add_up_are_served_and_found_unfaithful(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    settings = {"quality_share": 1.0, "embedded_workers": 1, "job_time_limit_seconds": 100}
    with live_app(tmp_path, customise=with_explainer(values_swapped), **settings) as app:
        answer = app.client().predict(rows[:1]).json()
        assert answer["explanation"]["status"] == "complete"
        wait_until(lambda: scraped(app)[f"{FIDELITY}_count"] >= 1, seconds=110)
        assert scraped(app)[f"{FIDELITY}_sum"] < 0.9
