"""What the policy file does to requests: explained unasked, never, decided by threshold."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from live_app import LiveApp, live_app
from policies import TUMOUR_RULES
from problems import assert_problem
from servers import JSON, Client, Reply, wait_until
from tables import breast_cancer, instances_of
from valkey_server import Valkey, running_valkey

from service.storing import evidence_store

Instance = dict[str, Any]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, demo_registry: Path, valkey: Valkey
) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("policy")
    shutil.copytree(demo_registry, data_dir / "registry")
    (data_dir / "policy.toml").write_text(TUMOUR_RULES)
    settings = {"policy_file": data_dir / "policy.toml", "redis_url": valkey.url}
    with live_app(data_dir, **settings) as live:
        yield live


@pytest.fixture
def client(live: LiveApp) -> Iterator[Client]:
    client = live.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def instance() -> Instance:
    return instances_of(breast_cancer()[0].iloc[:1])[0]


STRANGE = """
[[default.rules]]
when = 'column("no such column") > 1'
explain = "never"
"""


def counted(client: Client, name: str) -> float:
    """The sum of a counter over its labels."""
    lines = client.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def predict(client: Client, *instances: Instance, explain: bool = False, **headers: str) -> Any:
    query = "?explain=true" if explain else ""
    return client.predict(list(instances), query=query, headers=headers).json()


def explained_again(client: Client, request_id: str) -> Reply:
    body = orjson.dumps({"request_id": request_id})
    return client.request("POST", "/explanations", body, JSON)


def listed(client: Client, **query: str) -> Sequence[Any]:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    items: Sequence[Any] = client.get(f"/explanations?{text}").json()["items"]
    return items


def test_each_prediction_has_its_decision(client: Client, instance: Instance) -> None:
    answer = predict(client, instance)
    expected = answer["predictions"][0]["probabilities"]["benign"] >= 0.9
    assert answer["predictions"][0]["decision"] == ("discharge" if expected else "look closer")


def test_what_policy_never_explains_is_skipped_and_not_wanted(
    client: Client, instance: Instance
) -> None:
    wanted = counted(client, "explain_explanations_wanted_total")
    small = {**instance, "mean radius": 9.0}
    explanation = predict(client, small, explain=True)["explanation"]
    assert explanation["status"] == "skipped"
    assert "'small'" in explanation["reason"]
    assert counted(client, "explain_explanations_wanted_total") == wanted
    assert predict(client, instance, explain=True)["explanation"]["status"] == "complete"
    assert counted(client, "explain_explanations_wanted_total") == wanted + 1


def test_what_policy_never_explains_is_not_explained_later_either(
    client: Client, instance: Instance
) -> None:
    small = {**instance, "mean radius": 9.0}
    never = [predict(client, small, explain=explain)["request_id"] for explain in (True, False)]
    for request_id in never:
        reply = explained_again(client, request_id)
        problem = assert_problem(reply, 422, "invalid_content")
        assert problem["errors"][0]["code"] == "policy_forbids"
        assert "'small'" in problem["errors"][0]["detail"]
    allowed = predict(client, instance)["request_id"]
    again = explained_again(client, allowed)
    assert again.status == 202
    cancelled = client.request("POST", again.headers["location"] + "/cancel", b"", JSON)
    assert cancelled.status == 202  # nothing is left pending here


def test_in_one_batch_policy_leaves_gaps(client: Client, live: LiveApp, instance: Instance) -> None:
    """Concurrent requests of which some may not be explained: the others' values are their own."""
    radii = [9.0, 15.0, 9.5, 16.0, 14.0, 8.0] * 4
    alone = {
        r: predict(client, {**instance, "mean radius": r}, explain=True)["explanation"]["values"]
        for r in set(radii)
    }
    found: dict[int, Any] = {}

    def ask(number: int, radius: float) -> None:
        own = live.client()
        found[number] = predict(own, {**instance, "mean radius": radius}, explain=True)
        own.close()

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(radii)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, radius in enumerate(radii):
        assert found[number]["explanation"]["values"] == alone[radius]
        assert (alone[radius] is None) == (radius < 10)


