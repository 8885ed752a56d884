"""A load drill: warm-up, ramp to the peak, steady load, a burst of 20 times that, recovery.

    .venv/bin/python tests/benchmarks/load_drill.py [--out FOLDER] [--burst-seconds 10]

The real service with its own queue and worker has the first core; mixed traffic is sent from the
second, on schedule whether answers come or not, and /livez is probed from a third process. Writes
report.md, figures.json and plots (SVG) to the folder. Exit code 1 when a target was missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

import load_report
import machine
import models
import uvloop
from load_report import Drill, Step
from load_traffic import EXPLAIN, LIST, METRICS, PREDICT, QUEUED, Mix, Traffic, get, post
from processes import Serving, running
from targets import verdict

TREES, NETWORK = "trees", "network"
ROWS = 500
BACKLOG = "explain_audit_backlog_records{"
PROBE_PERIOD_SECONDS = 0.04
MOST_SETTLING_SECONDS = 20.0
SETTLING_PERIOD_SECONDS = 0.25
FIRST_RATE = 300.0
RAMP_FACTOR = 1.3
RAMP_STEPS = 14
LAST_STEPS = 2
PEAK_SHARE = 0.85
"""Two steps in turn whose goodput is below this share of what was sent end the ramp: one may be
low because something else had the machine.
"""


@dataclass(frozen=True)
class Plan:
    """How long each phase is, and the rates as shares of what the ramp found."""

    warm_up_seconds: float = 4.0
    step_seconds: float = 1.5
    steady_seconds: float = 6.0
    burst_seconds: float = 10.0
    recovery_seconds: float = 8.0
    steady_share: float = 0.1
    burst_times: float = 20.0
    first_rate: float = FIRST_RATE


SHORT = Plan(
    warm_up_seconds=1.0,
    step_seconds=0.7,
    steady_seconds=2.0,
    burst_seconds=3.0,
    recovery_seconds=4.0,
    first_rate=500.0,
)


def main() -> int:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this drill needs two cores: one for the service, one for what loads it")
    with tempfile.TemporaryDirectory(prefix="explaind-drill-") as name:
        mix = set_up(Path(name))
        os.sched_setaffinity(0, {cores[0]})  # the service inherits it
        with serving(Path(name)) as server:
            os.sched_setaffinity(0, {cores[-1]})
            drill = run(server, mix, _plan(options))
        drill.lost = load_report.lost_records(Path(name) / "evidence.db", drill.sent)
    facts = f"{machine.facts()}; {machine.load()} after the drill"
    load_report.write(options.out, drill, facts)
    print(load_report.summary(drill))
    print(f"{options.out / 'report.md'} and figures.json, plots beside it")
    return verdict(load_report.targets(drill))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--burst-seconds", type=float, default=Plan.burst_seconds)
    parser.add_argument(
        "--steady-share", type=float, default=Plan.steady_share, help="steady rate, of the peak"
    )
    parser.add_argument("--short", action="store_true", help="short phases, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("load-drill"), help="folder of the report")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    if options.short:
        return SHORT
    return Plan(burst_seconds=options.burst_seconds, steady_share=options.steady_share)


def set_up(data_dir: Path) -> Mix:
    """Register a model that explains inline and one that a worker explains; what to send them."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from service.registry import Registry

    registry = Registry(data_dir / "registry")
    X, y = models.table()
    registry.register(TREES, models.xgboost_model(X, y), X, y)
    few = X.iloc[:, :12]
    network = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=60, random_state=0))
    registry.register(NETWORK, network.fit(few, y), few, y)
    rows = models.varied_rows(X, ROWS).tolist()
    named = [dict(zip(X.columns, row, strict=True)) for row in rows]
    bodies = [json.dumps({"instances": [row]}).encode() for row in named]
    fewer = [
        json.dumps({"instances": [{name: row[name] for name in few.columns}]}).encode()
        for row in named
    ]
    return Mix(
        {
            PREDICT: [post(f"/models/{TREES}/predict", body) for body in bodies],
            EXPLAIN: [post(f"/models/{TREES}/predict?explain=true", body) for body in bodies],
            QUEUED: [post(f"/models/{NETWORK}/predict?explain=true", body) for body in fewer],
            LIST: [get("/explanations?limit=20")],
            METRICS: [get("/metrics")],
        }
    )


