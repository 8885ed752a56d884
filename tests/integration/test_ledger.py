"""Checkpoints and proofs over HTTP, checked with nothing but the public key."""

import base64
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import merkle
import pytest
from cryptography.exceptions import InvalidSignature
from live_app import LiveApp, live_app
from problems import assert_problem
from proven import proof_of, verified
from servers import JSON, assert_becomes_ready, wait_until

from schemas import Consistency
from service.runtime import Runtime

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, demo_registry: Path) -> Iterator[LiveApp]:
    with live_app(tmp_path_factory.mktemp("data"), registry=demo_registry) as live:
        yield live


def test_a_record_is_proven_with_the_public_key_alone(app: LiveApp, rows: list[Instance]) -> None:
    client = app.client()
    reply = client.predict(rows[:2])
    proof = proof_of(client, reply)
    assert client.get("/log/key").body.decode() == proof["vkey"] + "\n"
    size, root = verified(proof["checkpoint"], proof["vkey"])
    for entry in proof["entries"]:
        leaf = hashlib.sha256(b"\0" + entry["header"].encode()).digest()
        path = [base64.b64decode(each) for each in entry["proof"]]
        assert merkle.root_from_path(leaf, entry["seq"], size, path) == root
        commitment = json.loads(entry["header"])["payload"]["commitment"]
        key, payload = bytes.fromhex(entry["key"]), entry["payload"].encode()
        assert hmac.digest(key, payload, "sha256").hex() == commitment
    (decision,) = proof["entries"]
    payload = json.loads(decision["payload"])
    assert payload["instances"] == rows[:2]
    assert payload["answer"]["predictions"] == reply.json()["predictions"]
    with pytest.raises(InvalidSignature):
        verified(proof["checkpoint"].replace(f"\n{size}\n", f"\n{size + 1}\n"), proof["vkey"])


def test_a_record_announces_its_proof_once_it_is_in_the_log(
    app: LiveApp, rows: list[Instance]
) -> None:
    client = app.client()
    reply = client.predict(rows[:1])
    path = f"/explanations/{reply.headers['x-request-id']}"
    early = client.get(path)
    wait_until(lambda: "link" in client.get(path).headers)
    late = client.get(path)
    assert late.headers["link"] == f'<{path}/proof>; rel="proof"'
    assert (late.body, late.headers["etag"]) == (early.body, early.headers["etag"])
    unchanged = client.request("GET", path, None, {"If-None-Match": late.headers["etag"]})
    assert (unchanged.status, unchanged.headers["link"]) == (304, late.headers["link"])


def test_all_events_of_a_queued_explanation_are_proven(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir, inline_budget_seconds=1e-9) as app:
        client = app.client()
        reply = client.predict(rows[:1], headers={"Prefer": "respond-async"})
        assert len(proof_of(client, reply)["entries"]) == 1
        request_id = reply.headers["x-request-id"]
        called_off = client.request("POST", f"/explanations/{request_id}/cancel", b"{}", JSON)
        assert called_off.status == 202
        entries = proof_of(client, reply)["entries"]
    assert [entry["seq"] for entry in entries] == [0, 1, 2]
    types = [json.loads(entry["header"])["event_type"] for entry in entries]
    assert types == ["decision", "explanation", "outcome"]


def test_the_log_only_grows(app: LiveApp, rows: list[Instance]) -> None:
    client = app.client()
    first = proof_of(client, client.predict(rows[:1]))
    old_size, old_root = verified(first["checkpoint"], first["vkey"])
    last = proof_of(client, client.predict(rows[1:2]))
    size, root = verified(last["checkpoint"], last["vkey"])
    assert size > old_size
    found = client.get(f"/log/consistency?from={old_size}&to={size}").json()
    Consistency.model_validate(found)
    assert (found["from"], found["to"], found["log"]) == (old_size, size, first["log"])
    entries = headers_of(app)
    assert merkle.mth(entries[:old_size]) == old_root
    assert merkle.mth(entries[:size]) == root
    expected = merkle.proof(old_size, entries[:size])
    assert [base64.b64decode(each) for each in found["proof"]] == expected
    newest = client.get("/log/consistency").json()
    assert (newest["from"], newest["proof"]) == (0, [])
    for query in ("from=-1", "from=x"):
        assert_problem(client.get(f"/log/consistency?{query}"), 422, "invalid_content")
    for query in (f"from={size + 99}", f"to={2**53}", "from=2&to=1"):
        assert_problem(client.get(f"/log/consistency?{query}"), 404, "not_found")


