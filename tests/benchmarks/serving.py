"""Requests/s, latency and CPU of this service against the usual hand-written one, in one run.

    .venv/bin/python tests/benchmarks/serving.py [--seconds 5] [--connections 1 16 64] [--json FILE]

Servers share the first core, wrk has the second. Both sides serve the same XGBoost model (100
trees of depth 6, 30 columns) and get the same rows, every request another one. Exit code 1 when an
answer was wrong, a request failed, or a target was missed.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import baseline_app
import machine
import models
import numpy as np
import wrk
from processes import Serving, running
from targets import Target, verdict

FAST_DISK_MILLISECONDS = 0.15
ROWS = 2000
CHECKED_ROWS = 25
WARM_UP_SECONDS = 1
MEMORY = Path("/dev/shm")  # noqa: S108  # a file system without a disk is what is wanted
MEMORY_BYTES_NEEDED = 2 * 2**30
LARGEST_VALUE_GAP = 1e-4
LARGEST_PROBABILITY_GAP = 1e-6
OURS, USUAL, CHEAPER = "explaind", "usual", "usual, path-dependent"
PERTURBATIONS = {USUAL: "interventional", CHEAPER: "tree_path_dependent"}
EXPLAINED = ("predict+explain", OURS)
PATHS = {"predict": "/predict", "predict+explain": "/predict?explain=true"}
STORAGES = ("none", "durable")
PRAGMAS = ("journal_mode", "synchronous", "wal_autocheckpoint", "page_size")
MEANING = {
    "none": "no disk: explaind, whose evidence cannot be turned off, writes it to a database in "
    "memory (tmpfs); the usual service stores nothing",
    "durable": "durable: explaind commits its evidence to SQLite on the disk before it answers "
    "(concurrent requests share a commit); the usual service commits one SQLite row per request",
}


@dataclass(frozen=True)
class Cell:
    """Medians over the rounds of one side under one load."""

    storage: str
    operation: str
    connections: int
    side: str
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    cpu_microseconds: float
    failures: int


@dataclass
class Stage:
    """What all runs share: model and rows on disk, and where the load comes from."""

    folder: Path
    background: Path
    bodies: dict[str, list[bytes]]
    scripts: dict[str, Path]
    core_of_wrk: int
    options: argparse.Namespace
    databases: dict[str, Path] = field(default_factory=dict)


def main() -> int:
    options = _options()
    wrk.check_installed()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores: one for the servers, one for wrk")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-benchmark-", dir=options.directory) as name:
        stage = set_up(Path(name), cores[-1], options)
        os.sched_setaffinity(0, {cores[0]})  # the servers inherit it
        cells = []
        for storage in options.storage:
            with _servers(stage, storage) as servers:
                _print_storage(stage, storage)
                _check_answers(stage, servers)
                found = _measure(stage, storage, servers)
            _print_table(found, storage)
            cells += found
        disk = machine.Disk.of(Path(name))
    print(machine.load())
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(cell) for cell in cells], indent=1))
    return verdict(_targets(cells, disk))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of each run")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind; medians are kept")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--storage", nargs="+", choices=STORAGES, default=STORAGES)
    parser.add_argument("--directory", help="where the durable databases lie (default: TMPDIR)")
    parser.add_argument("--json", help="write every figure to this file as well")
    return parser.parse_args()


def set_up(folder: Path, core_of_wrk: int, options: argparse.Namespace) -> Stage:
    from service.registry import Registry

    X, y = models.table()
    model = models.xgboost_model(X, y)
    model.save_model(folder / "model.ubj")
    made = Registry(folder / "registry").register("benchmark", model, X, y)
    background = folder / "background.npy"
    np.save(background, made.model.background.rows)
    rows = [json.dumps(row).encode() for row in X.tail(ROWS).to_dict("records")]
    bodies = {OURS: [b'{"instances":[%s]}' % row for row in rows], USUAL: rows, CHEAPER: rows}
    scripts = {
        side: wrk.write_script(folder, f"load-{i}", bodies[side]) for i, side in enumerate(bodies)
    }
    return Stage(folder, background, bodies, scripts, core_of_wrk, options)


@contextmanager
def _servers(stage: Stage, storage: str) -> Iterator[dict[str, Serving]]:
    with ExitStack() as stack:
        durable = storage == "durable"
        place = stage.folder if durable else stack.enter_context(_memory())
        yield {
            OURS: stack.enter_context(ours(stage, place)),
            USUAL: stack.enter_context(_usual(stage, USUAL, durable=durable)),
            CHEAPER: stack.enter_context(_usual(stage, CHEAPER, durable=durable)),
        }


@contextmanager
def _memory() -> Iterator[Path]:
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_NEEDED:
        sys.exit(f"{MEMORY} needs 2 GiB free; `--storage durable` runs without it")
    with tempfile.TemporaryDirectory(prefix="explaind-benchmark-", dir=MEMORY) as name:
        yield Path(name)


@contextmanager
def ours(stage: Stage, place: Path) -> Iterator[Serving]:
    database = stage.databases[OURS] = place / "evidence.db"
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    command += ["--data-dir", str(stage.folder)]
    environment = {"EXPLAIND_DATABASE_URL": f"sqlite:///{database}"}
    with running(command, environment=environment, log=stage.folder / "ours.log") as serving:
        yield serving


@contextmanager
def _usual(stage: Stage, side: str, *, durable: bool) -> Iterator[Serving]:
    perturbation = PERTURBATIONS[side]
    environment = {
        "BASELINE_MODEL": str(stage.folder / "model.ubj"),
        "BASELINE_BACKGROUND": str(stage.background),
        "BASELINE_PERTURBATION": perturbation,
    }
    if durable:
        database = stage.databases[side] = stage.folder / f"{perturbation}.db"
        environment["BASELINE_DATABASE"] = str(database)
    command = [sys.executable, baseline_app.__file__]
    log = stage.folder / f"{perturbation}.log"
    with running(command, environment=environment, log=log) as serving:
        yield serving


def _print_storage(stage: Stage, storage: str) -> None:
    print(f"\n== {MEANING[storage]}")
    database = stage.databases[OURS]
    print(f"   {machine.Disk.of(database.parent)}")
    print(f"   {OURS}: {database}, {_pragmas_of_ours(database)}")
    if storage == "durable":
        usual = stage.databases[USUAL]
        print(f"   {USUAL}: {usual}, {_pragmas_of_usual(usual)}")


def _pragmas_of_ours(database: Path) -> str:
    from service.databases import connect
    from service.evidence.engines import database_url

    url = database_url(f"sqlite:///{database}")
    engine = connect(url, connections=1, busy_timeout_seconds=1.0)
    with engine.connect() as connection:
        found = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in PRAGMAS}
    engine.dispose()
    return _listed(found)


def _pragmas_of_usual(database: Path) -> str:
    connection = baseline_app.Decisions(str(database)).connection
    found = {p: connection.execute(f"PRAGMA {p}").fetchone()[0] for p in PRAGMAS}
    connection.close()
    return _listed(found)


def _listed(pragmas: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in pragmas.items())


def _check_answers(stage: Stage, servers: Mapping[str, Serving]) -> None:
    """Same probabilities from all, same attributions from both interventional sides."""
    probability_gap = value_gap = 0.0
    for index in range(CHECKED_ROWS):
        answers = {
            side: _post(server.url + PATHS["predict+explain"], stage.bodies[side][index])
            for side, server in servers.items()
        }
        own = answers.pop(OURS)
        probability = own["predictions"][0]["probabilities"]["1"]
        gaps = [abs(usual["probability"] - probability) for usual in answers.values()]
        probability_gap = max(probability_gap, *gaps)
        values = dict(
            zip(
                own["explanation"]["feature_names"],
                (of_column[0] for of_column in own["explanation"]["values"][0]),
                strict=True,
            )
        )
        expected = answers[USUAL]["attributions"]
        value_gap = max(value_gap, *(abs(expected[name] - values[name]) for name in values))
    print(f"   answers agree on {CHECKED_ROWS} rows: ", end="")
    print(f"probabilities within {probability_gap:.1e}, attributions within {value_gap:.1e}")
    if probability_gap > LARGEST_PROBABILITY_GAP or value_gap > LARGEST_VALUE_GAP:
        sys.exit("the two sides do not compute the same")


def _post(url: str, body: bytes) -> Any:
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=30) as reply:
        return json.loads(reply.read())


def _measure(stage: Stage, storage: str, servers: Mapping[str, Serving]) -> list[Cell]:
    runs: dict[tuple[str, int, str], list[tuple[wrk.Load, float]]] = {}
    for number in range(1, stage.options.rounds + 1):
        print(f"   round {number} of {stage.options.rounds}", file=sys.stderr)
        for operation in PATHS:
            for connections in stage.options.connections:
                for side, server in servers.items():
                    if side == CHEAPER and operation == "predict":
                        continue  # the same code as the other
                    measured = _run(stage, server, side, operation, connections)
                    runs.setdefault((operation, connections, side), []).append(measured)
    return [_cell(storage, *key, measured) for key, measured in runs.items()]


def _run(
    stage: Stage, server: Serving, side: str, operation: str, connections: int
) -> tuple[wrk.Load, float]:
    """One load after a short one that is not counted; with the server's CPU seconds."""
    for seconds in (WARM_UP_SECONDS, stage.options.seconds):
        before = server.cpu_seconds()
        load = wrk.run(
            server.url + PATHS[operation],
            stage.scripts[side],
            connections=connections,
            seconds=seconds,
            core=stage.core_of_wrk,
        )
    return load, server.cpu_seconds() - before


