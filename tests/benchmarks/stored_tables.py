"""Time to build an explainer by compiling its tables, and from the tables a version stores.

    .venv/bin/python tests/benchmarks/stored_tables.py [--repeat 9]

One process on one core; CPU time, kernels loaded. Stored tables are read from a file that the
system has in memory, and their SHA-256 is taken, as when a version is loaded.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import models
import pandas as pd
from processes import ONE_THREAD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    os.environ.update(ONE_THREAD)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from explainers import warm

    warm.main()
    print(machine.facts())
    print(f"\n{'CPU ms, median':<36} {'background':>10} {'compiled':>10} {'stored':>10} {'MB':>8}")
    X, y = models.table()
    for name, model in _models(X, y):
        for rows in (100, 1000):
            _print(name, model, X, rows=rows, repeat=repeat)
    print(machine.load())


def _models(X: pd.DataFrame, y: Any) -> Iterator[tuple[str, Any]]:
    from lightgbm import LGBMClassifier
    from xgboost import XGBClassifier

    yield "XGBoost, 100 trees of depth 6", models.xgboost_model(X, y)
    leaves = LGBMClassifier(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1)
    yield "LightGBM, 100 trees of 31 leaves", leaves.fit(X, y)
    deep = {"n_estimators": 500, "max_depth": 8, "learning_rate": 0.1, "n_jobs": 1}
    yield "XGBoost, 500 trees of depth 8", XGBClassifier(**deep).fit(X, y)
    grown = XGBClassifier(**deep, min_child_weight=0).fit(X, y)
    yield "XGBoost, 500 of depth 8, fully grown", grown


def _print(name: str, model: Any, X: pd.DataFrame, *, rows: int, repeat: int) -> None:
    from explainers.base import Background, Naming
    from service.models.formats import artifact_of_model, load_model
    from service.registry.building import ExplainerFactory

    names = tuple(X.columns)
    native = load_model(artifact_of_model(model), names=names)
    factory = ExplainerFactory.for_model(native, Naming(names, ("1",), native.output_space))
    background = Background.of(X.to_numpy()[:rows])
    tables = factory.build(background).stored_tables()
    assert tables is not None
    with tempfile.TemporaryDirectory(prefix="explaind-tables-") as folder:
        file = Path(folder) / "tables.npy"
        file.write_bytes(tables)

        def restore() -> None:
            data = file.read_bytes()
            hashlib.sha256(data).hexdigest()
            factory.build(background, stored_tables=data)

        compiled = _milliseconds(lambda: factory.build(background), repeat)
        stored = _milliseconds(restore, repeat)
    print(f"{name:<36} {rows:>10} {compiled:>10.1f} {stored:>10.1f} {len(tables) / 1e6:>8.1f}")


def _milliseconds(call: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat + 1):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return statistics.median(times[1:]) * 1e3


if __name__ == "__main__":
    main()
