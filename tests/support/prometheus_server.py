"""A real Prometheus over pages of metrics, with the rules of the service and shorter windows."""

import json
import math
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import wait_until

from scripts.monitoring.definitions import Clock, Latency, load
from scripts.monitoring.files import shortened_rules

FACTOR = 1 / 12
"""5m is 25 s: a worker gives a sign each second, and 1m must stay well over that."""

CLOCK = Clock(FACTOR)
SCRAPE_SECONDS = 1.0
REQUIRED = "EXPLAIND_TEST_TOOLS"
QUEUE_AGE = 'explain_queue_oldest_job_age_seconds{queue="high"}'


def binary(name: str, package: str = "prometheus") -> str:
    """Where a program of a Debian package is. Without it the test is skipped, but where
    EXPLAIND_TEST_TOOLS is `required` it fails.
    """
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is missing: apt-get install {package}"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@dataclass(frozen=True)
class Prometheus:
    url: str
    log: Path
    began: float = field(default_factory=time.time)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an instant query gives now: labels and value of each series."""
        asked = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as reply:
                data = json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def alerts(self, state: str = "firing") -> set[str]:
        """Names of the alerts that have been in that state, if for a moment, since it began."""
        window = f"{math.ceil(1000 * (time.time() - self.began))}ms"
        expression = f'last_over_time(ALERTS{{alertstate="{state}"}}[{window}])'
        return {labels["alertname"] for labels, _ in self.query(expression)}

    def failing_rules(self) -> list[str]:
        """What rules say that could not be evaluated."""
        with urllib.request.urlopen(f"{self.url}/api/v1/rules", timeout=10) as reply:
            groups = json.load(reply)["data"]["groups"]
        return [rule["lastError"] for g in groups for rule in g["rules"] if rule.get("lastError")]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False


def configured(directory: Path, jobs: Mapping[str, str]) -> Path:
    """Its configuration file. jobs: the URL of each job's page."""
    rules = directory / "rules.yml"
    rules.write_text(shortened_rules(load(), FACTOR))
    every = f"{SCRAPE_SECONDS:g}s"
    scraped: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        for job, url in jobs.items()
    ]
    times = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    file = directory / "prometheus.yml"
    file.write_text(
        yaml.safe_dump({"global": times, "rule_files": [str(rules)], "scrape_configs": scraped})
    )
    return file


@contextmanager
def running_prometheus(directory: Path, jobs: Mapping[str, str]) -> Iterator[Prometheus]:
    """One that scrapes these pages each second; gone afterwards."""
    program = binary("prometheus")
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configured(directory, jobs)}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}", log)
        wait_until(lambda: prometheus.is_ready() or process.poll() is not None, seconds=30)
        assert process.poll() is None, log.read_text()
        wait_until(lambda: sees(prometheus, jobs), seconds=30)
        yield replace(prometheus, began=time.time())
        assert prometheus.failing_rules() == []
    finally:
        process.kill()
        process.wait()


def sees(prometheus: Prometheus, jobs: Mapping[str, str]) -> bool:
    """Every page was scraped, and the rules have noticed."""
    up = {labels["job"] for labels, value in prometheus.query("up") if value}
    return up == set(jobs) and not prometheus.query('ALERTS{alertname="ExplaindMetricsAbsent"}')


def nothing_queued(url: str) -> bool:
    """By a service's own page, which is of a second ago: it may still tell of a job that has ended,
    and how old that was.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    ages = [line.split() for line in lines if line.startswith(QUEUE_AGE)]
    assert ages, f"{url} says nothing of a queue"
    return all(float(age) == 0 for _, age in ages)


def seen_for(prometheus: Prometheus, seconds: float) -> None:
    """Let it evaluate its rules for that long."""
    ends = time.time() + seconds
    wait_until(lambda: newest(prometheus) >= ends, seconds=seconds + 30)


def newest(prometheus: Prometheus) -> float:
    """When a page was last scraped."""
    found = prometheus.query("max(timestamp(up))")
    return found[0][1] if found else 0.0


@dataclass
class Stopwatch:
    """How long answers took, by clients' own clocks."""

    took: list[tuple[float, float]] = field(default_factory=list)
    """When asked, and the seconds until the answer."""

    @contextmanager
    def timing(self) -> Iterator[None]:
        asked = time.monotonic()
        yield
        self.took.append((asked, time.monotonic() - asked))

    def worst(self, within_seconds: float) -> float:
        """The largest share of answers in one second that took longer than that."""
        late: dict[int, list[bool]] = defaultdict(list)
        for asked, seconds in self.took:
            late[int(asked)].append(seconds > within_seconds)
        return max((sum(found) / len(found) for found in late.values()), default=0.0)


def slow_by(stopwatch: Stopwatch) -> set[str]:
    """Alerts on latencies that clients themselves saw: a busy machine is no false alarm."""
    return {
        promise.alert
        for promise in load().promises
        if isinstance(promise.indicator, Latency)
        and stopwatch.worst(promise.indicator.within_seconds) > promise.budget
    }
