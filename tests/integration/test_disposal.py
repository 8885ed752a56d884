"""Records erased, held and in quarantine while the service runs: what clients and files show."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import merkle
import pytest
from commands import explaind
from later import NO_INLINE, Worker
from live_app import LiveApp, live_app
from problems import assert_problem
from proven import proof_of, verified
from servers import JSON, Client, Reply
from sqlalchemy import select

from service.accesses import AccessFilter, listed
from service.disposal import Destruction, Order, erase, hold, of_requests, purge, release
from service.evidence.events import DecisionEvent
from service.evidence.tables import events

Instance = dict[str, Any]
EMAIL, CARD = "jane.doe@example.org", "4111-1111-1111-1111"
GONE, LOCKED = 410, 403


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, two_models: Path) -> Iterator[LiveApp]:
    with live_app(
        tmp_path_factory.mktemp("data"), registry=two_models, model="mixed", **NO_INLINE
    ) as live:
        yield live


@pytest.fixture
def do(app: LiveApp) -> Callable[..., Any]:
    """Erases, holds, releases by request ID, as a command beside the service would."""

    def run(deed: str, request_id: str, **options: Any) -> Any:
        store, order = app.runtime.evidence.store, Order("cli:test", "case-1", datetime.now(UTC))
        keys = of_requests(store, "default", [request_id])
        if deed == "erase":
            return erase(store, keys, Destruction("erasure", order))
        return {"hold": hold, "release": release}[deed](store, keys, order, **options)

    return run


def predicted(client: Client, row: Instance, *, explain: bool = False, **headers: str) -> str:
    query = "?explain=true" if explain else ""
    path = "/models/mixed/predict"
    reply = client.predict([row], query=query, path=path, headers=headers)
    assert reply.status == 200, reply.body
    return reply.headers["x-request-id"]


def test_an_erased_record_is_gone_with_its_header_and_a_proof_that_verifies(
    app: LiveApp, mixed_rows: list[Instance], do: Callable[..., Any]
) -> None:
    client = app.client()
    request_id = predicted(client, mixed_rows[0])
    do("erase", request_id)
    reply = client.get(f"/explanations/{request_id}")
    problem = assert_problem(reply, GONE)
    assert problem["type"].endswith("erased")
    assert (problem["record_status"], problem["header"]["request_id"]) == ("erased", request_id)
    assert reply.headers["link"] == f'</explanations/{request_id}/proof>; rel="proof"'
    proof = proof_of(client, Reply(200, {"x-request-id": request_id}, b""))
    size, root = verified(proof["checkpoint"], proof["vkey"])
    assert len(proof["entries"]) == 2
    for entry in proof["entries"]:
        leaf = hashlib.sha256(b"\0" + entry["header"].encode()).digest()
        path = [base64.b64decode(each) for each in entry["proof"]]
        assert merkle.root_from_path(leaf, entry["seq"], size, path) == root
    types = {json.loads(entry["header"])["event_type"]: entry for entry in proof["entries"]}
    assert types.keys() == {"decision", "erasure"}
    assert (types["decision"]["payload"], types["decision"]["key"]) == (None, None)
    listed = client.get("/explanations?status=erased").json()["items"]
    assert {item["status"] for item in listed} == {"erased"}
    assert request_id in {item["request_id"] for item in listed}


def test_an_erased_request_is_never_answered_again_under_its_id(
    app: LiveApp, mixed_rows: list[Instance], do: Callable[..., Any]
) -> None:
    client = app.client()
    named = {"X-Request-ID": "asked-with-a-name"}
    predicted(client, mixed_rows[1], **named)
    do("erase", "asked-with-a-name")
    for row in mixed_rows[1:3]:
        reply = client.predict([row], query="", path="/models/mixed/predict", headers=named)
        assert_problem(reply, GONE)
    body = json.dumps({"request_id": "asked-with-a-name"}).encode()
    for path in ("/explanations", "/explanations/asked-with-a-name/cancel"):
        assert_problem(client.request("POST", path, body, JSON), GONE)
    for path in ("/related", "/events"):
        assert_problem(client.get(f"/explanations/asked-with-a-name{path}"), GONE)


def test_a_worker_that_has_a_record_in_hand_cannot_bring_it_back(
    app: LiveApp, mixed_rows: list[Instance], do: Callable[..., Any]
) -> None:
    client = app.client()
    request_id = predicted(client, mixed_rows[3], explain=True)
    event, store = Worker(app).computed(request_id), app.runtime.evidence.store
    do("erase", request_id)
    assert not store.append_final(event).stored
    assert_problem(client.get(f"/explanations/{request_id}"), GONE)
    with store.reading() as connection:
        query = select(events.c.payload).where(
            events.c.request_id == request_id, events.c.event_type == "explanation"
        )
        assert [bytes(each) for each in connection.scalars(query)] == [b"{}"]


def test_a_record_in_quarantine_is_read_by_nobody_until_it_is_released(
    app: LiveApp, mixed_rows: list[Instance], do: Callable[..., Any]
) -> None:
    client = app.client()
    named = {"X-Request-ID": "leaked-record"}
    predicted(client, mixed_rows[4], **named)
    do("hold", "leaked-record", kind="quarantine")
    for path in ("", "/proof", "/related"):
        problem = assert_problem(client.get(f"/explanations/leaked-record{path}"), LOCKED)
        assert problem["type"].endswith("quarantined")
        assert "header" not in problem
    repeated = client.predict(
        [mixed_rows[4]], query="", path="/models/mixed/predict", headers=named
    )
    assert_problem(repeated, LOCKED)
    assert do("erase", "leaked-record").held == (("default", "leaked-record"),)
    do("release", "leaked-record", kind="quarantine")
    assert client.get("/explanations/leaked-record").status == 200


def expired(app: LiveApp, row: Instance, request_id: str, days_ago: float) -> None:
    """A record whose time was over so many days ago: one of today, stored as if older."""
    predicted(app.client(), row, **{"X-Request-ID": f"{request_id}-today"})
    store = app.runtime.evidence.store
    found = store.record("default", f"{request_id}-today")
    assert found is not None
    decision = found.decision
    received_at = datetime.now(UTC) - decision.template.retention - timedelta(days=days_ago)
    store.append(
        DecisionEvent(
            template=decision.template,
            request_id=request_id,
            received_at=received_at,
            completed_at=received_at,
            status=decision.status,
            lane=decision.lane,
            payload=decision.payload,
            parts=decision.parts,
        )
    )


def test_an_expired_record_is_not_shown_any_more_though_it_is_purged_two_days_later(
    app: LiveApp, mixed_rows: list[Instance], do: Callable[..., Any]
) -> None:
    client, store = app.client(), app.runtime.evidence.store
    expired(app, mixed_rows[5], "expired-yesterday", 1)
    expired(app, mixed_rows[5], "expired-long-ago", 3)
    expired(app, mixed_rows[5], "expired-but-held", 3)
    do("hold", "expired-but-held")
    for _ in range(2):
        for request_id in ("expired-yesterday", "expired-long-ago"):
            problem = assert_problem(client.get(f"/explanations/{request_id}"), GONE)
            assert problem["record_status"] == "expired"
        proof = proof_of(client, Reply(200, {"x-request-id": "expired-yesterday"}, b""))
        assert {entry["payload"] for entry in proof["entries"]} == {None}
        assert client.get("/explanations/expired-but-held").status == 200
        purge(store, "purge")
    place = ("--data-dir", str(app.runtime.settings.data_dir))
    for command in ("get", "replay"):
        refused = explaind(command, "expired-yesterday", *place)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "expired" in refused.stderr
        accesses = AccessFilter(request_id="expired-yesterday")
        assert list(listed(store, accesses)) == []
    do("hold", "expired-yesterday")
    assert client.get("/explanations/expired-yesterday").status == 200
    assert explaind("get", "expired-yesterday", *place).returncode == 0


def test_a_key_store_whose_copies_live_on_is_told(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models, key_backup_days=30) as app:
        request_id = predicted(app.client(), mixed_rows[0])
        store, order = app.runtime.evidence.store, Order("cli:test", "x", datetime.now(UTC))
        keys = of_requests(store, "default", [request_id])
        erase(store, keys, Destruction("erasure", order))
        problem = app.client().get(f"/explanations/{request_id}").json()
        until = datetime.now(UTC) + timedelta(days=30)
        assert problem["record_status"] == f"erasing until {until:%Y-%m-%d}"


def command(app: LiveApp, *arguments: str) -> tuple[int, Any]:
    done = explaind(*arguments, "--data-dir", str(app.runtime.settings.data_dir), "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def about(client: Client, row: Instance, subject: str) -> str:
    body = {"instances": [row], "subjects": [subject]}
    reply = client.request("POST", "/models/mixed/predict", json.dumps(body).encode(), JSON)
    assert reply.status == 200
    return reply.headers["x-request-id"]


def planted(app: LiveApp, strings: Mapping[str, bytes]) -> set[str]:
    """Which of the strings are in any file of the service's data."""
    directory = app.runtime.settings.data_dir
    files = [
        path for path in directory.rglob("*") if path.is_file() and "registry" not in str(path)
    ]
    content = [path.read_bytes() for path in files]
    return {name for name, string in strings.items() if any(string in each for each in content)}


