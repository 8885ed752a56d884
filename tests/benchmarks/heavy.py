"""What heavy explanations cost the predictions beside them: p95 with and without, in one run.

    .venv/bin/python tests/benchmarks/heavy.py [--seconds 8] [--rounds 3]

`explaind serve` with its own queue and worker (niced). Predictions of an MLP arrive at a third of
the rate the service can take; in the heavy half of the runs every tenth also asks for an
explanation, which a worker samples for a few tenths of a second. What is compared is the latency of
the others, so the predictions cost the same in both. Runs alternate; each has a server of its own,
because heavy jobs outlast a run, and begins when its worker has explained one row: a child that
still loads is no part of either. The load comes from processor 1 and the service's own threads have
processor 0, so that neither waits for the other; the worker runs on both, where it can. Exit code 1
when the target was missed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import models
import numpy as np
import wrk
from open_loop import Planned, Sent, percentile, timed
from processes import Serving, running
from targets import Target, verdict

LARGEST_RATIO = 1.3
SHARE_OF_PEAK = 1 / 3
HEAVY_ONE_IN = 10
PEAK_SECONDS = 4
MODEL = "network"
PLAIN, HEAVY = "plain", "heavy"
READY_SECONDS = 30
ROWS = 2000


def main() -> int:
    arguments = parsed_arguments()
    wrk.check_installed()
    with tempfile.TemporaryDirectory(prefix="explaind-bench-") as folder:
        registry = Path(folder) / "registry"
        bodies = register(registry)
        rate = SHARE_OF_PEAK * peak(Path(folder), registry, bodies)
        print(
            f"a third of peak: {rate:,.0f} requests/s; in half of the runs every "
            f"{HEAVY_ONE_IN}th is heavy"
        )
        p95: dict[str, list[float]] = {"none": [], "heavy": []}
        for number in range(arguments.rounds):
            for mix in ("none", "heavy") if number % 2 == 0 else ("heavy", "none"):
                data_dir = Path(folder) / f"{mix}-{number}"
                sent = one_run(data_dir, registry, bodies, mix, rate, arguments.seconds)
                p95[mix].append(percentile(sent, PLAIN, 0.95))
                describe(mix, sent)
    ratio = statistics.median(p95["heavy"]) / statistics.median(p95["none"])
    return verdict(
        [
            Target(
                "predict p95 with 10 % heavy requests / with none",
                LARGEST_RATIO,
                ratio,
                is_least=False,
            )
        ]
    )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs with and without each")
    return parser.parse_args()


def register(registry: Path) -> list[bytes]:
    """The model, and bodies for it, every one another."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from service.registry import Registry

    X, y = models.table()
    network = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=60, random_state=0))
    Registry(registry).register(MODEL, network.fit(X, y), X, y)
    return [
        json.dumps({"instances": [dict(zip(X.columns, row, strict=True))]}).encode()
        for row in models.varied_rows(X, ROWS).tolist()
    ]


@contextmanager
def serving(data_dir: Path, registry: Path) -> Iterator[Serving]:
    data_dir.mkdir()
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--registry", str(registry)]
    with running(command, environment={}, log=data_dir / "serve.log") as server:
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})
        yield server


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """This process runs there meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak(folder: Path, registry: Path, bodies: list[bytes]) -> float:
    """Predictions a second that 16 connections get out of the service."""
    script = wrk.write_script(folder, MODEL, bodies)
    with serving(folder / "peak", registry) as server:
        url = f"{server.url}/models/{MODEL}/predict"
        wrk.run(url, script, connections=16, seconds=1, core=1)
        load = wrk.run(url, script, connections=16, seconds=PEAK_SECONDS, core=1)
    return load.requests_per_second


def one_run(
    data_dir: Path,
    registry: Path,
    bodies: list[bytes],
    mix: str,
    rate: float,
    seconds: float,
) -> Sequence[Sent]:
    """The requests of one run, sent at the rate; every answer must be a 200."""
    path, wait = f"/models/{MODEL}/predict", f"Prefer: wait={READY_SECONDS}"
    count = int(rate * seconds)
    every = HEAVY_ONE_IN if mix == "heavy" else count + 1
    planned = [
        Planned(HEAVY, path + "?explain=true", body)
        if n % every == every - 1
        else Planned(PLAIN, path, body)
        for n, body in enumerate(islice(cycle(bodies), count))
    ]
    first = Planned(HEAVY, path + "?explain=true", bodies[0], (wait,))
    plain = [one for one in planned if one.kind == PLAIN]
    with serving(data_dir, registry) as server, on_processor(1):
        timed(server.url, [first], per_second=1)
        timed(server.url, plain[: int(rate)], per_second=rate / 2)  # warm
        sent, _ = timed(server.url, planned, per_second=rate)
    failures = [one.status for one in sent if one.status != 200]
    if failures:
        sys.exit(f"{len(failures)} requests failed, the first with {failures[0]}")
    return sent


def describe(mix: str, sent: Sequence[Sent]) -> None:
    figures: list[Any] = [percentile(sent, PLAIN, share) for share in (0.5, 0.95, 0.99)]
    print(f"{mix:>6}: {len(sent)} requests, predict p50 / p95 / p99 ms", np.round(figures, 2))


if __name__ == "__main__":
    sys.exit(main())
