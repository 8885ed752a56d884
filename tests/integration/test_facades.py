"""KServe V1 and the Open Inference Protocol V2: the same predictions, records and refusals as
POST /predict, in other words.
"""

import json
import shutil
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
from live_app import LiveApp, live_app
from problems import MARKER, assert_protocol_error
from servers import Client
from tables import breast_cancer, instances_of, mixed, wine

Instance = dict[str, Any]

TABLES = {
    "breast_cancer": instances_of(breast_cancer()[0]),
    "wine": instances_of(wine()[0]),
    "area": instances_of(mixed("regression")[0]),
}
"""Model to its rows: binary, three classes, and a regression with categories and missing cells."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    from xgboost import XGBClassifier, XGBRegressor

    from service.registry import Registry
    from service.registry.work import Options

    data_dir = tmp_path_factory.mktemp("facades")
    shutil.copytree(demo_registry, data_dir / "registry")
    registry, few = Registry(data_dir / "registry"), {"n_estimators": 10, "max_depth": 3}
    X, y = wine()
    registry.register("wine", XGBClassifier(**few, n_jobs=1).fit(X, y), X, y, options=Options())
    X, y = mixed("regression")
    X = X.astype({"site": "category", "grade": "category"})
    model = XGBRegressor(**few, n_jobs=1, enable_categorical=True).fit(X, y)
    registry.register("area", model, X, y, options=Options())
    with live_app(data_dir, model="breast_cancer") as live:
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


HUE = "hue"
V2_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"inputs": []}, "/inputs"),
    "inputs missing": ({"inputs": None}, "/inputs"),
    "unknown member": ({MARKER: 1}, "/ "),
    "unknown output": ({"outputs": [{"name": MARKER}]}, "/outputs/0/name"),
    "another kind's output": ({"outputs": [{"name": "value"}]}, "/outputs/0/name"),
    "explain is no flag": ({"parameters": {"explain": "yes"}}, "/parameters/explain"),
    "top is no number": ({"parameters": {"top": 1.5}}, "/parameters/top"),
    "top too large": ({"parameters": {"top": 99}}, "?top"),
    "parameter is an object": ({"parameters": {"x": {}}}, "/parameters/x"),
    "bad id": ({"id": "short"}, "/id"),
    "id is no text": ({"id": 12345678}, "/id"),
}
HUE_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown column": ({"name": MARKER}, "/inputs/10/name"),
    "given twice": ({"name": "ash"}, "/inputs/10/name"),
    "half precision": ({"datatype": "FP16"}, "/inputs/10/datatype"),
    "invented datatype": ({"datatype": MARKER}, "/inputs/10/datatype"),
    "text in a number": ({"data": [1.0, MARKER]}, "/inputs/10/data/1"),
    "boolean in a number": ({"data": [1.0, True]}, "/inputs/10/data/1"),
    "object in a number": ({"data": [1.0, {"a": 1}]}, "/inputs/10/data/1"),
    "too few elements": ({"data": [1.0]}, "/inputs/10/data"),
    "too many elements": ({"data": [1.0, 2.0, 3.0]}, "/inputs/10/data"),
    "ragged": ({"shape": [2, 1], "data": [[1.0], []]}, "/inputs/10/data"),
    "nested deeper": ({"shape": [2, 1], "data": [[[1.0]], [[1.0]]]}, "/inputs/10/data/0"),
    "other rows": ({"shape": [3], "data": [1.0, 2.0, 3.0]}, "/inputs/10/shape"),
    "a width": ({"shape": [2, 2], "data": [1.0] * 4}, "/inputs/10/shape"),
    "three dimensions": ({"shape": [2, 1, 1]}, "/inputs/10/shape"),
    "no dimension": ({"shape": []}, "/inputs/10/shape"),
    "negative size": ({"shape": [-1]}, "/inputs/10/shape/0"),
    "size is no integer": ({"shape": [2.0]}, "/inputs/10/shape/0"),
    "no data": ({"data": None}, "/inputs/10"),
    "overflow": ({"data": [1.0, float("1e308") * 10]}, ""),
    "beyond float": ({"data": [1.0, 10**350]}, "/inputs/10/data/1"),
    "beyond float32": ({"data": [1.0, 1e39]}, "/inputs/10/data/1"),
    "beyond int32": ({"datatype": "INT32", "data": [1, 2**31]}, "/inputs/10/data/1"),
    "fraction in an integer": ({"datatype": "INT64", "data": [1, 1.5]}, "/inputs/10/data/1"),
    "missing where it must not be": ({"data": [1.0, None]}, "/inputs/10/data/1"),
    "bytes beside data": ({"parameters": {"binary_data_size": 0}}, "/inputs/10/parameters"),
    "bytes that are not there": (
        {"data": None, "parameters": {"binary_data_size": 16}},
        "/inputs/10/parameters/binary_data_size",
    ),
    "a size that is a truth": (
        {"data": None, "parameters": {"binary_data_size": True}},
        "/inputs/10/parameters/binary_data_size",
    ),
}


@pytest.fixture
def request_of_two(client: Client) -> dict[str, Any]:
    return {"inputs": by_column(TABLES["wine"][:2], columns(client, "wine"))}


@pytest.mark.parametrize("name", V2_REFUSED)
def test_a_v2_request_that_does_not_fit_is_422(
    client: Client, request_of_two: dict[str, Any], name: str
) -> None:
    change, pointer = V2_REFUSED[name]
    reply = post(client, "/v2/models/wine/infer", {**request_of_two, **change})
    assert pointer in assert_protocol_error(reply, 422)


@pytest.mark.parametrize("name", HUE_REFUSED)
def test_a_tensor_that_does_not_fit_is_refused_where_it_stands(
    client: Client, request_of_two: dict[str, Any], name: str
) -> None:
    change, pointer = HUE_REFUSED[name]
    place = [found["name"] for found in request_of_two["inputs"]].index(HUE)
    assert place == 10
    request_of_two["inputs"][place] |= change
    reply = post(client, "/v2/models/wine/infer", request_of_two)
    assert pointer in assert_protocol_error(reply, 400 if name == "overflow" else 422)


def test_a_column_without_a_tensor_is_named(client: Client, request_of_two: dict[str, Any]) -> None:
    request_of_two["inputs"].pop()
    error = assert_protocol_error(post(client, "/v2/models/wine/infer", request_of_two), 422)
    assert error.count("'proline' is missing") == 1


def test_as_many_rows_as_predict_takes(client: Client) -> None:
    for n_rows, status in ((0, 422), (1000, 200), (1001, 422)):
        rows = TABLES["wine"][:1] * n_rows
        names = list(TABLES["wine"][0])
        matrix = tensor(
            "x", "FP64", [row[name] for row in rows for name in names], (n_rows, len(names))
        )
        reply = post(client, "/v2/models/wine/infer", {"inputs": [matrix]})
        assert reply.status == status
        lists = [[row[name] for name in names] for row in rows]
        reply = post(client, "/v1/models/wine:predict", {"instances": lists})
        assert reply.status == status


BAD_BYTES: dict[str, tuple[dict[str, Any], bytes]] = {
    "too few": ({"datatype": "FP64"}, b"\0" * 15),
    "too many": ({"datatype": "FP64"}, b"\0" * 17),
    "infinity": ({"datatype": "FP32"}, b"\0\0\x80\x7f\0\0\0\0"),
    "no truth": ({"datatype": "BOOL"}, b"\x02\x00"),
    "a text without its end": ({"datatype": "BYTES"}, b"\x01\0\0\0a\xff\0\0\0a"),
    "half a length": ({"datatype": "BYTES"}, b"\x01\0\0\0a\x01\0"),
    "texts too many": ({"datatype": "BYTES"}, b"\x01\0\0\0a" * 3),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_do_not_fit_are_422(
    client: Client, request_of_two: dict[str, Any], name: str
) -> None:
    change, raw = BAD_BYTES[name]
    head = {"name": HUE, "shape": [2], "parameters": {"binary_data_size": len(raw)}, **change}
    request_of_two["inputs"][10] = head
    reply = post_bytes(client, "/v2/models/wine/infer", request_of_two, raw)
    assert "/inputs/10" in assert_protocol_error(reply, 422)
    reply = post_bytes(client, "/v2/models/wine/infer", request_of_two, raw + b"\0")
    assert_protocol_error(reply, 422)


def test_text_bytes_that_are_not_utf8_are_400(
    client: Client, request_of_two: dict[str, Any]
) -> None:
    raw = b"\x01\0\0\0\xff\x01\0\0\0a"
    head = {"name": HUE, "shape": [2], "datatype": "BYTES"}
    request_of_two["inputs"][10] = {**head, "parameters": {"binary_data_size": len(raw)}}
    assert_protocol_error(post_bytes(client, "/v2/models/wine/infer", request_of_two, raw), 400)


@pytest.mark.parametrize("length", ["", "x", "-1", "999999", "9" * 5000, "0x1", "1e3", "\xb2"])
def test_a_wrong_length_of_the_document_is_400(
    client: Client, request_of_two: dict[str, Any], length: str
) -> None:
    body, header = json.dumps(request_of_two).encode(), "Inference-Header-Content-Length"
    reply = client.request("POST", "/v2/models/wine/infer", body, {header: length})
    assert_protocol_error(reply, 400)


def test_json_needs_its_media_type(client: Client, request_of_two: dict[str, Any]) -> None:
    body = json.dumps(request_of_two).encode()
    for path in ("/v2/models/wine/infer", "/v1/models/wine:predict", "/v1/models/wine:explain"):
        assert_protocol_error(client.request("POST", path, body), 415)
        octets = {"Content-Type": "application/octet-stream"}
        assert_protocol_error(client.request("POST", path, body, octets), 415)


V1_REFUSED: dict[str, tuple[Any, str]] = {
    "no instances": ({}, "/instances"),
    "empty": ({"instances": []}, "/instances"),
    "no list": ({"instances": {}}, "/instances"),
    "list too short": ({"instances": [[1.0]]}, "/instances/0"),
    "list too long": ({"instances": [[1.0] * 14]}, "/instances/0"),
    "text in a list": ({"instances": [[MARKER, *[1.0] * 12]]}, "/instances/0/0"),
    "list in a list": ({"instances": [[*[1.0] * 12, [1.0]]]}, "/instances/0/12"),
    "beyond float": ({"instances": [[*[1.0] * 12, 10**350]]}, "/instances/0/12"),
    "integer too long": ({"instances": [[*[1.0] * 12, 10**450]]}, "/instances"),
    "a text": ({"instances": [MARKER]}, "/instances/0"),
    "lists and a text": ({"instances": [[1.0] * 13, MARKER]}, "/instances/1"),
    "unknown member": ({"instances": [[1.0] * 13], MARKER: 1}, "/ "),
    "unknown column": ({"instances": [{MARKER: 1}]}, "/instances/0"),
    "subjects too few": ({"instances": [[1.0] * 13], "subjects": []}, "/subjects"),
    "a subject that is none": ({"instances": [[1.0] * 13], "subjects": [7]}, "/subjects/0"),
    "an array": ([[1.0] * 13], "/ "),
}


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("name", V1_REFUSED)
def test_a_v1_request_that_does_not_fit_is_422(client: Client, name: str, verb: str) -> None:
    document, pointer = V1_REFUSED[name]
    reply = post(client, f"/v1/models/wine:{verb}", document)
    assert pointer in assert_protocol_error(reply, 422)


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
