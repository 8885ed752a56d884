"""Who may do what: every route against every scope, records of others, keys that end."""

import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from access_table import ACCESS, ACCESS_OF_ALL, PRINCIPALS, RECORD, Route, send
from commands import explaind
from fastapi.routing import iter_route_contexts
from live_app import live_app
from problems import MARKER, assert_problem, assert_refused
from servers import wait_until

from service.app import create_app
from service.auth import SCOPES, KeyFile
from service.errors import InvalidInputError
from service.settings import Settings

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def record_of_alice(keyed: Any, rows: list[Instance]) -> str:
    client = keyed.client("alice")
    request_id = str(client.predict(rows[:1]).headers["x-request-id"])
    wait_until(lambda: client.get(f"/explanations/{request_id}/proof").status == 200)
    return request_id


def test_every_route_has_a_row_and_every_row_a_route(keyed: Any) -> None:
    document = keyed.client("predict").get("/openapi.json").json()
    found = {
        (method.upper(), path): operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    expected = {route: access.security for route, access in ACCESS.items()}
    assert found == expected


def test_what_the_document_leaves_out_is_in_the_table_too(keyed: Any) -> None:
    app = keyed.live.app
    served = {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if method != "HEAD"
    }
    named = {(method, path.replace("/breast_cancer", "/{name}")) for method, path in ACCESS_OF_ALL}
    assert served == named


@pytest.mark.parametrize("route", ACCESS_OF_ALL, ids=" ".join)
@pytest.mark.parametrize("name", [None, "wrong", "revoked", "ended"])
def test_without_a_key_in_force_only_the_probes_answer(
    keyed: Any, rows: list[Instance], record_of_alice: str, route: Route, name: str | None
) -> None:
    client = keyed.client(name) if name != "wrong" else keyed.live.client("exd_" + "0" * 56)
    reply = send(client, route, record_of_alice, rows[0])
    if ACCESS_OF_ALL[route].needs is None:
        assert reply.status == 200
    else:
        assert_refused(reply, route[1], 401, "unauthenticated")
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("route", ACCESS_OF_ALL, ids=" ".join)
@pytest.mark.parametrize("name", [*SCOPES, *(f"not-{scope}" for scope in SCOPES)])
def test_every_route_against_every_scope(
    keyed: Any, rows: list[Instance], record_of_alice: str, name: str, route: Route
) -> None:
    access = ACCESS_OF_ALL[route]
    scopes = frozenset(PRINCIPALS[name][0])
    reply = send(keyed.client(name), route, record_of_alice, rows[0])
    if not access.admits(scopes):
        assert_refused(reply, route[1], 403, "forbidden")
    elif access.is_of_a_record and "audit" not in scopes:
        assert_problem(reply, 404, "not_found")
    else:
        assert reply.status == access.status, reply.body


@pytest.mark.parametrize("route", [r for r in ACCESS if ACCESS[r].is_of_a_record], ids=" ".join)
def test_who_made_a_record_may_ask_for_everything_about_it(
    keyed: Any, rows: list[Instance], record_of_alice: str, route: Route
) -> None:
    reply = send(keyed.client("alice"), route, record_of_alice, rows[0])
    assert reply.status == ACCESS[route].status, reply.body
    for other in ("bob", "eve"):
        reply = send(keyed.client(other), route, record_of_alice, rows[0])
        assert_problem(reply, 404, "not_found")


def test_a_rotated_key_is_the_same_principal(
    keyed: Any, rows: list[Instance], record_of_alice: str
) -> None:
    record = keyed.client("renewed").get(f"/explanations/{record_of_alice}")
    assert record.status == 200
    answer = keyed.client("renewed").predict(rows[:1]).json()
    stored = keyed.client("audit").get(answer["explanation"]["links"]["self"]).json()
    assert stored["provenance"]["principal"] == "ended"


READING = [
    RECORD,
    RECORD + "/related",
    RECORD + "/events",
    "/explanations",
    "/models/{name}/review",
]


@pytest.mark.parametrize("path", READING)
def test_an_auditor_over_several_tenants_names_one(
    keyed: Any, rows: list[Instance], record_of_alice: str, path: str
) -> None:
    route, both = ("GET", path), keyed.client("both")
    elsewhere = keyed.client("eve").predict(rows[:1]).headers["x-request-id"]
    assert send(both, route, record_of_alice, rows[0]).status == 200
    assert send(both, route, elsewhere, rows[0], "?tenant=elsewhere").status == 200
    if ACCESS[route].is_of_a_record:
        assert_problem(send(both, route, elsewhere, rows[0]), 404, "not_found")
        crossed = send(both, route, record_of_alice, rows[0], "?tenant=elsewhere")
        assert_problem(crossed, 404, "not_found")


@pytest.mark.parametrize("path", READING)
def test_a_foreign_tenant_looks_like_one_that_does_not_exist(
    keyed: Any, rows: list[Instance], record_of_alice: str, path: str
) -> None:
    replies = [
        send(keyed.client("audit"), ("GET", path), record_of_alice, rows[0], f"?tenant={tenant}")
        for tenant in ("elsewhere", "no-such-tenant")
    ]
    details = {assert_problem(reply, 404, "not_found")["detail"] for reply in replies}
    assert len(details) == 1
    own = send(keyed.client("audit"), ("GET", path), record_of_alice, rows[0], "?tenant=default")
    assert own.status == 200


def test_the_first_tenant_is_the_one_that_is_written_to(keyed: Any, rows: list[Instance]) -> None:
    request_id = keyed.client("both").predict(rows[:1]).headers["x-request-id"]
    assert keyed.client("audit").get(f"/explanations/{request_id}").status == 200
    assert_problem(keyed.client("eve").get(f"/explanations/{request_id}"), 404, "not_found")


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
