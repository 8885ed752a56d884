"""Models that are only called, on real data, explained through the service's own queue."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
from called_families import CALLED, LARGER_CALLED
from later import Stream
from live_app import LiveApp, live_app
from prometheus_client.parser import text_string_to_metric_families
from servers import JSON, Client, wait_until
from tables import instances_of

from service.registry import Registry
from service.registry.work import Options

SMALL = ("mixed_catboost", "pca")
LONG = {"Prefer": "wait=30"}
CLIENTS, REQUESTS = 32, 2000
NAMES = [
    *SMALL,
    *(pytest.param(name, marks=pytest.mark.extra_data) for name in LARGER_CALLED),
]

Instances = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def instances() -> Instances:
    """Rows of each model that was registered."""
    return {}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, instances: Instances) -> Iterator[LiveApp]:
    data_dir = tmp_path_factory.mktemp("queued")
    registry = Registry(data_dir / "registry")
    larger = LARGER_CALLED if os.environ.get("EXPLAIND_TEST_DATA") else {}
    for name, make in {**{name: CALLED[name] for name in SMALL}, **larger}.items():
        family = make()
        registry.register(name, family.model, family.X, family.y, options=Options(**family.options))
        instances[name] = instances_of(family.X.iloc[:40])
    with live_app(data_dir, embedded_workers=1) as live:
        yield live


@pytest.fixture
def client(live: LiveApp) -> Client:
    return live.client()


def explained(
    client: Client, name: str, rows: list[dict[str, Any]], **headers: str
) -> dict[str, Any]:
    reply = client.predict(rows, path=f"/models/{name}/predict", headers={**LONG, **headers})
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_each_is_explained_in_the_answer_or_after_it(
    client: Client, instances: Instances, name: str
) -> None:
    rows = instances[name][:2]
    answer = explained(client, name, rows)
    explanation = answer["explanation"]
    assert (explanation["status"], explanation["lane"]) == ("complete", "queued"), explanation
    assert explanation["exact"] == (explanation["seed"] is None)
    values = np.array(explanation["values"])
    sums = np.array(explanation["base_values"]) + values.sum(axis=1)
    assert np.allclose(sums, explanation["outputs"], rtol=1e-5)
    if not explanation["exact"]:
        assert np.array(explanation["standard_errors"]).shape == values.shape
        assert np.max(explanation["standard_errors"]) > 0
    later = explained(client, name, rows, Prefer="respond-async")
    assert later["explanation"]["status"] == "pending"
    assert later["predictions"] == answer["predictions"]
    place = later["explanation"]["links"]["self"]
    record = client.get(place, Prefer="wait=30").json()["explanation"]
    assert record["values"] == explanation["values"]
    events = client.get(place + "/events").body
    kind, data = events.strip().rpartition(b"event: ")[2].split(b"\ndata: ")
    assert kind == b"complete"
    assert orjson.loads(data)["values"] == explanation["values"]


@pytest.mark.parametrize("name", NAMES)
def test_the_record_computed_again_gives_the_same_bytes(
    client: Client, instances: Instances, name: str
) -> None:
    answer = explained(client, name, instances[name][7:9])
    path = f"/explanations/{answer['request_id']}/replay"
    report = client.request("POST", path, b"", dict(JSON)).json()
    assert report["equal"], report
    assert report["explanation"]["equal"]


@pytest.mark.parametrize("name", NAMES)
def test_alone_in_a_batch_and_again_the_values_are_the_same_bytes(
    client: Client, instances: Instances, name: str
) -> None:
    rows = instances[name][3:6]
    together = explained(client, name, rows)
    alone = explained(client, name, rows[1:2])
    for part in ("values", "base_values", "standard_errors", "seed"):
        of_three, of_one = together["explanation"][part], alone["explanation"][part]
        assert of_one is None if of_three is None else of_three[1:2] == of_one, part
    asked = orjson.dumps({"request_id": alone["request_id"]})
    again = client.request("POST", "/explanations", asked, dict(JSON))
    assert again.status == 202, again.body
    record = client.get(again.headers["location"], Prefer="wait=30").json()["explanation"]
    for part in ("values", "base_values", "standard_errors", "seed", "outputs", "top"):
        assert record[part] == alone["explanation"][part], part


def test_a_repetition_gets_the_first_answer_whether_it_was_final_or_not(
    client: Client, instances: Instances
) -> None:
    rows = instances["pca"][:1]
    for prefer, status in (("wait=30", "complete"), ("respond-async", "pending")):
        headers = {"Prefer": prefer, "X-Request-ID": f"repeated-{status}"}
        first = client.predict(rows, path="/models/pca/predict", headers=headers)
        assert first.json()["explanation"]["status"] == status
        client.get(f"/explanations/repeated-{status}", Prefer="wait=30")
        second = client.predict(rows, path="/models/pca/predict", headers=headers)
        assert second.headers["idempotent-replay"] == "true"
        assert second.body == first.body


METHODS = {
    "permutation": "values",
    "kernel": "values",
    "exact": "values",
    "interactions": "interactions",
    "lime": "local_model",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_past_prediction_is_explained_by_any_method(
    client: Client, instances: Instances, method: str
) -> None:
    first = explained(client, "mixed_catboost", instances["mixed_catboost"][:1])
    asked = orjson.dumps({"request_id": first["request_id"], "method": method})
    reply = client.request("POST", "/explanations", asked, dict(JSON))
    assert reply.status == 202, reply.body
    record = client.get(reply.headers["location"], Prefer="wait=30").json()
    explanation = record["explanation"]
    assert (explanation["status"], explanation["method"]) == ("complete", method), explanation
    assert explanation[METHODS[method]] is not None
    assert (explanation["values"] is None) == (method == "lime")
    if method in ("permutation", "kernel"):
        gap = np.abs(np.array(explanation["values"]) - first["explanation"]["values"])
        assert np.all(gap <= 5 * np.array(explanation["standard_errors"]) + 1e-9)
    if method == "interactions":
        pairs = np.array(explanation["interactions"]["values"])
        assert np.allclose(pairs.sum(axis=2), explanation["values"], atol=1e-9)
    assert record["predictions"] == first["predictions"]


@pytest.mark.drill
def test_a_job_called_off_makes_way_for_the_next(
    live: LiveApp, client: Client, instances: Instances
) -> None:
    rows = (instances["pca"] * 25)[:1000]
    long = explained(client, "pca", rows, Prefer="respond-async")
    place = long["explanation"]["links"]["self"]
    with Stream(live, place) as stream:
        while b"event: progress" not in stream.response.readline():
            pass
    cancelled = client.request("POST", place + "/cancel", b"", dict(JSON))
    assert cancelled.status == 202, cancelled.body
    after = explained(client, "pca", rows[:1])["explanation"]
    assert after["status"] == "complete", "the cancelled job kept the only worker"
    record = client.get(place).json()["explanation"]
    assert (record["status"], record["reason"]) == ("failed", "cancelled by local")


def many_clients(live: LiveApp, rows: list[dict[str, Any]], *, clients: int, requests: int) -> int:
    """How many explanations asked for at once differ from what was answered before, one by one.

    A queue that answers late, as clients in the service's own process may make it, leaves some
    pending for a while; most are in their answers.
    """
    late: list[str] = []
    alone = live.client()
    expected = [explained(alone, "pca", [row])["explanation"]["values"] for row in rows]

    def ask(turn: int) -> int:
        own = live.client()
        different = 0
        for number in range(turn, requests, clients):
            place = number % len(rows)
            found = explained(own, "pca", [rows[place]])["explanation"]
            if found["status"] == "pending":
                link = found["links"]["self"]
                late.append(link)
                found = own.get(link, **LONG).json()["explanation"]
            different += found["status"] != "complete" or found["values"] != expected[place]
        return different

    with ThreadPoolExecutor(clients) as pool:
        different = sum(pool.map(ask, range(clients)))
    assert len(late) <= requests // 4
    return different


@pytest.mark.small_version_of("test_many_concurrent_clients_get_what_one_gets")
def test_concurrent_clients_get_what_one_gets(live: LiveApp, instances: Instances) -> None:
    assert many_clients(live, instances["pca"], clients=8, requests=80) == 0


@pytest.mark.drill
def test_many_concurrent_clients_get_what_one_gets(live: LiveApp, instances: Instances) -> None:
    scale = float(os.environ.get("EXPLAIND_DRILL_SCALE", "1"))
    requests = int(REQUESTS * scale)
    assert many_clients(live, instances["pca"], clients=CLIENTS, requests=requests) == 0


def test_the_latency_of_a_queued_explanation_leads_to_its_trace(
    client: Client, instances: Instances
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    explained(client, "pca", instances["pca"][:1], traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    def is_shown() -> bool:
        page = client.get("/metrics", Accept="application/openmetrics-text").body.decode()
        lines = (line for line in page.splitlines() if trace in line)
        return any('lane="queued"' in line and 'model="pca"' in line for line in lines)

    wait_until(is_shown)


WORKERS = {
    "explain_queue_wait_seconds": ("histogram", "queue"),
    "explain_job_duration_seconds": ("histogram", "queue"),
    "explain_jobs": ("counter", "outcome queue"),
    "explain_worker_last_heartbeat_timestamp_seconds": ("gauge", "queue"),
}


def test_the_page_has_the_series_of_the_services_own_worker(
    client: Client, instances: Instances
) -> None:
    explained(client, "pca", instances["pca"][:1])

    def found() -> dict[str, tuple[str, str]]:
        page = client.get("/metrics").body.decode()
        return {
            family.name: (
                family.type,
                " ".join(sorted({name for s in family.samples for name in s.labels} - {"le"})),
            )
            for family in text_string_to_metric_families(page)
        }

    wait_until(lambda: found().items() >= WORKERS.items())
