"""What docs/capacity.md plans with: memory by model, requests/s by lane, disk by record.

    .venv/bin/python tests/benchmarks/capacity.py [--part memory lanes disk] [--records 2000]

Memory is the proportional set size of processes that have explained rows; a model's is what a
process with it has more than the same process with a stump. Lanes are CPU seconds of API and worker
by explained request, from which a core's requests/s follow. Disk is what a database has grown by.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import models
import pandas as pd
from processes import Serving, family, running

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import psycopg
from postgres_server import new_database, running_postgres
from servers import Client, wait_until

from service.compiling import choose_kernel_cache, compile_kernels
from service.registry import Registry

PARTS = ("memory", "lanes", "disk")
CLIENTS = 8
MEMORY_REQUESTS = 200
LANE_REQUESTS = {"inline": 1500, "queued, exact": 200, "queued, called": 20}
MIB = 2**20
Bodies = list[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--records", type=int, default=2000)
    options = parser.parse_args()
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-capacity-") as name:
        folder = Path(name)
        choose_kernel_cache(folder)
        compile_kernels()  # as in an image: no process that is measured compiles
        if "memory" in options.part:
            measure_memory(folder)
        if "lanes" in options.part:
            measure_lanes(folder)
        if "disk" in options.part:
            measure_disk(folder, options.records)
    print(machine.load())


def registered(registry: Path, name: str, model: Any, X: pd.DataFrame, y: Any) -> Bodies:
    """A registered model, and bodies for it, each another one."""
    Registry(registry).register(name, model, X, y)
    return [
        json.dumps({"instances": [dict(zip(X.columns, row, strict=True))]}).encode()
        for row in models.varied_rows(X, 2000).tolist()
    ]


@contextmanager
def serving(data_dir: Path, registry: Path, **settings: str) -> Iterator[Serving]:
    data_dir.mkdir()
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--registry", str(registry)]
    environment = {f"EXPLAIND_{name.upper()}": value for name, value in settings.items()}
    with running(command, environment=environment, log=data_dir / "serve.log") as server:
        yield server


def explain(server: Serving, bodies: Sequence[bytes], *, prefer: str = "") -> list[str]:
    """Send all, from a few connections; the request IDs."""
    headers = {"Content-Type": "application/json", **({"Prefer": prefer} if prefer else {})}

    def part(mine: Sequence[bytes]) -> list[str]:
        client = Client(server.url)
        found = []
        for body in mine:
            reply = client.request("POST", "/predict?explain=true", body, headers)
            assert reply.status == 200, reply.body
            found.append(reply.json()["request_id"])
        client.close()
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [
            name
            for ids in pool.map(part, (bodies[i::CLIENTS] for i in range(CLIENTS)))
            for name in ids
        ]


def proportional_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided among those that share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def measure_memory(folder: Path) -> None:
    X, y = models.table()
    fitted: dict[str, Callable[[], Any]] = {
        "XGBoost, a stump": lambda: models.xgboost_model(X, y, trees=1, depth=1),
        "XGBoost, 100 trees of depth 6": lambda: models.xgboost_model(X, y),
        "XGBoost, 500 trees of depth 6": lambda: models.xgboost_model(X, y, trees=500),
        "XGBoost, 500 trees of depth 8": lambda: models.xgboost_model(X, y, trees=500, depth=8),
        "RandomForest, 100 trees of depth 12": lambda: models.forest_model(X, y),
    }
    print("\nmodel (30 columns, background 100)     API, MiB   version on disk, MiB")
    for number, (name, fit) in enumerate(fitted.items()):
        registry = folder / f"memory-{number}"
        bodies = registered(registry, "model", fit(), X, y)[:MEMORY_REQUESTS]
        size = sum(path.stat().st_size for path in registry.rglob("*") if path.is_file())
        settings = {"embedded_workers": "0", "inline_budget_seconds": "10"}
        with serving(folder / f"memory-data-{number}", registry, **settings) as server:
            explain(server, bodies)
            print(f"{name:<38} {proportional_bytes(server.pid) / MIB:>8.0f} {size / MIB:>10.1f}")


@dataclass(frozen=True)
class Lane:
    """One way of being explained."""

    name: str
    registry: Path
    bodies: Bodies
    settings: dict[str, str]


def lanes(folder: Path) -> Iterator[Lane]:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = models.table()
    trees = folder / "trees"
    bodies = registered(trees, "trees", models.xgboost_model(X, y), X, y)
    yield Lane("inline", trees, bodies, {"embedded_workers": "0"})
    yield Lane("queued, exact", trees, bodies, {"inline_budget_seconds": "1e-9"})
    X, y = models.table(columns=10)
    network = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=60, random_state=0))
    called = folder / "network"
    yield Lane("queued, called", called, registered(called, "network", network.fit(X, y), X, y), {})


def measure_lanes(folder: Path) -> None:
    print(
        "\nlane           explained/s   CPU ms each   explained/s and core   worker and queue, MiB"
    )
    for number, lane in enumerate(lanes(folder)):
        count = LANE_REQUESTS[lane.name]
        with serving(folder / f"lane-{number}", lane.registry, **lane.settings) as server:
            _wait_for(server, explain(server, lane.bodies[:20], prefer="respond-async"))
            cpu, started = server.cpu_seconds(), time.perf_counter()
            sent = explain(server, lane.bodies[20 : 20 + count], prefer="respond-async")
            if lane.name != "inline":
                _wait_for(server, sent)
            seconds, cpu = time.perf_counter() - started, server.cpu_seconds() - cpu
            beside = sum(map(proportional_bytes, family(server.pid)[1:])) / MIB
        print(
            f"{lane.name:<16} {count / seconds:>9.1f} {1000 * cpu / count:>13.2f} "
            f"{count / cpu:>22.1f} {beside:>23.0f}"
        )


def _wait_for(server: Serving, request_ids: Sequence[str]) -> None:
    """Wait until the explanations are there: a few long waits, which cost the API little."""
    client = Client(server.url)
    for request_id in reversed(request_ids):
        path = f"/explanations/{request_id}"
        while client.get(path, Prefer="wait=10").json()["explanation"]["status"] == "pending":
            pass
    client.close()


def measure_disk(folder: Path, records: int) -> None:
    X, y = models.table()
    registry = folder / "disk"
    bodies = registered(registry, "trees", models.xgboost_model(X, y), X, y)
    bodies = [bodies[n % len(bodies)] for n in range(records)]
    print(f"\nevidence of {records} explained predictions (30 columns)   bytes each   records/GB")
    with running_postgres() as postgres:
        url = new_database(postgres)
        for name, settings in {"SQLite": {}, "PostgreSQL": {"database_url": url}}.items():
            data_dir = folder / f"disk-{name}"
            with serving(data_dir, registry, embedded_workers="0", **settings) as server:
                explain(server, bodies[:50])
                before = _stored_bytes(data_dir, settings)
                explain(server, bodies)
                wait_until(lambda server=server: _is_in_log(server), seconds=30)
            grown = (_stored_bytes(data_dir, settings) - before) / records
            print(f"{name:<58} {grown:>8.0f} {1e9 / grown:>12,.0f}")


def _is_in_log(server: Serving) -> bool:
    client = Client(server.url)
    lines = client.get("/metrics").body.decode().splitlines()
    client.close()
    return 'explain_audit_backlog_records{backend="log"} 0.0' in lines


def _stored_bytes(data_dir: Path, settings: dict[str, str]) -> int:
    """Of evidence and keys together."""
    if "database_url" not in settings:
        names = ("evidence.db", "keys.db")
        found = [path for name in names for path in data_dir.glob(f"{name}*")]
        return sum(path.stat().st_size for path in found if not path.name.endswith("-shm"))
    with psycopg.connect(settings["database_url"].replace("+psycopg", ""), autocommit=True) as one:
        one.execute("VACUUM")
        row = one.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])


if __name__ == "__main__":
    main()
