"""KServe V1 and the Open Inference Protocol V2: the same predictions, records and refusals as
POST /predict, in other words.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference import (
    as_bytes,
    as_matrix,
    by_column,
    columns,
    metadata,
    outputs_of,
    post,
    post_bytes,
    tensor,
)
from live_app import LiveApp
from problems import assert_protocol_error
from protocol_models import TABLES, three_models
from servers import Client

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    with three_models(tmp_path_factory.mktemp("facades"), demo_registry) as live:
        yield live


@pytest.fixture
def client(live: LiveApp) -> Client:
    return live.client()


def asked(client: Client, model: str, rows: list[Instance]) -> dict[str, Any]:
    """What POST /predict answers to them."""
    reply = client.predict(rows, path=f"/models/{model}/predict")
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


def assert_same_tensors(outputs: dict[str, Any], answer: dict[str, Any]) -> None:
    """Bit by bit."""
    predictions, explanation = answer["predictions"], answer["explanation"]
    if "value" in predictions[0]:
        assert outputs["value"] == [prediction["value"] for prediction in predictions]
    else:
        assert outputs["label"] == [prediction["label"] for prediction in predictions]
        named = [
            dict(zip(outputs["classes"], row, strict=True)) for row in outputs["probabilities"]
        ]
        assert named == [prediction["probabilities"] for prediction in predictions]
    assert outputs["shap_values"] == explanation["values"]
    assert outputs["base_values"] == explanation["base_values"]
    assert outputs["explained_outputs"] == explanation["outputs"]
    assert outputs["additivity_error"] == explanation["additivity_error"]
    assert outputs["feature_names"] == explanation["feature_names"]
    assert outputs["output_names"] == explanation["output_names"]


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[str, list[Instance]]:
    """Rows of one model's table, their numbers moved a little."""
    model = draw(st.sampled_from(sorted(TABLES)))
    picked = draw(st.lists(st.sampled_from(TABLES[model]), min_size=1, max_size=4))
    factor = draw(st.floats(0.5, 2.0))
    rows = [
        {k: v * factor if isinstance(v, float) else v for k, v in row.items()} for row in picked
    ]
    return model, rows


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=some_rows())
def test_every_protocol_answers_the_numbers_of_predict(
    client: Client, case: tuple[str, list[Instance]]
) -> None:
    model, rows = case
    answer = asked(client, model, rows)
    names, explanation = list(rows[0]), answer["explanation"]
    for instances in (rows, [[row[name] for name in names] for row in rows]):
        found = post(client, f"/v1/models/{model}:explain", {"instances": instances}).json()
        assert found["predictions"] == answer["predictions"]
        for index, one in enumerate(found["explanations"]):
            assert one["values"] == explanation["values"][index]
            assert one["base_values"] == explanation["base_values"][index]
            assert one["outputs"] == explanation["outputs"][index]
            assert one["top"] == explanation["top"][index]
    tensors, path = by_column(rows, columns(client, model)), f"/v2/models/{model}/infer"
    explained: dict[str, Any] = {"parameters": {"explain": True}}
    assert_same_tensors(outputs_of(post(client, path, {"inputs": tensors, **explained})), answer)
    if model != "area":
        matrix = {"inputs": as_matrix(rows, names), **explained}
        assert_same_tensors(outputs_of(post(client, path, matrix)), answer)
    if all(row.get("site", "") is not None for row in rows):
        heads, binary = as_bytes(tensors)
        document = {"inputs": heads, "parameters": {"explain": True, "binary_data_output": True}}
        reply = post_bytes(client, path, document, binary)
        assert reply.headers["content-type"] == "application/octet-stream"
        assert_same_tensors(outputs_of(reply), answer)


def test_a_missing_number_is_nan_in_bytes_and_null_in_json(client: Client) -> None:
    rows = [row for row in TABLES["area"] if row["texture"] is None and row["site"]][:2]
    tensors = by_column(rows, columns(client, "area"))
    heads, binary = as_bytes(tensors)
    explained = {"parameters": {"explain": True}}
    for reply in (
        post(client, "/v2/models/area/infer", {"inputs": tensors, **explained}),
        post_bytes(client, "/v2/models/area/infer", {"inputs": heads, **explained}, binary),
    ):
        record = client.get(reply.json()["parameters"]["explain_location"]).json()
        assert record["instances"] == rows


