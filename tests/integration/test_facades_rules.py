"""What holds for POST /predict holds in other protocols: keys, masks, quotas, waiting, counts."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import Customise, Gate, break_store, put_bug_in_store
from inference import by_column, columns, outputs_of, post
from live_app import LiveApp, live_app
from problems import assert_protocol_error
from servers import Client, Reply, wait_until

from service.auth import KeyFile

Instance = dict[str, Any]
MASKS = """
[models.mixed.roles.support]
mask = ["radius", "grade"]
"""
V1, V2 = "/v1/models/mixed:", "/v2/models/mixed/infer"


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, two_models: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    folder = tmp_path_factory.mktemp("rules")
    shutil.copytree(two_models, folder / "registry")
    (folder / "policy.toml").write_text(MASKS)
    file, content = folder / "keys.json", KeyFile()
    both = ("predict", "explain", "metrics")
    content, keys["owner"] = content.with_key("owner", both, explain_per_minute=0)
    content, keys["support"] = content.with_key("support", both, roles=("support",))
    content, keys["predicting"] = content.with_key("predicting", ("predict",))
    content, keys["auditing"] = content.with_key("auditing", ("audit",))
    content, keys["tiny"] = content.with_key("tiny", both, explain_per_minute=1)
    content.write(file)
    policy = folder / "policy.toml"
    with live_app(folder, api_keys_file=file, policy_file=policy, max_body_bytes=60000) as live:
        yield live


ClientOf = Callable[[str], Client]


@pytest.fixture
def inputs(client_of: ClientOf, mixed_rows: list[Instance]) -> list[dict[str, Any]]:
    return by_column(mixed_rows[:2], columns(client_of("owner"), "mixed"))


EXPLAINED: dict[str, Any] = {"parameters": {"explain": True}}


def test_explaining_needs_its_scope_in_every_protocol(
    client_of: ClientOf, mixed_rows: list[Instance], inputs: list[dict[str, Any]]
) -> None:
    client, v1 = client_of("predicting"), {"instances": mixed_rows[:1]}
    assert post(client, V1 + "predict", v1).status == 200
    assert_protocol_error(post(client, V1 + "explain", v1), 403)
    assert post(client, V2, {"inputs": inputs}).status == 200
    for asking in (EXPLAINED, {"outputs": [{"name": "explain"}]}):
        assert_protocol_error(post(client, V2, {"inputs": inputs, **asking}), 403)


def test_without_the_scope_predict_nobody_learns_what_a_model_takes(client_of: ClientOf) -> None:
    for path in (V1 + "predict", V2, "/v2/models/none/infer", "/v1/models/none:predict"):
        assert_protocol_error(post(client_of("auditing"), path, {"inputs": []}), 403)


def test_masked_callers_get_labels_and_no_number(
    client_of: ClientOf, mixed_rows: list[Instance], inputs: list[dict[str, Any]]
) -> None:
    client = client_of("support")
    masked = client.predict(mixed_rows[:2], path="/models/mixed/predict").json()
    v1 = post(client, V1 + "explain", {"instances": mixed_rows[:2]})
    assert v1.json()["predictions"] == masked["predictions"]
    seen = [one["visible"] for one in v1.json()["explanations"]]
    assert seen == masked["explanation"]["visible"]
    assert all(one["values"] is None for one in v1.json()["explanations"])
    for binary in (False, True):
        parameters = {"explain": True, "binary_data_output": binary}
        v2 = post(client, V2, {"inputs": inputs, "parameters": parameters})
        assert set(outputs_of(v2)) == {"label", "feature_names", "output_names"}
        assert "server-timing" not in v2.headers
    whole = outputs_of(post(client_of("owner"), V2, {"inputs": inputs, **EXPLAINED}))
    assert {"probabilities", "shap_values"} <= set(whole)


def test_a_quota_is_one_for_all_protocols(
    client_of: ClientOf, mixed_rows: list[Instance], inputs: list[dict[str, Any]]
) -> None:
    client = client_of("tiny")
    v1 = {"instances": mixed_rows[:1]}
    assert post(client, V1 + "explain", v1).status == 200
    for refused in (
        post(client, V1 + "explain", v1),
        post(client, V2, {"inputs": inputs, **EXPLAINED}),
    ):
        assert_protocol_error(refused, 429)
        assert int(refused.headers["retry-after"]) > 0
    assert post(client, V2, {"inputs": inputs}).status == 200


def counted(client: Client) -> dict[str, float]:
    """Samples that count requests, by name and labels."""
    lines = client.get("/metrics").body.decode().splitlines()
    names = ("explain_predictions_total{", "explain_explanations_total{", "explain_errors_total{")
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith(names)]
    return {name: float(value) for name, value in pairs}


def moved(client: Client, send: Callable[[], Reply], status: int) -> dict[str, float]:
    before = counted(client)
    assert send().status == status
    after = counted(client)
    return {k: v - before.get(k, 0.0) for k, v in after.items() if v != before.get(k, 0.0)}


def test_every_protocol_moves_the_same_counters(
    client_of: ClientOf, mixed_rows: list[Instance], inputs: list[dict[str, Any]]
) -> None:
    client = client_of("owner")
    good, bad = {"instances": mixed_rows[:2]}, {"instances": [{}]}
    path = "/models/mixed/predict"
    expected = moved(client, lambda: post(client, path + "?explain=true", good), 200)
    assert expected
    assert moved(client, lambda: post(client, V1 + "explain", good), 200) == expected
    assert moved(client, lambda: post(client, V2, {"inputs": inputs, **EXPLAINED}), 200) == expected
    refused = moved(client, lambda: post(client, path, bad), 422)
    assert refused
    assert moved(client, lambda: post(client, V1 + "predict", bad), 422) == refused
    assert moved(client, lambda: post(client, V2, {"inputs": []}), 422) == refused


def test_an_id_in_flight_is_no_second_request(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    gate = Gate()
    with live_app(tmp_path, registry=two_models, customise=gate.before_append) as live:
        tensors = by_column(mixed_rows[:1], columns(live.client(), "mixed"))
        document = {"id": "in-flight-twin", "inputs": tensors}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, live.client(), V2, document)
            wait_until(lambda: gate.waiting)
            try:
                twin = post(live.client(), V2, document)
            finally:
                gate.open()
            assert first.result().status == 200
        assert_protocol_error(twin, 409)
        assert int(twin.headers["retry-after"]) >= 1


def test_a_body_too_large_is_413_and_the_connection_closes(
    client_of: ClientOf, mixed_rows: list[Instance]
) -> None:
    for path in (V1 + "predict", V2):
        reply = post(client_of("owner"), path, {"instances": mixed_rows * 20})
        assert_protocol_error(reply, 413)
        assert reply.headers["connection"] == "close"


def test_a_body_in_a_thread_is_read_like_any_other(
    client_of: ClientOf, mixed_rows: list[Instance]
) -> None:
    client = client_of("owner")
    rows = mixed_rows * 5
    answer = client.predict(rows[:100], query="", path="/models/mixed/predict").json()
    tensors = by_column(rows, columns(client, "mixed"))
    reply = post(client, V2, {"inputs": tensors})
    assert sum(len(str(found["data"])) for found in tensors) > 16384
    assert outputs_of(reply)["label"][:100] == [one["label"] for one in answer["predictions"]]
    lists = [list(row.values()) for row in rows]
    v1 = post(client, V1 + "predict", {"instances": lists}).json()
    assert v1["predictions"][:100] == answer["predictions"]


def test_a_pending_explanation_is_told_in_each_protocols_words(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models, inline_budget_seconds=1e-9) as live:
        client = live.client()
        tensors = by_column(mixed_rows[:1], columns(client, "mixed"))
        now = {"Prefer": "respond-async"}
        v1 = post(client, V1 + "explain", {"instances": mixed_rows[:1]}, **now)
        v2 = post(client, V2, {"inputs": tensors, **EXPLAINED}, **now)
        for reply in (v1, v2):
            assert reply.status == 200
            request_id = reply.headers["x-request-id"]
            assert reply.headers["location"] == f"/explanations/{request_id}"
            assert reply.headers["preference-applied"] == "respond-async"
    assert v1.json()["explanations"] is None
    assert v1.json()["explanation"]["status"] == "pending"
    assert v2.json()["parameters"]["explain_status"] == "pending"
    assert v2.json()["parameters"]["explain_location"] == v2.headers["location"]
    assert set(outputs_of(v2)) == {
        *("label", "probabilities", "classes", "feature_names", "output_names")
    }


@pytest.mark.parametrize(("breaks", "status"), [(break_store, 503), (put_bug_in_store, 500)])
def test_a_store_that_fails_is_told_in_each_protocols_words(
    tmp_path: Path,
    two_models: Path,
    mixed_rows: list[Instance],
    breaks: Customise,
    status: int,
) -> None:
    with live_app(tmp_path, registry=two_models, customise=breaks) as live:
        client = live.client()
        v2 = {"inputs": by_column(mixed_rows[:1], columns(client, "mixed"))}
        for path, body in ((V1 + "predict", {"instances": mixed_rows[:1]}), (V2, v2)):
            reply = post(client, path, body)
            assert_protocol_error(reply, status)
            assert ("retry-after" in reply.headers) == (status == 503)
        if breaks is break_store:
            unready = client.get("/v2/health/ready")
            assert (unready.status, unready.json()) == (503, {"ready": False})
            assert client.get("/v2/health/live").json() == {"live": True}
