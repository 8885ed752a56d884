"""Who may do what: every route against every scope, records of others, keys that end."""

import json
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live_app import live_app
from problems import MARKER, assert_problem
from servers import JSON, Client, Reply, explaind, wait_until

from service.app import create_app
from service.auth import SCOPES, KeyFile
from service.errors import InvalidInputError
from service.settings import Settings

Instance = dict[str, Any]
OPEN_PATHS = {"/livez", "/readyz"}
UNDOCUMENTED = [("GET", "/openapi.json", ["predict"]), ("GET", "/docs", ["predict"])]
READ_RECORD = "/explanations/{request_id}"
EXPLAIN_AGAIN = "/explanations"
VOTES = {READ_RECORD + "/feedback": {"rating": 3}, READ_RECORD + "/label": {"labels": ["benign"]}}
OF_A_RECORD = {
    ("GET", READ_RECORD): 200,
    ("GET", READ_RECORD + "/related"): 200,
    ("GET", READ_RECORD + "/events"): 200,
    ("GET", READ_RECORD + "/proof"): 200,
    ("POST", READ_RECORD + "/cancel"): 409,
    ("GET", READ_RECORD + "/feedback"): 200,
    ("POST", EXPLAIN_AGAIN): 202,
}
"""What is asked about one record, and what who may read it is answered."""


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    scopes: list[str] | None
    """None: open to everybody."""

    def send(self, client: Client, rows: list[Instance], request_id: str) -> Reply:
        path = self.path.replace("{request_id}", request_id).replace("{name}", "breast_cancer")
        if self.method == "POST":
            again = {"request_id": request_id}
            other = VOTES.get(self.path, {"instances": rows[:1]})
            content = again if self.path == EXPLAIN_AGAIN else other
            body = json.dumps(content).encode()
            return client.request(self.method, path, body, JSON)
        return client.request(self.method, path)


