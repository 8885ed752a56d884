"""Whatever a client sends: the right status, a problem document, and nothing of it repeated."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp, live_app
from problems import MARKER, assert_problem
from servers import JSON, Reply

Instance = dict[str, Any]

DEEP = 100_000


def body_with(row: Instance, column: str, literal: str) -> bytes:
    """A valid body but for one value, which is written as given."""
    text = json.dumps({"instances": [{**row, column: "HERE"}]})
    return text.replace('"HERE"', literal).encode()


def post(live: LiveApp, body: bytes, query: str = "", **headers: str) -> Reply:
    return live.client().request("POST", "/predict" + query, body, {**JSON, **headers})


LITERALS_THAT_ARE_NO_JSON = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "lone surrogate": f'"{MARKER}\\ud800"',
    "lone low surrogate": '"\\udc00"',
    "hexadecimal": "0x10",
    "leading zero": "017",
    "plus sign": "+1",
    "bare word": MARKER,
    "depth 33": "[" * 31 + "]" * 31,
    "depth 100000": "[" * DEEP + "]" * DEEP,
    "unclosed depth 100000": "[" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "duplicate keys": f'{{"a": "{MARKER}", "a": 2}}',
    "control character": '"\x01"',
    "comment": f"1 /* {MARKER} */",
}


@pytest.mark.parametrize("name", LITERALS_THAT_ARE_NO_JSON)
def test_what_is_not_strict_json_is_400(live: LiveApp, rows: list[Instance], name: str) -> None:
    body = body_with(rows[0], "mean radius", LITERALS_THAT_ARE_NO_JSON[name])
    assert_problem(post(live, body), 400, "not_strict_json")


BODIES_THAT_ARE_NO_JSON = {
    "empty": b"",
    "blank": b" \r\n",
    "not UTF-8": b'{"instances": [{"\xff\xfe": 1}]}',
    "latin-1": '{"instances": [{"größe": 1}]}'.encode("latin-1"),
    "UTF-16": '{"instances": []}'.encode("utf-16"),
    "overlong UTF-8": b'{"instances": "\xc0\xaf"}',
    "byte order mark": b'\xef\xbb\xbf{"instances": []}',
    "two documents": b'{"instances": []}{"instances": []}',
    "truncated": b'{"instances": [{"mean radius": 1',
    "duplicate members": b'{"instances": [], "instances": []}',
    "NUL bytes": b"\x00" * 100,
    "form": f"instances={MARKER}".encode(),
}


@pytest.mark.parametrize("name", BODIES_THAT_ARE_NO_JSON)
def test_a_body_that_is_not_strict_json_is_400(live: LiveApp, name: str) -> None:
    assert_problem(post(live, BODIES_THAT_ARE_NO_JSON[name]), 400, "not_strict_json")


VALUES_THAT_DO_NOT_FIT = {
    "overflow": "1e400",
    "overflowing integer": "1" + "0" * 5000,
    "beyond float32": "3.5e38",
    "negative beyond float32": "-3.5e38",
    "beyond 2^53": str(2**53 + 1),
    "text": f'"{MARKER}"',
    "number as text": '"1.5"',
    "boolean": "true",
    "null where required": "null",
    "array": f'["{MARKER}"]',
    "object": f'{{"{MARKER}": 1}}',
    "depth 32": "[" * 29 + "]" * 29,
}


@pytest.mark.parametrize("name", VALUES_THAT_DO_NOT_FIT)
def test_a_value_that_does_not_fit_is_422_with_its_pointer(
    live: LiveApp, rows: list[Instance], name: str
) -> None:
    body = body_with(rows[0], "mean radius", VALUES_THAT_DO_NOT_FIT[name])
    problem = assert_problem(post(live, body), 422, "invalid_content")
    assert [error["pointer"] for error in problem["errors"]] == ["/instances/0/mean radius"]


@pytest.mark.parametrize(
    ("column", "literal", "status"),
    [
        ("grade", f'"{MARKER}"', 422),
        ("grade", "1", 422),
        ("visits", "1.5", 422),
        ("visits", '"1"', 422),
        ("visits", "true", 422),
        ("visits", "1.0", 200),
        ("grade", '"NA"', 200),
        ("texture", "null", 200),
    ],
)
def test_categories_and_integers_are_strict_but_take_1_point_0(
    live: LiveApp, mixed_rows: list[Instance], column: str, literal: str, status: int
) -> None:
    body = body_with(mixed_rows[0], column, literal)
    reply = live.client().request("POST", "/models/mixed/predict", body, JSON)
    if status == 200:
        assert reply.status == 200, reply.body
    else:
        assert_problem(reply, status, "invalid_content")


CONTENTS_THAT_DO_NOT_FIT: dict[str, object] = {
    "no object": [],
    "number": 1,
    "null": None,
    "no instances": {},
    "empty list": {"instances": []},
    "instances not a list": {"instances": {"a": MARKER}},
    "instance not an object": {"instances": [MARKER]},
    "no columns": {"instances": [{}]},
    "unknown column": {"instances": [{MARKER: 1}]},
    "unknown member": {"instances": [{}], MARKER: 1},
    "a thousand and one": {"instances": [{}] * 1001},
}


@pytest.mark.parametrize("name", CONTENTS_THAT_DO_NOT_FIT)
def test_content_that_does_not_fit_is_422(live: LiveApp, name: str) -> None:
    body = json.dumps(CONTENTS_THAT_DO_NOT_FIT[name]).encode()
    assert assert_problem(post(live, body), 422, "invalid_content")["errors"]


@pytest.mark.parametrize("subjects", [[], ["a", "b"], [1], [""], ["x" * 257], "a", {MARKER: 1}])
def test_subjects_that_do_not_fit_are_422(
    live: LiveApp, rows: list[Instance], subjects: object
) -> None:
    body = json.dumps({"instances": rows[:1], "subjects": subjects}).encode()
    assert_problem(post(live, body), 422, "invalid_content")


def test_a_column_left_out_or_unknown_is_named_or_counted_but_not_quoted(
    live: LiveApp, rows: list[Instance]
) -> None:
    row = {**rows[0], MARKER: MARKER}
    del row["mean area"]
    reply = post(live, json.dumps({"instances": [row]}).encode())
    found = {error["code"]: error["pointer"] for error in assert_problem(reply, 422)["errors"]}
    assert found == {"unknown_column": "/instances/0", "missing_column": "/instances/0/mean area"}


def test_a_thousand_instances_are_answered(live: LiveApp, rows: list[Instance]) -> None:
    reply = live.client().predict((rows * 16)[:1000], query="")
    assert reply.status == 200
    assert len(reply.json()["predictions"]) == 1000


@pytest.mark.parametrize(
    "query",
    [
        f"?explain={MARKER}",
        "?explain=1",
        "?explain=",
        "?explain=True",
        "?explain=true&explain=true",
        "?top=31",
        "?top=-1",
        "?top=1.0",
        "?top=",
        f"?top={MARKER}",
        "?top=" + "9" * 100,
        "?top=%D9%A1",
        "?top=1&top=2",
        "?explain=%ff",
    ],
)
def test_an_unknown_query_value_is_422(live: LiveApp, rows: list[Instance], query: str) -> None:
    body = json.dumps({"instances": rows[:1]}).encode()
    assert_problem(post(live, body, query), 422, "invalid_content")


@pytest.mark.parametrize(
    "query",
    [
        f"limit={MARKER}",
        "limit=0",
        "limit=201",
        "limit=" + "9" * 5000,
        f"since={MARKER}",
        "since=2026-13-01",
        "since=1e400",
        "until=1767225600",
        f"status={MARKER}",
        f"cursor={MARKER}",
        "cursor=" + "A" * 32,
        "model=%00",
        f"model={MARKER}%20",
    ],
)
def test_an_unknown_listing_parameter_is_422(live: LiveApp, query: str) -> None:
    assert_problem(live.client().get(f"/explanations?{query}"), 422)


@pytest.mark.parametrize("media_type", ["text/plain", f"application/{MARKER}", "", None])
def test_another_media_type_is_415(
    live: LiveApp, rows: list[Instance], media_type: str | None
) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    body = json.dumps({"instances": rows[:1]}).encode()
    reply = live.client().request("POST", "/predict", body, headers)
    assert_problem(reply, 415, "unsupported_media_type")


def test_a_charset_beside_the_media_type_is_fine(live: LiveApp, rows: list[Instance]) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert live.client().predict(rows[:1], headers=headers).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST"}),
        ("HEAD", "/predict", {"POST"}),
        ("OPTIONS", "/predict", {"POST"}),
        ("PUT", "/models/mixed/predict", {"POST"}),
        ("POST", "/models", {"GET", "HEAD"}),
        ("DELETE", "/explanations/0123456789", {"GET", "HEAD"}),
        ("OPTIONS", "/metrics", {"GET", "HEAD"}),
        ("TRACE", "/livez", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_with_allow(
    live: LiveApp, method: str, path: str, allowed: set[str]
) -> None:
    reply = live.client().request(method, path)
    assert reply.status == 405
    assert set(reply.headers["allow"].split(", ")) == allowed
    assert "access-control-allow-origin" not in reply.headers
    if method != "HEAD":
        assert_problem(reply, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/models", "/livez", "/readyz", "/openapi.json", "/docs"])
def test_head_is_get_without_its_body(live: LiveApp, path: str) -> None:
    client = live.client()
    head, get = client.request("HEAD", path), client.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize(
    "path",
    [
        f"/{MARKER}",
        "/",
        "/predict/",
        "//predict",
        "/admin",
        f"/models/{MARKER}",
        f"/explanations/{MARKER}",
        "/explanations/%00%00%00%00%00%00%00%00",
        "/explanations/" + "a" * 5000,
        "/models/..%2f..%2fsecret",
        "/models/%ED%A0%80",
    ],
)
def test_an_unknown_path_is_404(live: LiveApp, path: str) -> None:
    assert_problem(live.client().get(path), 404, "not_found")


def test_an_unknown_model_is_404(live: LiveApp, rows: list[Instance]) -> None:
    reply = live.client().predict(rows[:1], path=f"/models/{MARKER}/predict")
    assert_problem(reply, 404, "not_found")


def test_predict_without_a_default_among_several_models_says_what_to_do(
    tmp_path: Path, two_models: Path, rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models) as app:
        problem = assert_problem(app.client().predict(rows[:1]), 404, "not_found")
        assert "/models/{name}/predict" in problem["detail"]
        assert app.client().predict(rows[:1], path="/models/breast_cancer/predict").status == 200


@pytest.mark.parametrize(
    "host",
    [
        f"{MARKER}.example",
        "",
        "localhost.example",
        "127.0.0.1.example:80",
        "localhost:80@example",
        "[::1",
        "::1",
        "0.0.0.0",
        "127.0.0.1:",
        "127.1",
        "localhost:evil",
    ],
)
def test_another_host_is_421(live: LiveApp, host: str) -> None:
    assert_problem(live.client().get("/models", Host=host), 421, "misdirected")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:1"])
def test_this_machines_own_names_are_served(live: LiveApp, host: str) -> None:
    assert live.client().get("/models", Host=host).status == 200


@pytest.mark.parametrize(
    "request_id", ["short", "x" * 65, "has space", f"{MARKER}/../x", "ümlaut-x", "", "a\tb345678"]
)
def test_a_bad_request_id_is_400_with_a_fresh_one(
    live: LiveApp, rows: list[Instance], request_id: str
) -> None:
    reply = live.client().predict(rows[:1], headers={"X-Request-ID": request_id})
    problem = assert_problem(reply, 400, "bad_header")
    assert problem["request_id"] != request_id
    assert len(problem["request_id"]) == 36


@pytest.mark.parametrize("path", ["/predict", "/explanations"])
def test_personal_data_as_a_request_id_are_400_and_in_no_answer(
    live: LiveApp, rows: list[Instance], path: str
) -> None:
    card = "4111111111111111"
    body = json.dumps({"instances": rows[:1]}).encode()
    reply = live.client().request("POST", path, body, {**JSON, "X-Request-ID": card})
    problem = assert_problem(reply, 400, "bad_header")
    assert "payment_card" in problem["detail"]
    assert card not in str(reply.headers) + reply.body.decode()
    assert live.client().get(f"/explanations/{card}").status == 404


def test_valid_requests_are_answered_after_all_this(live: LiveApp, rows: list[Instance]) -> None:
    answer = live.client().predict(rows[:1]).json()
    (values,), (base,), (output,) = (
        answer["explanation"][name] for name in ("values", "base_values", "outputs")
    )
    assert math.isclose(sum(v[0] for v in values) + base[0], output[0], abs_tol=1e-4)
