"""What evidence costs a prediction with its explanation: required, best effort and a store that
keeps nothing; encrypted and not.

    .venv/bin/python tests/benchmarks/evidence_modes.py [--seconds 4] [--connections 1 16]

All servers run at once on the first core and are loaded in turn from the second, so that what
else the machine does meets them alike; the baseline is the store that keeps nothing, unencrypted.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import machine
import null_store
import serving
import wrk
from processes import Serving, running

BASELINE = "null store"
POLICIES = {"best effort": '[default]\nevidence = "best_effort"\n'}
MODES = (BASELINE, "best effort", "required")
ENCRYPTION = {"encrypted": "true", "in clear": "false"}
WARM_UP_SECONDS = 1

Key = tuple[str, str]
"""Mode and encryption."""


def main() -> None:
    options = _options()
    wrk.check_installed()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores: one for the servers, one for wrk")
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-modes-", dir=options.directory) as name:
        folder = Path(name)
        stage = serving.set_up(folder, cores[-1], options)
        os.sched_setaffinity(0, {cores[0]})
        print(machine.Disk.of(folder))
        with _servers(folder) as servers:
            figures = _measure(stage, servers, options)
    _print(figures)
    print(machine.load())
    if options.json:
        rows = [[*key, *figure] for key, figure in figures.items()]
        Path(options.json).write_text(json.dumps(rows, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4, help="length of each run")
    parser.add_argument("--rounds", type=int, default=3, help="medians are kept")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--directory", help="where the databases lie (default: TMPDIR)")
    parser.add_argument("--json", help="write every figure to this file as well")
    return parser.parse_args()


@contextmanager
def _servers(folder: Path) -> Iterator[dict[Key, Serving]]:
    with ExitStack() as stack:
        yield {
            (mode, encryption): stack.enter_context(_server(folder, mode, encryption))
            for encryption in ENCRYPTION
            for mode in MODES
        }


@contextmanager
def _server(folder: Path, mode: str, encryption: str) -> Iterator[Serving]:
    place = folder / f"{mode}-{encryption}".replace(" ", "-")
    place.mkdir()
    environment = {
        "EXPLAIND_REGISTRY": str(folder / "registry"),
        "EXPLAIND_ENCRYPTION": ENCRYPTION[encryption],
    }
    if mode in POLICIES:
        (place / "policy.toml").write_text(POLICIES[mode])
        environment["EXPLAIND_POLICY_FILE"] = str(place / "policy.toml")
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    if mode == BASELINE:
        command = [sys.executable, null_store.__file__]
    command += ["--data-dir", str(place)]
    with running(command, environment=environment, log=place / "log") as server:
        yield server


Figure = tuple[float, float, float]
"""Requests a second, p50 in ms, CPU microseconds a request."""


def _measure(
    stage: serving.Stage, servers: Mapping[Key, Serving], options: argparse.Namespace
) -> dict[tuple[int, str, str], Figure]:
    runs: dict[tuple[int, str, str], list[Figure]] = {}
    for number in range(1, options.rounds + 1):
        print(f"   round {number} of {options.rounds}", file=sys.stderr)
        for connections in options.connections:
            for key, server in servers.items():
                figure = _run(stage, server, connections, options.seconds)
                runs.setdefault((connections, *key), []).append(figure)
    return {key: _median(figures) for key, figures in runs.items()}


def _run(stage: serving.Stage, server: Serving, connections: int, seconds: int) -> Figure:
    for length in (WARM_UP_SECONDS, seconds):
        before = server.cpu_seconds()
        load = wrk.run(
            server.url + serving.PATHS["predict+explain"],
            stage.scripts[serving.OURS],
            connections=connections,
            seconds=length,
            core=stage.core_of_wrk,
        )
    if load.failures:
        sys.exit(f"{load.failures} requests failed")
    cpu = (server.cpu_seconds() - before) / max(load.requests, 1) * 1e6
    return load.requests_per_second, load.p50_milliseconds, cpu


def _median(figures: list[Figure]) -> Figure:
    rates, halves, cpus = zip(*figures, strict=True)
    return statistics.median(rates), statistics.median(halves), statistics.median(cpus)


def _print(figures: Mapping[tuple[int, str, str], Figure]) -> None:
    print("\nconn  evidence     payload      req/s   p50 ms  CPU us/req  x CPU of the baseline")
    for (connections, mode, encryption), (rate, p50, cpu) in sorted(figures.items()):
        baseline = figures[connections, BASELINE, "in clear"][2]
        print(
            f"{connections:>4}  {mode:<12} {encryption:<10} {rate:>7.0f} {p50:>8.2f} {cpu:>11.0f}"
            f" {cpu / baseline:>22.2f}"
        )


if __name__ == "__main__":
    main()