def test_nested_data_is_read_as_flat_data_is(client: Client) -> None:
    rows, names = TABLES["wine"][:3], list(TABLES["wine"][0])
    nested = [[row[name] for name in names] for row in rows]
    for inputs in (
        [tensor("x", "FP64", nested, (3, len(names)))],
        [tensor(name, "FP64", [[row[name]] for row in rows], (3, 1)) for name in names],
    ):
        outputs = outputs_of(post(client, "/v2/models/wine/infer", {"inputs": inputs}))
        expected = asked(client, "wine", rows)["predictions"]
        assert outputs["probabilities"] == [[*one["probabilities"].values()] for one in expected]


def test_v1_predict_has_predictions_and_no_explanation(client: Client) -> None:
    rows = TABLES["wine"][:2]
    reply = post(client, "/v1/models/wine:predict", {"instances": rows, "subjects": ["a", None]})
    assert set(reply.json()) == {"predictions", "request_id", "model", "warnings"}
    assert reply.json()["predictions"] == asked(client, "wine", rows)["predictions"]
    assert reply.headers["evidence"] == "stored"
    assert reply.headers["x-request-id"] == reply.json()["request_id"]


def test_v2_answers_the_outputs_it_was_asked_for_and_no_other(client: Client) -> None:
    inputs = by_column(TABLES["wine"][:2], columns(client, "wine"))
    for names, expected in (
        (["label"], {"label"}),
        (["shap_values", "label"], {"label", "shap_values"}),
        (
            ["explain"],
            {
                *("shap_values", "base_values", "explained_outputs", "additivity_error"),
                *("feature_names", "output_names"),
            },
        ),
    ):
        outputs = [{"name": name} for name in names]
        document = {"inputs": inputs, "outputs": outputs}
        reply = post(client, "/v2/models/wine/infer", document)
        assert set(outputs_of(reply)) == expected
        is_explained = "explain_status" in reply.json()["parameters"]
        assert is_explained == ("label" not in expected or "shap_values" in expected)


def test_what_v2_says_of_a_model_is_what_it_takes_and_gives(client: Client) -> None:
    for model, rows in TABLES.items():
        said = metadata(client, model)
        document = {
            "inputs": by_column(rows[:2], columns(client, model)),
            "parameters": {"explain": True},
        }
        answered = post(client, f"/v2/models/{model}/versions/1/infer", document).json()
        assert answered["model_version"] in said["versions"]
        shapes = {output["name"]: output["shape"] for output in said["outputs"]}
        datatypes = {output["name"]: output["datatype"] for output in said["outputs"]}
        for output in answered["outputs"]:
            if output["name"] != "warnings":
                expected = [2 if size == -1 else size for size in shapes.pop(output["name"])]
                assert output["shape"] == expected
                assert output["datatype"] == datatypes[output["name"]]
        assert not shapes


def test_an_id_is_the_request_id_and_replays_across_protocols(client: Client) -> None:
    rows = TABLES["wine"][:1]
    document = {
        "id": "across-protocols-1",
        "inputs": by_column(rows, columns(client, "wine")),
        "parameters": {"explain": True},
    }
    first = post(client, "/v2/models/wine/infer", document)
    assert first.json()["id"] == first.headers["x-request-id"] == "across-protocols-1"
    assert "idempotent-replay" not in first.headers
    again = post(client, "/v2/models/wine/infer", document)
    assert again.headers["idempotent-replay"] == "true"
    assert again.body == first.body
    named = {"X-Request-ID": "across-protocols-1"}
    plain = client.predict(rows, path="/models/wine/predict", headers=named)
    assert plain.headers["idempotent-replay"] == "true"
    v1 = post(client, "/v1/models/wine:explain", {"instances": rows}, **named)
    assert v1.headers["idempotent-replay"] == "true"
    other = {**document, "inputs": by_column(TABLES["wine"][1:2], columns(client, "wine"))}
    assert_protocol_error(post(client, "/v2/models/wine/infer", other), 409)
    record = client.get(first.json()["parameters"]["explain_location"]).json()
    assert record["instances"] == rows