def headers_of(app: LiveApp) -> list[bytes]:
    database = sqlite3.connect(app.runtime.settings.data_dir / "evidence.db")
    rows = database.execute(
        "SELECT header FROM log_entries JOIN events USING (event_id) WHERE log = 'evidence'"
        " ORDER BY seq"
    ).fetchall()
    database.close()
    return [header for (header,) in rows]


def test_before_anything_is_signed_there_is_no_checkpoint(
    tmp_path: Path, demo_registry: Path
) -> None:
    with live_app(tmp_path, registry=demo_registry) as app:
        client = app.client()
        assert_problem(client.get("/log/checkpoint"), 404, "not_found")
        assert_problem(client.get("/log/consistency"), 404, "not_found")
        assert_problem(client.get("/log/checkpoint?log=other"), 422, "invalid_content")
        assert client.get("/log/key?log=access").body.split(b"+")[0].endswith(b"/access")


def test_a_record_without_its_checkpoint_yet_says_when_to_ask_again(
    data_dir: Path, rows: list[Instance]
) -> None:
    def pause(runtime: Runtime) -> None:
        assert runtime.sequencing is not None
        runtime.sequencing.pause_seconds = 60.0

    with live_app(data_dir, customise=pause) as app:
        client = app.client()
        request_id = client.predict(rows[:1]).headers["x-request-id"]
        refused = client.get(f"/explanations/{request_id}/proof")
        assert_problem(refused, 409, "not_sequenced")
        assert refused.headers["retry-after"] == "1"
        assert "link" not in client.get(f"/explanations/{request_id}").headers
        for unknown in ("unknown-request", "short"):
            assert_problem(client.get(f"/explanations/{unknown}/proof"), 404, "not_found")
    assert sequenced_at_the_end(data_dir) == 1


def sequenced_at_the_end(data_dir: Path) -> int:
    size = int((data_dir / "checkpoint.evidence").read_text().split("\n")[1])
    with sqlite3.connect(data_dir / "evidence.db") as database:
        entries, events = (
            database.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]  # noqa: S608
            for rows in ("log_entries WHERE log = 'evidence'", "events")
        )
    database.close()
    assert size == entries == events
    return size


def test_the_access_log_s_checkpoint_is_for_auditors(keyed: Any) -> None:
    for path in ("/log/checkpoint?log=access", "/log/consistency?log=access"):
        assert_problem(keyed.client("predict").get(path), 403, "forbidden")
        assert_problem(keyed.client("audit").get(path), 404, "not_found")


def test_a_database_put_back_is_noticed_and_nothing_is_signed(
    data_dir: Path, rows: list[Instance]
) -> None:
    with live_app(data_dir) as app:
        proof_of(app.client(), app.client().predict(rows[:1]))
    copy = (data_dir / "evidence.db").read_bytes()
    with live_app(data_dir) as app:
        proof_of(app.client(), app.client().predict(rows[:1]))
    (data_dir / "evidence.db").write_bytes(copy)
    kept = (data_dir / "checkpoint.evidence").read_text()
    with live_app(data_dir) as app:
        client = app.client()
        reason = "has 1 entries, and had 2 according to the file"
        wait_until(lambda: reason in client.get("/readyz").json().get("reason", ""))
        assert client.get("/readyz").json()["status"] == "degraded"
        assert client.predict(rows[:1]).headers["evidence"] == "stored"
        metrics = client.get("/metrics").body.decode()
        failures = 'explain_errors_total{model="",stage="store",type="LogMismatchError"}'
        assert f"{failures} 0.0" not in metrics
        backlog = 'explain_audit_backlog_records{backend="log"} 1.0'
        wait_until(lambda: backlog in client.get("/metrics").body.decode())
        assert client.get("/log/checkpoint").body != kept.encode()
    assert (data_dir / "checkpoint.evidence").read_text() == kept
    (data_dir / "checkpoint.evidence").rename(data_dir / "kept")
    with live_app(data_dir) as app:
        wait_until((data_dir / "checkpoint.evidence").exists)
        assert_becomes_ready(app.client())