def test_a_subject_is_erased_by_command_while_the_service_runs(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models) as app:
        client = app.client()
        first, second = (about(client, mixed_rows[0], EMAIL) for _ in range(2))
        other = about(client, mixed_rows[1], CARD)
        held = command(app, "hold", "--request-id", second, "--reason", "case-9")
        assert held == (0, {"held": 1, "unchanged": 0, "gone": 0})
        for dry_run, given in ((True, ()), (False, ("--yes",))):
            code, said = command(app, "erase", "--subject", EMAIL, *given)
            expected = {"dry_run": dry_run, "erased": 1, "erased_before": 0, "held": [second]}
            assert (code, said) == (1, expected)
        statuses = [client.get(f"/explanations/{each}").status for each in (first, second, other)]
        assert statuses == [410, 200, 200]
        command(app, "release", "--request-id", second, "--reason", "over")
        assert command(app, "erase", "--subject", EMAIL, "--yes")[0] == 0
        assert client.get(f"/explanations/{second}").status == 410
        _, accesses = command(app, "accesses")
    kinds = [each["event_type"].removeprefix("access/") for each in accesses]
    assert kinds == ["hold", "erasure", "erasure", "release", "erasure", "erasure"]
    assert EMAIL not in json.dumps(accesses)
    assert accesses[2]["held_ids"] == [second]


