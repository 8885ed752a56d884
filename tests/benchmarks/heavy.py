"""What heavy explanations cost the predictions beside them: p95 with and without, in one run.

    .venv/bin/python tests/benchmarks/heavy.py [--seconds 8] [--rounds 3]

`explaind serve` with its own queue and worker (niced). Predictions of an XGBoost model arrive at a
third of the rate the service can take; in the heavy half of the runs every tenth request asks for
the explanation of an MLP, which a worker samples for a few tenths of a second. Runs alternate; each
has a server of its own, because heavy jobs outlast a run. Exit code 1 when the target was missed.
"""

import argparse
import json
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
FAST, HEAVY = "fast", "heavy"
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
                p95[mix].append(percentile(sent, FAST, 0.95))
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


def register(registry: Path) -> dict[str, list[bytes]]:
    """Both models, and rows for each, every one another."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from service.registry import Registry

    X, y = models.table()
    network = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=60, random_state=0))
    Registry(registry).register(FAST, models.xgboost_model(X, y), X, y)
    Registry(registry).register(HEAVY, network.fit(X, y), X, y)
    rows = [
        json.dumps({"instances": [dict(zip(X.columns, row, strict=True))]}).encode()
        for row in models.varied_rows(X, ROWS).tolist()
    ]
    return {FAST: rows, HEAVY: rows[::-1]}


@contextmanager
def serving(data_dir: Path, registry: Path) -> Iterator[Serving]:
    data_dir.mkdir()
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--registry", str(registry)]
    with running(command, environment={}, log=data_dir / "serve.log") as server:
        yield server


def peak(folder: Path, registry: Path, bodies: dict[str, list[bytes]]) -> float:
    """Predictions a second that 16 connections get out of the service."""
    script = wrk.write_script(folder, FAST, bodies[FAST])
    with serving(folder / "peak", registry) as server:
        url = f"{server.url}/models/{FAST}/predict"
        wrk.run(url, script, connections=16, seconds=1, core=1)
        load = wrk.run(url, script, connections=16, seconds=PEAK_SECONDS, core=1)
    return load.requests_per_second


def one_run(
    data_dir: Path,
    registry: Path,
    bodies: dict[str, list[bytes]],
    mix: str,
    rate: float,
    seconds: float,
) -> Sequence[Sent]:
    """The requests of one run, sent at the rate; every answer must be a 200."""
    fast = (Planned(FAST, f"/models/{FAST}/predict", body) for body in cycle(bodies[FAST]))
    path = f"/models/{HEAVY}/predict?explain=true"
    heavy = (Planned(HEAVY, path, body) for body in cycle(bodies[HEAVY]))
    count = int(rate * seconds)
    every = HEAVY_ONE_IN if mix == "heavy" else count + 1
    planned = [next(heavy) if n % every == every - 1 else next(fast) for n in range(count)]
    with serving(data_dir, registry) as server:
        timed(server.url, list(islice(planned, int(rate))), per_second=rate / 2)  # warm
        sent, _ = timed(server.url, planned, per_second=rate)
    failures = [one.status for one in sent if one.status != 200]
    if failures:
        sys.exit(f"{len(failures)} requests failed, the first with {failures[0]}")
    return sent


def describe(mix: str, sent: Sequence[Sent]) -> None:
    figures: list[Any] = [percentile(sent, FAST, share) for share in (0.5, 0.95, 0.99)]
    print(f"{mix:>6}: {len(sent)} requests, predict p50 / p95 / p99 ms", np.round(figures, 2))


if __name__ == "__main__":
    sys.exit(main())
