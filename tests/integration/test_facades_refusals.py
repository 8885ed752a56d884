"""What KServe V1 and the Open Inference Protocol V2 refuse, and where they say it is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inference import (
    as_bytes,
    by_column,
    columns,
    post,
    post_bytes,
    tensor,
)
from live_app import LiveApp
from problems import MARKER, assert_protocol_error
from protocol_models import TABLES, three_models
from servers import Client


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    with three_models(tmp_path_factory.mktemp("facades"), demo_registry) as live:
        yield live


@pytest.fixture
def client(live: LiveApp) -> Client:
    return live.client()


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
    "id is a card's": ({"id": "4111111111111111"}, "/id"),
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


def test_bytes_that_no_tensor_names_are_422(client: Client, request_of_two: dict[str, Any]) -> None:
    heads, binary = as_bytes(request_of_two["inputs"])
    path = "/v2/models/wine/infer"
    assert post_bytes(client, path, {"inputs": heads}, binary).status == 200
    reply = post_bytes(client, path, {"inputs": heads}, binary + b"\0")
    assert "/inputs" in assert_protocol_error(reply, 422)