def test_an_erasure_leaves_neither_payload_nor_key_in_any_file(
    tmp_path: Path, two_models: Path, mixed_rows: list[Instance]
) -> None:
    with live_app(tmp_path, registry=two_models) as app:
        client = app.client()
        request_ids = [about(client, row, EMAIL) for row in mixed_rows[:5]]
        with app.runtime.evidence.store.reading() as connection:
            wanted = events.c.request_id.in_(request_ids)
            found = connection.execute(select(events).where(wanted)).all()
        strings = {f"key {row.event_id}": row.record_key for row in found}
        strings |= {f"payload {row.event_id}": row.payload[-64:] for row in found}
        assert planted(app, strings) == set(strings)
        assert planted(app, {"subject": EMAIL.encode()}) == set()
        assert command(app, "erase", "--subject", EMAIL, "--yes")[1]["erased"] == 5
        assert planted(app, strings) == set()


def test_commands_about_what_is_not_there_say_so(app: LiveApp) -> None:
    assert command(app, "erase", "--request-id", "no-such-request", "--yes")[0] == 3
    assert command(app, "erase", "--yes")[0] == 2
    assert command(app, "hold", "--request-id", "no-such-request", "--reason", "two words")[0] == 2
    assert command(app, "purge", "--dry-run")[1]["purged"] == 0
