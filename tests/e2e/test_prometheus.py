"""A real Prometheus over the real service: healthy traffic is quiet, and every panel has data."""

import math
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from observed import SLOW_TO_COME, families_in
from prometheus_server import (
    CLOCK,
    Prometheus,
    Stopwatch,
    nothing_queued,
    running_prometheus,
    seen_for,
    slow_by,
)
from servers import JSON, WITH_WORKER, Client, running_server, wait_until
from steady_traffic import steady_traffic
from tables import breast_cancer, instances_of

from scripts.monitoring.definitions import Dashboard, load
from service.registry import Registry

Instance = dict[str, Any]
POLICY = "[default]\ncanary = 0.2\n"
VARIABLES = {"$__rate_interval": "15s", "$__range": "1m", "$model": ".*"}
EVERY = 10
"""Turns between two explanations that are queued, and between two that are rated."""

STUCK = "ExplaindQueueStuck"
OLD_SECONDS = CLOCK.seconds("2m")
"""An age of the oldest job that this alert is about."""


def rows() -> list[Instance]:
    return instances_of(breast_cancer()[0].iloc[:200])


def costs_of(registry: Path) -> tuple[float, int]:
    """A budget in which one row is explained inline, and how many rows exceed it."""
    cost = Registry(registry).load("breast_cancer", 1).manifest.cost
    budget = 1.5 * cost.explain_row
    return budget, math.ceil(1.2 * budget / cost.explain_row_in_batch)


class Queued:
    """Queued explanations, one at a time, by the clock of the client that asked for them."""

    def __init__(self) -> None:
        self.place = ""
        self.asked = 0.0
        self.longest = 0.0

    def asks_for(self, request_id: str) -> None:
        self.place, self.asked = f"/explanations/{request_id}", time.monotonic()

    def is_answered(self, client: Client) -> bool:
        """Whether none is awaited."""
        if self.place:
            is_complete = status(client, self.place) == "complete"
            self.longest = max(self.longest, time.monotonic() - self.asked)
            self.place = "" if is_complete else self.place
        return not self.place

    def late(self) -> set[str]:
        """Alerts on the queue's age that the client itself saw: its job was that old."""
        return {STUCK} if self.longest > OLD_SECONDS else set()


class Traffic:
    """Explanations of both lanes, with ratings."""

    def __init__(self, many: int) -> None:
        self.stopwatch = Stopwatch()
        self.queued = Queued()
        self.one = rows()
        self.many = (self.one * math.ceil(many / len(self.one)))[:many]

    def __call__(self, client: Client, turn: int) -> str:
        is_queued = turn % EVERY == 0 and self.queued.is_answered(client)
        instances = self.many if is_queued else [self.one[turn % len(self.one)]]
        request_id = f"seen-{uuid.uuid4()}"
        if is_queued:
            self.queued.asks_for(request_id)
        with nullcontext() if is_queued else self.stopwatch.timing():
            reply = client.predict(instances, headers={"X-Request-ID": request_id})
        assert reply.status == 200, reply.body
        lane = reply.json()["explanation"]["lane"]
        assert lane == ("queued" if is_queued else "inline")
        if turn % EVERY == 1:
            body = b'{"rating": 4, "comment": "as expected"}'
            path = f"/explanations/{request_id}/feedback"
            assert client.request("POST", path, body, JSON).status == 204
        return request_id


@pytest.fixture(scope="module")
def observed(
    tmp_path_factory: pytest.TempPathFactory, demo_registry: Path
) -> Iterator[tuple[Traffic, Prometheus]]:
    """Both, after half a minute of healthy traffic that is still going on."""
    folder = tmp_path_factory.mktemp("observed")
    shutil.copytree(demo_registry, folder / "registry")
    (folder / "policy.toml").write_text(POLICY)
    budget, many = costs_of(folder / "registry")
    env = {
        **WITH_WORKER,
        "EXPLAIND_INLINE_BUDGET_SECONDS": str(budget),
        "EXPLAIND_JOB_TIME_LIMIT_SECONDS": "100",  # it may have kernels to compile
    }
    with running_server(folder, "--policy-file", str(folder / "policy.toml"), env=env) as server:
        traffic, client = Traffic(many), server.client()
        traffic(client, 0)  # the worker's child starts
        wait_until(lambda: traffic.queued.is_answered(client), seconds=110)
        wait_until(lambda: nothing_queued(server.url), seconds=10)
        traffic.queued = Queued()
        pages = {"explaind-api": server.url}
        with (
            steady_traffic(server.url, traffic),
            running_prometheus(folder / "prometheus", pages) as prometheus,
        ):
            seen_for(prometheus, 20)
            yield traffic, prometheus


def status(client: Client, place: str) -> str:
    return str(client.get(place).json()["explanation"]["status"])


@pytest.mark.drill
def test_healthy_traffic_raises_no_alert_not_even_for_a_moment(
    observed: tuple[Traffic, Prometheus],
) -> None:
    """But that latency is broken where clients themselves saw it: machines may be slow. There a
    worker's sign may be late for a moment, too, which is not yet an alert.
    """
    traffic, prometheus = observed
    found = prometheus.alerts("pending") - {"ExplaindWorkerSilent"} | prometheus.alerts("firing")
    slow = slow_by(traffic.stopwatch) | traffic.queued.late()
    longest = traffic.queued.longest
    print(f"slow by the clients' clocks: {slow or 'nothing'}; longest job {longest:.1f} s")
    assert found - slow == set()
    measured = {
        labels["sloth_slo"]: value
        for labels, value in prometheus.query("slo:sli_error:ratio_rate5m")
    }
    assert measured.keys() == {promise.name for promise in load().promises}
    assert measured["coverage-inline"] == measured["coverage-queued"] == 0


@pytest.mark.drill
@pytest.mark.parametrize("dashboard", load().dashboards, ids=lambda one: one.name)
def test_every_query_of_every_panel_returns_numbers(
    observed: tuple[Traffic, Prometheus], dashboard: Dashboard
) -> None:
    _, prometheus = observed
    measured = [
        (panel.title, query)
        for panel in dashboard.panels
        for query in panel.queries.values()
        if not families_in(query) & SLOW_TO_COME
    ]
    assert [title for title, query in measured if not has_numbers(prometheus, query)] == []


@pytest.mark.drill
@pytest.mark.parametrize("query", ['explain_model_info{model="none"}', "vector(0) / 0"])
def test_no_series_and_no_number_are_no_data(
    observed: tuple[Traffic, Prometheus], query: str
) -> None:
    _, prometheus = observed
    assert not has_numbers(prometheus, query)


def has_numbers(prometheus: Prometheus, query: str) -> bool:
    """With what Grafana puts in for its variables."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return any(math.isfinite(value) for _, value in prometheus.query(query))
