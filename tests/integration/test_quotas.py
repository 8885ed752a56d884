"""Explanations have a quota of their own: probing is refused while predictions are answered."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_app import LiveApp, live_app
from problems import assert_problem
from servers import JSON, Client, wait_until

from service.auth import KeyFile

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, demo_registry: Path, keys: dict[str, str]
) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("quotas")
    file, content = data_dir / "keys.json", KeyFile()
    limits = {
        "prober": {},
        "slow": {"explain_per_minute": 60},
        "late": {"explain_per_minute": 60},
        "tiny": {"predict_per_minute": 3},
    }
    for name, own in limits.items():
        scopes = ("predict", "explain", "metrics")
        content, keys[name] = content.with_key(name, scopes, **own)
    content.write(file)
    with live_app(data_dir, registry=demo_registry, api_keys_file=file) as live:
        yield live


def counted(client: Client, name: str, *labels: str) -> float:
    lines = client.get("/metrics").body.decode().splitlines()
    found = [line for line in lines if line.startswith(name + "{")]
    return sum(float(x.split()[-1]) for x in found if all(label in x for label in labels))


def test_a_thousand_probing_explains_are_refused_while_predictions_are_answered(
    client_of: Any, rows: list[Instance]
) -> None:
    client = client_of("prober")
    labels = ('stage="explain"', 'type="QuotaExceededError"')
    wanted = counted(client, "explain_explanations_wanted_total")
    errors = counted(client, "explain_errors_total", *labels)
    statuses: Counter[tuple[str, int]] = Counter()
    for turn in range(1000):
        probe = {**rows[0], "mean radius": 10 + turn / 100}
        reply = client.predict([probe])
        statuses["explain", reply.status] += 1
        if reply.status == 429:
            assert_problem(reply, 429, "quota_exceeded")
            assert int(reply.headers["retry-after"]) >= 1
            if turn % 10 == 0:
                statuses["predict", client.predict([probe], query="").status] += 1
    served, refused = statuses["explain", 200], statuses["explain", 429]
    assert served + refused == 1000
    assert 600 <= served < 950  # the default, and what flows in meanwhile at ten a second
    assert set(statuses) == {("explain", 200), ("explain", 429), ("predict", 200)}
    assert counted(client, "explain_explanations_wanted_total") - wanted == served
    assert counted(client, "explain_errors_total", *labels) - errors == refused


def test_instances_count_and_a_refused_request_leaves_no_record(
    client_of: Any, rows: list[Instance]
) -> None:
    client = client_of("slow")
    assert client.predict(rows[:60]).status == 200
    refused = client.predict(rows[:30], headers={"X-Request-ID": "refused-by-quota"})
    assert_problem(refused, 429, "quota_exceeded")
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    assert client.get("/explanations/refused-by-quota").status == 404
    assert client.predict(rows[:30], query="").status == 200


def test_explaining_again_counts_too(client_of: Any, rows: list[Instance]) -> None:
    client = client_of("late")
    assert [client.predict(rows[:count]).status for count in (60, 1)] == [200, 429]
    request_id = client.predict(rows[:1], query="").json()["request_id"]
    body = json.dumps({"request_id": request_id}).encode()
    refused = client.request("POST", "/explanations", body, JSON)
    assert_problem(refused, 429, "quota_exceeded")
    assert client.get(f"/explanations/{request_id}/related").json()["items"] == []
    wait = int(refused.headers["retry-after"])
    assert wait >= 1
    wait_until(
        lambda: client.request("POST", "/explanations", body, JSON).status == 202, seconds=wait + 2
    )


def test_predictions_may_have_a_quota_and_repetitions_count(
    client_of: Any, rows: list[Instance]
) -> None:
    client = client_of("tiny")
    again = {"X-Request-ID": "repeated-1"}
    replies = [client.predict(rows[:1], query="", headers=again) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert replies[1].headers["idempotent-replay"] == "true"
    assert 1 <= int(replies[3].headers["retry-after"]) <= 20


def test_explanations_made_unasked_count_when_who_predicted_reads_them(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    content, keys = KeyFile(), {}
    for name, scopes in (("prober", ("predict", "explain")), ("auditor", ("audit",))):
        content, keys[name] = content.with_key(name, scopes, explain_per_minute=3)
    content.write(tmp_path / "keys.json")
    (tmp_path / "policy.toml").write_text("[default]\nrules = [{ explain = 'always' }]\n")
    files = {"api_keys_file": tmp_path / "keys.json", "policy_file": tmp_path / "policy.toml"}
    with live_app(tmp_path, registry=demo_registry, **files) as live:
        prober, auditor = (live.client(keys[name]) for name in ("prober", "auditor"))
        made = [unasked(prober, rows[n : n + 2]) for n in range(3)]
        assert prober.get(f"/explanations/{made[0]}").status == 200
        for part in ("", "/proof"):  # counted already
            assert prober.get(f"/explanations/{made[0]}{part}").status == 200
        for part in ("", "/events", "/proof"):
            refused = prober.get(f"/explanations/{made[1]}{part}")
            assert_problem(refused, 429, "quota_exceeded")
            assert int(refused.headers["retry-after"]) > 0
        assert prober.predict(rows[:1], query="").status == 200
        assert_problem(prober.predict(rows[:2]), 429, "quota_exceeded")
        for request_id in made:
            assert auditor.get(f"/explanations/{request_id}").status == 200


def unasked(client: Client, rows: list[Instance]) -> str:
    """The ID of the record that policy has made of a prediction."""
    request_id = client.predict(rows, query="").headers["x-request-id"]
    (item,) = client.get(f"/explanations/{request_id}/related").json()["items"]
    wait_until(lambda: client.get(f"/explanations/{request_id}/proof").status == 200)
    return str(item["request_id"])


def test_without_keys_nothing_is_limited(
    tmp_path: Path, demo_registry: Path, rows: list[Instance]
) -> None:
    settings = {"explain_quota_per_minute": 1, "predict_quota_per_minute": 1}
    with live_app(tmp_path, registry=demo_registry, **settings) as live:
        assert [live.client().predict(rows[:9]).status for _ in range(3)] == [200] * 3