def test_an_explanation_nobody_asked_for_is_a_pending_record_of_its_own(
    client: Client, valkey: Valkey, instance: Instance
) -> None:
    wanted = counted(client, "explain_explanations_wanted_total")
    large = {**instance, "mean radius": 21.0}
    answer = predict(client, large, **{"X-Request-ID": "unasked-one"})
    assert answer["explanation"] is None
    again = client.predict([large], query="", headers={"X-Request-ID": "unasked-one"})
    assert again.headers["idempotent-replay"] == "true"
    (unasked,) = [item for item in listed(client, status="pending") if item["lane"] == "queued"]
    record = client.get(f"/explanations/{unasked['request_id']}").json()
    assert record["explanation"]["status"] == "pending"
    assert record["instances"][0]["mean radius"] == 21.0
    assert counted(client, "explain_explanations_wanted_total") == wanted + 1
    with valkey.client() as redis:
        wait_until(lambda: redis.xlen("explaind:jobs:low") == 1)
        entry = redis.xrange("explaind:jobs:low")[0][1]
    assert unasked["request_id"].encode() in b"".join(entry.values())
    assert b"21.0" not in b"".join(entry.values())


def test_a_refused_request_leaves_no_explanation_behind(client: Client, instance: Instance) -> None:
    predict(client, instance, **{"X-Request-ID": "refused-one"})
    before = len(listed(client, limit="200"))
    large = {**instance, "mean radius": 23.0}
    refused = client.predict([large], query="", headers={"X-Request-ID": "refused-one"})
    assert_problem(refused, 409, "request_id_conflict")
    assert len(listed(client, limit="200")) == before


def test_an_asked_explanation_is_made_once(client: Client, instance: Instance) -> None:
    before = len(listed(client, limit="200"))
    large = {**instance, "mean radius": 22.0}
    assert predict(client, large, explain=True)["explanation"]["status"] == "complete"
    assert len(listed(client, limit="200")) == before + 1


def test_a_changed_file_counts_and_a_broken_one_does_not(
    tmp_path: Path, demo_registry: Path, instance: Instance
) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    path = tmp_path / "policy.toml"
    path.write_text(TUMOUR_RULES)
    small = {**instance, "mean radius": 9.0}
    with live_app(tmp_path, policy_file=path) as live:
        client = live.client()

        def status() -> Any:
            return predict(client, small, explain=True)["explanation"]["status"]

        assert status() == "skipped"
        follower = live.runtime.models._policies._follower  # type: ignore[union-attr]
        for broken in (STRANGE, "not [ TOML"):
            path.write_text(broken)
            wait_until(lambda: follower._stamp == follower._stamp_now())
            assert status() == "skipped"
        path.write_text('[[default.rules]]\nexplain = "when_asked"\n')
        wait_until(lambda: status() == "complete")


def test_a_file_that_does_not_fit_a_model_refuses_it(tmp_path: Path, demo_registry: Path) -> None:
    shutil.copytree(demo_registry, tmp_path / "registry")
    path = tmp_path / "policy.toml"
    path.write_text(STRANGE)
    with live_app(tmp_path, policy_file=path) as live:
        assert "breast_cancer" in live.runtime.models.refused


def test_the_record_says_what_policy_decided(
    client: Client, live: LiveApp, instance: Instance
) -> None:
    answer = predict(client, instance)
    with evidence_store(live.runtime.settings) as store:
        found = store.get("default", answer["request_id"])
    assert found is not None
    policy = orjson.loads(found.part("policy"))
    assert 0 <= policy["u"] < 1
    assert policy["wants"] is False
    assert policy["version"] == orjson.loads(found.header)["policy_version"]