def test_an_empty_id_is_none_and_two_ids_must_agree(client: Client) -> None:
    document = {"id": "", "inputs": by_column(TABLES["wine"][:1], columns(client, "wine"))}
    reply = post(client, "/v2/models/wine/infer", document)
    assert reply.json()["id"] == reply.headers["x-request-id"]
    document["id"] = "one-of-two-ids"
    for other in ("another-of-two-ids", "one-of-two-ids"):
        reply = post(client, "/v2/models/wine/infer", document, **{"X-Request-ID": other})
        assert reply.status == (200 if other == document["id"] else 422)


def test_subjects_are_named_by_a_tensor(client: Client) -> None:
    inputs = by_column(TABLES["wine"][:2], columns(client, "wine"))
    subjects = tensor("subjects", "BYTES", ["jane", None])
    reply = post(client, "/v2/models/wine/infer", {"inputs": [*inputs, subjects]})
    assert reply.status == 200
    rows = {"instances": TABLES["wine"][:2], "subjects": ["jane", None]}
    named = {"X-Request-ID": reply.json()["id"]}
    same = post(client, "/models/wine/predict", rows, **named)
    assert same.headers["idempotent-replay"] == "true"
    rows["subjects"] = ["joan", None]
    assert post(client, "/models/wine/predict", rows, **named).status == 409


def test_a_warning_points_at_what_was_sent(client: Client) -> None:
    odd = [TABLES["wine"][0], {**TABLES["wine"][0], "hue": 1e9}]
    names = list(odd[0])
    place = names.index("hue")
    as_lists = [[row[name] for name in names] for row in odd]
    v1 = post(client, "/v1/models/wine:predict", {"instances": as_lists}).json()
    assert v1["warnings"] == [{"pointer": f"/instances/1/{place}", "code": "out_of_training_range"}]
    for inputs, pointer in (
        (by_column(odd, columns(client, "wine")), f"/inputs/{place}/data/1"),
        (as_matrix(odd, names), f"/inputs/0/data/{len(names) + place}"),
    ):
        outputs = outputs_of(post(client, "/v2/models/wine/infer", {"inputs": inputs}))
        assert outputs["warnings"] == [f"{pointer} out_of_training_range"]


def test_health_and_models_are_told_as_the_protocols_do(client: Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "explaind"
    assert client.get("/v2/models/wine/ready").json() == {"name": "wine", "ready": True}
    assert client.get("/v2/models/wine/versions/1/ready").status == 200
    assert client.get("/v1/models").json() == {"models": sorted(TABLES)}
    assert client.get("/v1/models/wine").json() == {"name": "wine", "ready": True}
    for path in (
        *("/v1/models/none", "/v2/models/none", "/v2/models/none/ready", "/v1/none", "/v2/none"),
        *("/v2/models/wine/versions/2", "/v2/models/wine/versions/2/ready"),
        "/v2/models/wine/versions/01/ready",
    ):
        assert_protocol_error(client.get(path), 404)
    assert_protocol_error(client.get("/v1/models/wine:predict/"), 404)
    assert_protocol_error(client.request("DELETE", "/v2/models/wine"), 405)


def documents_in(text: str) -> list[Any]:
    """JSON documents one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_the_examples_of_the_documentation_work(live: LiveApp) -> None:
    page = (Path(__file__).parents[2] / "docs" / "facades.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```sh\n")[1:]]
    answers = []
    for block in blocks:
        script = block.replace("http://127.0.0.1:8000", live.url)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        answers += documents_in(done.stdout)
    v1_model, explained, ready, v2_model, inferred = answers
    assert v1_model == {"name": "breast_cancer", "ready": True}
    assert explained["explanation"]["status"] == "complete"
    assert len(explained["explanations"]) == len(explained["predictions"]) == 1
    assert ready == {"ready": True}
    assert len(v2_model["inputs"]) == 30
    assert inferred["parameters"]["explain_status"] == "complete"
    assert {"label", "shap_values"} <= {output["name"] for output in inferred["outputs"]}