@pytest.fixture(scope="module")
def routes(keyed: Any) -> list[Route]:
    document = keyed.client("predict").get("/openapi.json").json()
    found = [
        Route(
            method.upper(), path, (operation["security"] or [{"api_key": None}])[0].get("api_key")
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return [*found, *(Route(*route) for route in UNDOCUMENTED)]


@pytest.fixture(scope="module")
def record_of_alice(keyed: Any, rows: list[Instance]) -> str:
    client = keyed.client("alice")
    request_id = str(client.predict(rows[:1]).headers["x-request-id"])
    wait_until(lambda: client.get(f"/explanations/{request_id}/proof").status == 200)
    return request_id


def test_every_route_is_documented_with_its_scope(routes: list[Route]) -> None:
    assert {(route.method, route.path): route.scopes for route in routes} == {
        ("POST", "/predict"): ["predict"],
        ("POST", "/models/breast_cancer/predict"): ["predict"],
        ("GET", READ_RECORD): [],
        ("GET", READ_RECORD + "/related"): [],
        ("GET", READ_RECORD + "/events"): [],
        ("GET", READ_RECORD + "/proof"): [],
        ("GET", "/log/checkpoint"): [],
        ("GET", "/log/key"): [],
        ("GET", "/log/consistency"): [],
        ("POST", READ_RECORD + "/cancel"): ["explain"],
        ("POST", EXPLAIN_AGAIN): ["explain"],
        ("POST", READ_RECORD + "/feedback"): ["explain"],
        ("GET", READ_RECORD + "/feedback"): [],
        ("POST", READ_RECORD + "/label"): ["explain"],
        ("GET", "/explanations"): ["audit"],
        ("GET", "/models"): ["predict"],
        ("GET", "/models/{name}"): ["predict"],
        ("GET", "/models/{name}/review"): ["audit"],
        ("GET", "/models/{name}/importance"): ["audit"],
        ("GET", "/livez"): None,
        ("GET", "/readyz"): None,
        ("GET", "/metrics"): ["metrics"],
        ("GET", "/openapi.json"): ["predict"],
        ("GET", "/docs"): ["predict"],
    }


def test_every_route_needs_a_key_but_the_probes(
    keyed: Any, routes: list[Route], rows: list[Instance], record_of_alice: str
) -> None:
    for route in routes:
        reply = route.send(keyed.client(None), rows, record_of_alice)
        if route.path in OPEN_PATHS:
            assert reply.status == 200, route
        else:
            assert_problem(reply, 401, "unauthenticated")
            assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scope", SCOPES)
def test_every_route_against_every_scope(
    keyed: Any, routes: list[Route], rows: list[Instance], record_of_alice: str, scope: str
) -> None:
    for route in routes:
        reply = route.send(keyed.client(scope), rows, record_of_alice)
        if route.scopes is not None and not set(route.scopes) <= {scope}:
            assert_problem(reply, 403, "forbidden")
        elif (route.method, route.path) in OF_A_RECORD and scope != "audit":
            assert_problem(reply, 404, "not_found")
        else:
            is_vote = route.method == "POST" and route.path in VOTES
            assert reply.status == (204 if is_vote else 200), (route, reply.body)


def test_who_made_a_record_may_ask_for_everything_about_it(
    keyed: Any, routes: list[Route], rows: list[Instance], record_of_alice: str
) -> None:
    for route in routes:
        expected = OF_A_RECORD.get((route.method, route.path))
        if expected is None:
            continue
        assert route.send(keyed.client("alice"), rows, record_of_alice).status == expected, route
        for other in ("bob", "eve"):
            reply = route.send(keyed.client(other), rows, record_of_alice)
            assert_problem(reply, 404, "not_found")


@pytest.mark.parametrize("scope", SCOPES)
def test_explaining_needs_the_scope_explain_as_well(
    keyed: Any, rows: list[Instance], scope: str
) -> None:
    assert_problem(keyed.client(scope).predict(rows[:1]), 403, "forbidden")
    assert keyed.client("alice").predict(rows[:1]).status == 200


KEYS_THAT_ARE_NONE = [
    "Bearer",
    "Bearer ",
    f"Bearer {MARKER}",
    "Basic YWxpY2U6c2VjcmV0",
    "Bearer exd_000000000000_" + "A" * 43,
    "Bearer \xff\xfe",
    "",
]


@pytest.mark.parametrize("value", KEYS_THAT_ARE_NONE)
def test_what_is_no_key_is_401_and_is_not_repeated(keyed: Any, value: str) -> None:
    assert_problem(keyed.client(None).get("/models", Authorization=value), 401, "unauthenticated")


def test_a_key_with_one_character_changed_is_401(keyed: Any) -> None:
    key = keyed.keys["predict"]
    for place in (5, len(key) - 2):
        changed = "b" if key[place] == "a" else "a"
        wrong = key[:place] + changed + key[place + 1 :]
        reply = keyed.live.client(wrong).get("/models")
        assert_problem(reply, 401, "unauthenticated")
        assert wrong.encode() not in reply.body
    assert keyed.live.client(key).get("/models", Authorization=f"bearer  {key}").status == 200


def test_a_record_is_read_by_its_maker_and_audit_and_is_404_for_others(
    keyed: Any, record_of_alice: str
) -> None:
    path = f"/explanations/{record_of_alice}"
    first, second = keyed.client("alice").get(path), keyed.client("audit").get(path)
    assert first.status == 200
    assert first.body == second.body
    assert first.json()["provenance"]["principal"] == "alice"
    for other in ("bob", "eve", "admin"):
        assert_problem(keyed.client(other).get(path), 404, "not_found")
    unknown = keyed.client("bob").get("/explanations/never-made-01")
    assert unknown.json()["detail"] == keyed.client("bob").get(path).json()["detail"]


def test_a_listing_holds_ones_own_tenant_only(
    keyed: Any, rows: list[Instance], record_of_alice: str
) -> None:
    elsewhere = keyed.client("eve").predict(rows[:1]).headers["x-request-id"]
    ids = {
        name: {
            item["request_id"]
            for item in keyed.client(name).get("/explanations?limit=200").json()["items"]
        }
        for name in ("audit", "eve")
    }
    assert record_of_alice in ids["audit"] - ids["eve"]
    assert elsewhere in ids["eve"] - ids["audit"]


def test_an_etag_is_honoured_as_http_says(keyed: Any, record_of_alice: str) -> None:
    client, path = keyed.client("alice"), f"/explanations/{record_of_alice}"
    etag = client.get(path).headers["etag"]
    for value in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        fresh = client.request("GET", path, headers={"If-None-Match": value})
        assert (fresh.status, fresh.body) == (304, b""), value
        assert fresh.headers["etag"] == etag
        assert fresh.headers["vary"] == "Accept, Authorization"
    for value in ('"other"', etag[1:-1], "", f'"{etag[1:-2]}"'):
        assert client.request("GET", path, headers={"If-None-Match": value}).status == 200, value
    stranger = keyed.client("bob").request("GET", path, headers={"If-None-Match": "*"})
    assert_problem(stranger, 404, "not_found")


def test_with_keys_any_host_name_is_served(keyed: Any) -> None:
    assert keyed.client("predict").get("/models", Host="explain.example").status == 200


@dataclass(frozen=True)
class OneKey:
    file: Path
    key: str


@pytest.fixture
def one_key(tmp_path: Path) -> OneKey:
    content, key = KeyFile().with_key("carol", ("predict",), "default")
    file = tmp_path / "keys" / "keys.json"
    content.write(file)
    return OneKey(file, key)


def test_a_revoked_key_is_refused_within_two_seconds(
    tmp_path: Path, demo_registry: Path, one_key: OneKey
) -> None:
    with live_app(tmp_path, registry=demo_registry, api_keys_file=one_key.file) as app:
        client = app.client(one_key.key)
        assert client.get("/models").status == 200
        assert explaind("keys", "revoke", "carol", "--file", str(one_key.file)).returncode == 0
        wait_until(lambda: client.get("/models").status == 401, seconds=2)


def test_a_new_key_is_accepted_and_a_damaged_file_changes_nothing(
    tmp_path: Path, demo_registry: Path, one_key: OneKey
) -> None:
    with live_app(tmp_path, registry=demo_registry, api_keys_file=one_key.file) as app:
        content, key = KeyFile.read(one_key.file).with_key("dave", ("predict",), "default")
        content.write(one_key.file)
        wait_until(lambda: app.client(key).get("/models").status == 200, seconds=2)
        one_key.file.write_text("{")
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert app.client(key).get("/models").status == 200
        content.without("dave").write(one_key.file)
        wait_until(lambda: app.client(key).get("/models").status == 401, seconds=2)


def test_the_keys_file_is_its_owners_only_and_holds_no_key(one_key: OneKey) -> None:
    one_key.file.chmod(0o644)
    KeyFile.read(one_key.file).with_key("dave", ("audit",), "default")[0].write(one_key.file)
    assert stat.S_IMODE(one_key.file.stat().st_mode) == 0o600
    assert one_key.key not in one_key.file.read_text()
    assert one_key.key.rpartition("_")[2] not in one_key.file.read_text()


@pytest.mark.parametrize(("content", "exit_code"), [(b"{", 4), (None, 5)])
def test_an_unusable_keys_file_is_one_clear_line_at_start(
    data_dir: Path, content: bytes | None, exit_code: int
) -> None:
    file = data_dir / "keys.json"
    if content is not None:
        file.write_bytes(content)
    options = ("--port", "0", "--data-dir", str(data_dir), "--api-keys-file", str(file))
    refused = explaind("serve", *options)
    assert refused.returncode == exit_code, refused.stderr
    assert f"explaind: API-keys file {file}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"keys": [{"name": "x"}]}', b"null"])
def test_a_malformed_keys_file_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    with pytest.raises(InvalidInputError, match="API-keys file"):
        create_app(Settings.load({}, data_dir=tmp_path, api_keys_file=file))


def test_without_keys_everybody_is_local_and_only_loopback_names_are_served(
    live: Any, rows: list[Instance]
) -> None:
    answer = live.client("exd_ignored").predict(rows[:1])
    record = live.client().get(answer.json()["explanation"]["links"]["self"]).json()
    assert record["provenance"]["principal"] == "local"
    assert_problem(live.client().get("/models", Host="explain.example"), 421, "misdirected")
    assert live.client().get("/metrics").status == 200