def _cell(
    storage: str,
    operation: str,
    connections: int,
    side: str,
    runs: list[tuple[wrk.Load, float]],
) -> Cell:
    return Cell(
        storage,
        operation,
        connections,
        side,
        statistics.median(load.requests_per_second for load, _ in runs),
        statistics.median(load.p50_milliseconds for load, _ in runs),
        statistics.median(load.p99_milliseconds for load, _ in runs),
        statistics.median(cpu / max(load.requests, 1) * 1e6 for load, cpu in runs),
        sum(load.failures for load, _ in runs),
    )


def _print_table(cells: list[Cell], storage: str) -> None:
    print(
        f"\n{storage:<16} conn  side                   req/s    p50 ms    p99 ms  CPU us/req",
        end="",
    )
    print("   x req/s   x CPU")
    usual = {(c.operation, c.connections): c for c in cells if c.side == USUAL}
    for c in sorted(cells, key=lambda c: (c.operation, c.connections)):
        reference = usual[c.operation, c.connections]
        print(
            f"{c.operation:<16} {c.connections:>4}  {c.side:<21} {c.requests_per_second:>6.0f} "
            f"{c.p50_milliseconds:>9.2f} {c.p99_milliseconds:>9.2f} {c.cpu_microseconds:>11.0f} "
            f"{_ratio(c.requests_per_second, reference.requests_per_second):>9.2f} "
            f"{_ratio(reference.cpu_microseconds, c.cpu_microseconds):>7.2f}"
            + (f"  {c.failures} FAILED" if c.failures else "")
        )


