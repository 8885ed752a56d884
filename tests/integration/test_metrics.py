"""The metrics contract: names, labels, buckets, what each outcome moves, and what is never said."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import (
    Customise,
    fails,
    five_percent_off,
    names_swapped,
    not_finite,
    unread_moves,
    unwritable,
    with_explainer,
    with_odd_scores,
)
from live_app import LiveApp, live_app
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from servers import JSON, Client

from explainers.base import Explanation
from service.drift_metrics import TEXTS, Measured, ModelDrift
from service.performance_metrics import FAMILIES as GAUGES
from service.performance_metrics import Number

Instance = dict[str, Any]
Change = Callable[[Explanation], Explanation] | None

MODEL = "breast_cancer"
LATENCY = "0.005 0.01 0.025 0.05 0.1 0.2 0.5 1.0 2.5 5.0 10.0"
RATIO = "0.5 0.6 0.7 0.8 0.9 0.95 0.99 1.0"
BUCKETS = {
    "http_server_request_duration_seconds": LATENCY,
    "explain_explanation_duration_seconds": f"{LATENCY} 15.0 30.0 60.0 120.0 300.0 900.0",
    "explain_audit_write_duration_seconds": LATENCY,
    "explain_payload_size_bytes": "512.0 2048.0 8192.0 32768.0 131072.0 524288.0 2.097152e+06 "
    "8.388608e+06",
    "explain_additivity_error_ratio": "1e-06 1e-05 0.0001 0.001 0.01 0.1 1.0 10.0",
    "explain_counterfactual_duration_seconds": "0.005 0.01 0.025 0.05 0.1 0.2 0.5 1.0 2.5 5.0 10.0",
    "explain_feedback_rating": "1.0 2.0 3.0 4.0 5.0",
    "explain_canary_gap_ratio": "1e-12 1e-11 1e-10 1e-09 1e-08 1e-07 1e-06 1e-05 0.0001 0.001 "
    "0.01 0.1 1.0",
    "explain_attribution_stability_ratio": RATIO,
    "explain_fidelity_ratio": RATIO,
}
FAMILIES = {
    "http_server_request_duration_seconds": (
        "histogram",
        "http_request_method http_response_status_code http_route",
    ),
    "http_server_active_requests": ("gauge", "http_request_method"),
    "explain_predictions": ("counter", "model outcome"),
    "explain_explanations_wanted": ("counter", "lane model role"),
    "explain_explanations": ("counter", "lane model outcome role"),
    "explain_explanation_duration_seconds": ("histogram", "lane method model role"),
    "explain_payload_size_bytes": ("histogram", "lane"),
    "explain_cpu_seconds": ("counter", "lane method model"),
    "explain_model_evaluations": ("counter", "lane method model"),
    "explain_errors": ("counter", "model stage type"),
    "explain_additivity_checks": ("counter", "method model outcome"),
    "explain_additivity_error_ratio": ("histogram", "method model"),
    "explain_invariant_failures": ("counter", "invariant method model"),
    "explain_canary_gap_ratio": ("histogram", "method model"),
    "explain_attribution_stability_ratio": ("histogram", "method model"),
    "explain_fidelity_ratio": ("histogram", "method model"),
    "explain_quality_samples": ("counter", "measure method model outcome"),
    "explain_replays": ("counter", "method model outcome"),
    "explain_audit_writes": ("counter", "backend outcome"),
    "explain_audit_reads": ("counter", "backend outcome"),
    "explain_audit_write_duration_seconds": ("histogram", "backend"),
    "explain_audit_backlog_records": ("gauge", "backend"),
    "explain_records_purged": ("counter", "model"),
    "explain_purge_held_records": ("gauge", ""),
    "explain_purge_last_success_timestamp_seconds": ("gauge", ""),
    "explain_queue_jobs": ("gauge", "queue state"),
    "explain_queue_oldest_job_age_seconds": ("gauge", "queue"),
    "explain_privacy_scans": ("counter", "detector outcome"),
    "explain_privacy_findings": ("counter", "action detector entity"),
    "explain_feedback_rating": ("histogram", "model"),
    "explain_counterfactuals": ("counter", "model status"),
    "explain_reasons": ("counter", "model status"),
    "explain_counterfactual_duration_seconds": ("histogram", "model"),
    "explain_rollout_requests": ("counter", "model outcome role"),
    "explain_rollbacks": ("counter", "model"),
    "explain_drift_psi": ("gauge", "feature kind model"),
    "explain_drift_ks_statistic": ("gauge", "feature kind model"),
    "explain_drift_ndcg": ("gauge", "feature kind model"),
    "explain_drift_alarm": ("gauge", "feature kind model"),
    "explain_drift_out_of_range_ratio": ("gauge", "feature kind model"),
    "explain_drift_unseen_ratio": ("gauge", "feature kind model"),
    "explain_drift_rows": ("gauge", "kind model"),
    "explain_drift_last_run_timestamp_seconds": ("gauge", "model"),
    "explain_drift_dropped_rows": ("counter", ""),
    "explain_labels": ("counter", "model"),
    "explain_performance_auc": ("gauge", "model version"),
    "explain_performance_rmse": ("gauge", "model version"),
    "explain_performance_mae": ("gauge", "model version"),
    "explain_performance_brier": ("gauge", "model version"),
    "explain_calibration_error": ("gauge", "model version"),
    "explain_performance_standard_error": ("gauge", "measure model version"),
    "explain_performance_reference": ("gauge", "measure model version"),
    "explain_performance_rows": ("gauge", "model version"),
    "explain_performance_last_run_timestamp_seconds": ("gauge", ""),
    "explain_retrain_needed": ("gauge", "cause model"),
    "explain_retrain_calls_waiting": ("gauge", ""),
    "explain_build_info": ("gauge", "python_version version"),
    "explain_model_info": ("gauge", "alias digest method model version"),
}


def scrape(app: LiveApp, key: str | None = None) -> dict[str, Metric]:
    text = app.client(key).get("/metrics").body.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def labels_of(family: Metric) -> str:
    return " ".join(sorted({name for s in family.samples for name in s.labels} - {"le"}))


def test_families_have_the_names_types_and_labels_of_the_contract(
    live: LiveApp, rows: list[Instance]
) -> None:
    live.client().predict(rows[:1])
    looked = [Measured(name, "feature", "age", 0.5) for name in TEXTS]
    live.runtime.metrics.drift.show({MODEL: ModelDrift(1.0, {"feature": 1}, looked)})
    numbers = [Number(name, ("x",) * len(labels), 1.0) for name, (_, labels) in GAUGES.items()]
    live.runtime.metrics.performance.show(numbers)
    found = scrape(live)
    assert {name: (f.type, labels_of(f)) for name, f in found.items()} == FAMILIES


def test_histograms_have_the_buckets_of_the_contract(live: LiveApp, rows: list[Instance]) -> None:
    live.client().predict(rows[:1])
    families = scrape(live)
    found = {
        name: " ".join(dict.fromkeys(s.labels["le"] for s in family.samples if "le" in s.labels))
        for name, family in families.items()
        if family.type == "histogram"
    }
    assert found == {name: f"{edges} +Inf" for name, edges in BUCKETS.items()}


def test_every_family_exists_at_the_first_scrape(tmp_path: Path, demo_registry: Path) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        families = scrape(app)
        looked = {name for name in families if name.startswith("explain_drift_")} | set(GAUGES)
        empty = {name for name, family in families.items() if not family.samples} - looked
        assert empty == {"http_server_request_duration_seconds"}
        zero = [s.value for s in families["explain_explanations"].samples]
        assert zero == [0.0] * 12
        assert [s.value for s in families["explain_errors"].samples] == [0.0] * 13


def test_every_metric_is_documented_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    suffix = {"counter": "_total", "histogram": "", "gauge": ""}
    names = {f"{name}{suffix[kind]}" for name, (kind, _) in FAMILIES.items()}
    assert {name for name in names if f"`{name}`" not in readme} == set()


def test_requests_are_counted_by_route_template_and_unknown_ones_together(live: LiveApp) -> None:
    client = live.client()
    for path in ("/predict", "/models/a/predict", "/explanations/secret-id-1", "/secret-path"):
        client.get(path)
    client.request("BREW", "/livez")
    seen = {
        (s.labels["http_request_method"], s.labels["http_route"])
        for s in scrape(live)["http_server_request_duration_seconds"].samples
    }
    assert {
        ("GET", "/predict"),
        ("GET", "/models/{name}/predict"),
        ("GET", "/explanations/{request_id}"),
        ("GET", "unmatched"),
    } <= seen
    assert not any("secret" in route for _, route in seen)


def test_no_request_id_or_value_is_ever_a_label(live: LiveApp, rows: list[Instance]) -> None:
    client = live.client()
    row = {**rows[0], "mean radius": 13.370042}
    client.predict([row], headers={"X-Request-ID": "never-a-label-1"})
    client.predict([{**row, "mean area": "planted-text"}])
    client.get("/explanations/never-a-label-1")
    labels = {
        value for f in scrape(live).values() for s in f.samples for value in s.labels.values()
    }
    assert not any("never-a-label" in value or "planted" in value for value in labels)
    assert "13.370042" not in labels
    assert not any("mean" in value for value in labels)


OUTCOMES: dict[str, tuple[Change, str, str, dict[str, int]]] = {
    "five percent off": (five_percent_off, "failed", "failed", {"additivity": 1}),
    "not finite": (not_finite, "failed", "failed", {"finite": 1}),
    "other names": (names_swapped, "failed", "failed", {"names": 1}),
    "an unread column": (unread_moves, "failed", "failed", {"dummy": 1}),
    "unwritable": (unwritable, "failed", "failed", {}),
    "raises": (fails, "failed", "failed", {}),
    "none": (None, "skipped", "rejected", {}),
}


def coverage(app: LiveApp) -> dict[str, float]:
    families = scrape(app)
    found = {
        s.labels["outcome"]: s.value for s in families["explain_explanations"].samples if s.value
    }
    wanted = sum(s.value for s in families["explain_explanations_wanted"].samples)
    return {**found, "wanted": wanted}


def invariants(app: LiveApp) -> dict[str, int]:
    samples = scrape(app)["explain_invariant_failures"].samples
    return {s.labels["invariant"]: int(s.value) for s in samples if s.value}


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_prediction_outlives_its_explainer_and_coverage_says_so(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], live: LiveApp, name: str
) -> None:
    change, status, outcome, broken = OUTCOMES[name]
    right = live.client().predict(rows[:3]).json()
    customise: Customise = with_explainer(change)
    with live_app(tmp_path, registry=demo_registry, customise=customise) as app:
        reply = app.client().predict(rows[:3])
        assert reply.status == 200
        assert reply.headers["evidence"] == "stored"
        answer = reply.json()
        assert answer["predictions"] == right["predictions"]
        explanation = answer["explanation"]
        assert explanation["status"] == status
        assert explanation["reason"]
        for member in ("values", "base_values", "outputs", "additivity_error", "top", "exact"):
            assert explanation[member] is None
        assert coverage(app) == {"wanted": 1, outcome: 1}
        assert invariants(app) == broken
        stored = app.client().get(explanation["links"]["self"]).json()
        assert stored["explanation"] == explanation


def test_probabilities_that_do_not_follow_from_the_outputs_fail_the_explanation(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry, customise=with_odd_scores) as app:
        answer = app.client().predict(rows[:1]).json()
        assert answer["explanation"]["reason"] == "link"
        assert invariants(app) == {"link": 1}


def test_complete_explanations_are_wanted_and_served(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        client = app.client()
        client.predict(rows[:4])
        client.predict(rows[:4], query="")
        client.predict([{}])
        assert coverage(app) == {"wanted": 1, "served": 1}
        families = scrape(app)
        outcomes = {s.labels["outcome"]: s.value for s in families["explain_predictions"].samples}
        assert outcomes == {"ok": 2, "invalid": 1, "error": 0}
        checks = {
            s.labels["outcome"]: s.value for s in families["explain_additivity_checks"].samples
        }
        assert checks == {"ok": 4, "failed": 0}
        writes = {
            tuple(s.labels.values()): s.value for s in families["explain_audit_writes"].samples
        }
        assert {labels for labels, value in writes.items() if value} == {("sql", "ok")}
        assert writes["sql", "ok"] == 2


def refused_and_not(client: Client, rows: list[Instance], path: str) -> None:
    """Ten requests refused for what they hold, and five refused for other reasons."""
    named = {"X-Request-ID": "one-of-a-kind"}
    for query in ("?explain=1", "?top=x", "?top=31"):
        assert client.predict(rows[:1], query=query, path=path).status == 422
    for body, kind, status in (
        (b"{", JSON, 400),
        (b"{}", JSON, 422),
        (b"{}", {}, 415),
        (b" " * 8001, JSON, 413),
    ):
        assert client.request("POST", path, body, kind).status == status
    assert client.predict(rows[:1], path=path, headers={"X-Request-ID": "short"}).status == 400
    assert client.predict(rows[:1] * 1001, path=path).status == 413
    assert client.predict([{}] * 1001, path=path).status == 422
    assert client.predict(rows[:1], path=path, headers=named).status == 200
    assert client.predict(rows[1:2], path=path, headers=named).status == 409
    assert client.predict(rows[:1], path=path, headers={"Host": "else.where"}).status == 421
    assert client.predict(rows[:1], path="/models/nobody/predict").status == 404
    assert client.get(path).status == 405
    assert client.get("/explanations?limit=0").status == 422


def invalid(app: LiveApp, key: str | None = None) -> dict[tuple[str, str], float]:
    """What counts as refused for its content, by model: predictions and errors."""
    families = scrape(app, key)
    return {
        (name, s.labels["model"]): s.value
        for name, wanted in (
            ("explain_predictions", {"outcome": "invalid"}),
            ("explain_errors", {"stage": "validate", "type": "content"}),
        )
        for s in families[name].samples
        if wanted.items() <= s.labels.items() and s.value
    }


@pytest.mark.parametrize("path", ["/predict", f"/models/{MODEL}/predict"])
def test_what_is_refused_for_its_content_is_counted_once_and_nothing_else(
    tmp_path: Path, demo_registry: Path, rows: list[Instance], path: str
) -> None:
    with live_app(tmp_path, registry=demo_registry, max_body_bytes=8000) as app:
        refused_and_not(app.client(), rows, path)
        assert invalid(app) == {
            ("explain_predictions", MODEL): 10,
            ("explain_errors", MODEL): 10,
        }
        assert app.client().request("POST", "/models/nobody/predict", b"{}").status == 415
        assert invalid(app)["explain_predictions", ""] == 1


def test_who_may_not_ask_is_no_invalid_prediction(keyed: Any, rows: list[Instance]) -> None:
    live, key = keyed.live, keyed.keys["metrics"]
    assert keyed.client(None).predict(rows[:1], query="?top=x").status == 401
    assert keyed.client("audit").predict(rows[:1]).status == 403
    assert invalid(live, key) == {}
    assert keyed.client("alice").predict(rows[:1], query="?top=x").status == 422
    assert invalid(live, key)["explain_predictions", MODEL] == 1


def test_exemplars_appear_in_openmetrics_only(live: LiveApp, rows: list[Instance]) -> None:
    client = live.client()
    client.predict(rows[:1], headers={"X-Request-ID": "x" * 64})
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert b"x" * 64 not in plain.body
    rich = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    assert rich.body.endswith(b"# EOF\n")
    exemplar = b'# {request_id="' + b"x" * 64 + b'"}'
    lines = [line for line in rich.body.splitlines() if exemplar in line]
    assert lines
    assert all(line.startswith(b"explain_explanation_duration_seconds_bucket") for line in lines)


@pytest.mark.parametrize(
    ("traceparent", "label"),
    [
        (f"00-{'0af76519' * 4}-b7ad6b7169203331-01", f',trace_id="{"0af76519" * 4}"'),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", ""),
        (f"ff-{'0af76519' * 4}-b7ad6b7169203331-01", ""),
        ("nonsense", ""),
    ],
)
def test_a_valid_trace_is_named_beside_the_longest_request_id(
    live: LiveApp, rows: list[Instance], traceparent: str, label: str
) -> None:
    client, request_id = live.client(), uuid.uuid4().hex * 2
    client.predict(rows[:1], headers={"X-Request-ID": request_id, "traceparent": traceparent})
    rich = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0").body
    assert f'# {{request_id="{request_id}"{label}}}'.encode() in rich
