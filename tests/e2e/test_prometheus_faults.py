"""Faults of the real service, each of which fires exactly its alert in a real Prometheus."""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faulty_parts import Customise, fails, with_explainer
from heavy_stack import Stack, Subject
from live_app import live_app
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_server import (
    CLOCK,
    SCRAPE_SECONDS,
    Prometheus,
    Stopwatch,
    nothing_queued,
    running_prometheus,
    seen_for,
    slow_by,
)
from servers import Client, start_server, wait_until
from small_disks import CAN_MOUNT, SmallDisk, start_on_small_disks
from steady_traffic import steady_traffic
from tables import breast_cancer, instances_of
from valkey_server import running_valkey

from explainers.base import Explanation

pytestmark = pytest.mark.drill

ROWS: list[dict[str, Any]] = instances_of(breast_cancer()[0].iloc[:40])
SLOW_SECONDS = 0.25
DEADLINE_SECONDS = 6.0
TURN_SECONDS = 1.0
"""Of the outbox, which counts what is late."""

FIRES_SECONDS = 60.0
WORKLESS = "[default]\ncanary = 0\n"
"""Where no worker runs: one that should do something and is silent is an alert."""


@dataclass
class Asking:
    """For one explanation at a time."""

    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __call__(self, client: Client, turn: int) -> None:
        with self.stopwatch.timing():
            client.predict([ROWS[turn % len(ROWS)]])


def slow(explanation: Explanation) -> Explanation:
    time.sleep(SLOW_SECONDS)
    return explanation


def assert_quiet(prometheus: Prometheus, asking: Asking) -> None:
    """No alert for a while, not even pending, but for what a slow machine causes."""
    seen_for(prometheus, 5)
    found = prometheus.alerts("pending") | prometheus.alerts()
    assert found - slow_by(asking.stopwatch) == set()


def assert_fires_alone(prometheus: Prometheus, name: str, asking: Asking) -> None:
    """That alert within a minute; in the time after it no other, not even for a moment."""
    wait_until(lambda: name in prometheus.alerts(), seconds=FIRES_SECONDS)
    seen_for(prometheus, CLOCK.seconds("1m") * 2)
    assert prometheus.alerts() - (slow_by(asking.stopwatch) - {name}) == {name}


@pytest.mark.parametrize(
    ("customise", "alert"),
    [
        pytest.param(with_explainer(slow), "ExplaindInlineLatency", id="slow"),
        pytest.param(with_explainer(fails), "ExplaindCoverageInline", id="failing"),
    ],
)
def test_a_broken_explainer_fires_its_alert_alone(
    tmp_path: Path, demo_registry: Path, customise: Customise, alert: str
) -> None:
    asking = Asking()
    with (
        live_app(tmp_path, registry=demo_registry, customise=customise) as app,
        steady_traffic(app.url, asking),
        running_prometheus(tmp_path / "prometheus", {"explaind-api": app.url}) as prometheus,
    ):
        assert_fires_alone(prometheus, alert, asking)


@contextmanager
def heavy_stack(folder: Path, registry: Path) -> Iterator[Stack]:
    """An API whose explanations are all queued, and a worker of its own."""
    subject = Subject(registry, "breast_cancer", ROWS, [])
    settings = {
        "EXPLANATION_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        "JOB_TIME_LIMIT_SECONDS": "100",
    }
    with running_valkey() as valkey, closing(Stack(folder, subject, valkey, settings)) as stack:
        stack.start_worker()
        stack.start_server()
        stack.send()  # the worker's child starts, and may have kernels to compile
        wait_until(lambda: stack.pending() == 0, seconds=110)
        wait_until(lambda: nothing_queued(stack.server.url), seconds=10)
        yield stack


def late(prometheus: Prometheus) -> float:
    """How many explanations have been counted as late."""
    found = prometheus.query('sum(explain_explanations_total{outcome="timeout"})')
    return sum(value for _, value in found)


def test_a_worker_killed_for_good_fires_its_alert_alone_and_shows_in_coverage(
    tmp_path: Path, demo_registry: Path
) -> None:
    asking = Asking()
    with heavy_stack(tmp_path, demo_registry) as stack:
        ((port, worker),) = stack.workers.items()
        pages = {"explaind-api": stack.server.url, "explaind-worker": f"http://127.0.0.1:{port}"}
        with (
            steady_traffic(stack.server.url, asking, clients=1),
            running_prometheus(tmp_path / "prometheus", pages) as prometheus,
        ):
            assert_quiet(prometheus, asking)
            before = late(prometheus)
            worker.kill()
            killed = time.monotonic()
            wait_until(lambda: late(prometheus) > before, seconds=30)
            seconds = time.monotonic() - killed
            print(f"in coverage {seconds:.1f} s after the kill")
            assert seconds < DEADLINE_SECONDS + TURN_SECONDS + 2 * SCRAPE_SECONDS + 1
            assert_fires_alone(prometheus, "ExplaindWorkerSilent", asking)
            share = prometheus.query('slo:sli_error:ratio_rate5m{sloth_slo="coverage-queued"}')
            assert share[0][1] > 0


@pytest.mark.skipif(not CAN_MOUNT, reason="no mounts of one's own here")
def test_a_full_store_fires_its_alert_alone(tmp_path: Path, two_models: Path) -> None:
    asking = Asking()
    shutil.copytree(two_models, tmp_path / "registry")
    (tmp_path / "policy.toml").write_text(WORKLESS)
    server = start_on_small_disks(tmp_path, "--model", "breast_cancer")
    try:
        with (
            steady_traffic(server.url, asking),
            running_prometheus(tmp_path / "prometheus", {"explaind-api": server.url}) as prometheus,
        ):
            assert_quiet(prometheus, asking)
            SmallDisk(server, tmp_path, "small").fill()
            assert_fires_alone(prometheus, "ExplaindEvidenceDurability", asking)
    finally:
        server.close()


def test_drift_fires_its_alert_alone(data_dir: Path) -> None:
    """The gauge stands on a page of its own, as another replica's would."""
    asking, registry = Asking(), CollectorRegistry()
    alarm = Gauge("explain_drift_alarm", "-", ("model", "kind", "feature"), registry=registry)
    alarm.labels("breast_cancer", "feature", "mean area").set(0)
    page, thread = start_http_server(0, "127.0.0.1", registry)
    server = start_server(data_dir)
    pages = {
        "explaind-api": server.url,
        "explaind-drift": f"http://127.0.0.1:{page.server_port}",
    }
    try:
        with (
            steady_traffic(server.url, asking, clients=1),
            running_prometheus(data_dir / "prometheus", pages) as prometheus,
        ):
            assert_quiet(prometheus, asking)
            alarm.labels("breast_cancer", "feature", "mean area").set(1)
            assert_fires_alone(prometheus, "ExplaindDrift", asking)
    finally:
        server.close()
        page.shutdown()
        page.server_close()
        thread.join()