@contextmanager
def serving(data_dir: Path) -> Iterator[Serving]:
    """The service as it is deployed, with its own queue and worker."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(data_dir)]
    with running(command, environment={}, log=data_dir / "serve.log") as server:
        yield server


def run(server: Serving, mix: Mix, plan: Plan) -> Drill:
    """All phases against a server that runs."""
    with _probing(server.url) as probes:
        drill = uvloop.run(_phases(server, mix, plan))
        drill.is_ready, drill.backlog = _health(server.url)
    drill.probes = [(due, seconds, status) for due, seconds, status in probes]
    return drill


@contextmanager
def _probing(url: str) -> Iterator[list[tuple[float, float, int]]]:
    """Probes of /livez meanwhile; the list is filled at the end."""
    program = Path(__file__).with_name("load_probe.py")
    found: list[tuple[float, float, int]] = []
    command = [sys.executable, str(program), url, str(PROBE_PERIOD_SECONDS)]
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as process:
            yield found  # leaving closes its standard input, which ends it
        output.seek(0)
        assert process.returncode == 0, "the prober failed"
        found += [(due, seconds, status) for due, seconds, status in map(json.loads, output)]


def _health(url: str) -> tuple[bool, float]:
    """Whether the service is ready, and how many records wait for the evidence store or for their
    place in the log: in the end, as the worker still ends what was queued.
    """
    with urlopen(url + "/readyz", timeout=10) as reply:
        is_ready = reply.status == HTTPStatus.OK
    until = monotonic() + MOST_SETTLING_SECONDS
    while (backlog := _backlog(url)) and monotonic() < until:
        sleep(SETTLING_PERIOD_SECONDS)
    return is_ready, backlog


def _backlog(url: str) -> float:
    with urlopen(url + "/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(BACKLOG))


@dataclass
class _Stage:
    """The phases so far."""

    server: Serving
    traffic: Traffic
    drill: Drill = field(default_factory=Drill)

    async def phase(self, name: str, *, per_second: float, seconds: float) -> None:
        """Send, and note when; it ends with its schedule, not with its answers."""
        began, before = monotonic(), self._cpu_seconds()
        await self.traffic.send(name, per_second=per_second, seconds=seconds)
        self.drill.spans[name] = (began, monotonic())
        self.drill.cpu_seconds[name] = self._cpu_seconds() - before

    def _cpu_seconds(self) -> float:
        """Of the service's own process, not of its queue and worker."""
        return sum(self.server.cpu_seconds_by_thread().values())

    async def ramp(self, plan: Plan) -> None:
        """Raise the rate until the goodput stays behind it."""
        rate, began, bad = plan.first_rate, monotonic(), 0
        for _ in range(RAMP_STEPS):
            sent = await self.traffic.send("ramp", per_second=rate, seconds=plan.step_seconds)
            await self.traffic.settle()
            good = sum(map(load_report.is_good, sent)) / plan.step_seconds
            self.drill.steps.append(Step(rate, good))
            bad = bad + 1 if good < PEAK_SHARE * rate else 0
            if bad == LAST_STEPS:
                break
            rate *= RAMP_FACTOR
        self.drill.spans["ramp"] = (began, monotonic())


async def _phases(server: Serving, mix: Mix, plan: Plan) -> Drill:
    traffic = Traffic(server.url, mix)
    stage = _Stage(server, traffic)
    await traffic.send("first", per_second=20, seconds=0.5)
    await stage.phase("warm-up", per_second=plan.first_rate / 2, seconds=plan.warm_up_seconds)
    await traffic.settle()
    await stage.ramp(plan)
    steady = plan.steady_share * stage.drill.peak
    await stage.phase("steady", per_second=steady, seconds=plan.steady_seconds)
    burst = steady * plan.burst_times
    await stage.phase("burst", per_second=burst, seconds=plan.burst_seconds)
    await stage.phase("recovery", per_second=steady, seconds=plan.recovery_seconds)
    await traffic.settle()
    traffic.close()
    stage.drill.sent = traffic.sent
    return stage.drill


if __name__ == "__main__":
    sys.exit(main())