def _targets(cells: list[Cell], disk: machine.Disk) -> Iterator[Target]:
    """Of predictions explained and durable; those of loads that were not run are left out."""
    found = {(c.operation, c.connections, c.side): c for c in cells if c.storage == "durable"}
    ours = {n: c for (operation, n, side), c in found.items() if (operation, side) == EXPLAINED}
    times = {
        n: _ratio(c.requests_per_second, found["predict+explain", n, USUAL].requests_per_second)
        for n, c in ours.items()
    }
    if 1 in ours and disk.fdatasync_p50_milliseconds < FAST_DISK_MILLISECONDS:
        yield Target("1 connection: requests/s, times the usual service's", 5, times[1])
    elif 1 in ours:
        beyond = ours[1].p50_milliseconds - disk.fdatasync_p50_milliseconds
        yield Target("1 connection: p50 beyond fdatasync's, ms", 1, beyond, is_least=False)
    if 16 in ours:
        cpu = ours[16].cpu_microseconds
        added = cpu - found["predict", 16, OURS].cpu_microseconds
        yield Target("16 connections: requests/s, times the usual service's", 12, times[16])
        yield Target("16 connections: CPU us a request", 350, cpu, is_least=False)
        yield Target("16 connections: CPU us that explaining adds", 90, added, is_least=False)
    if 64 in ours:
        rate, p99 = 1e6 / ours[64].cpu_microseconds, ours[64].p99_milliseconds
        yield Target("64 connections: requests per second of CPU", 4000, rate)
        yield Target("64 connections: p99, ms", 40, p99, is_least=False)
    yield Target("failed requests", 0, sum(cell.failures for cell in cells), is_least=False)


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan


if __name__ == "__main__":
    sys.exit(main())
