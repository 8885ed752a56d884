"""Time to build an explainer by compiling its tables, and from the tables a version stores.

    .venv/bin/python tests/benchmarks/stored_tables.py [--repeat 9]

One process on one core; CPU time, kernels loaded. Stored tables are read from a file that the
system has in memory, and their SHA-256 is taken, as when a version is loaded.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import models
import pandas as pd
from measuring import milliseconds, use_one_core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    use_one_core()
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
    yield "XGBoost, 100 trees of depth 6", models.xgboost_model(X, y)
    yield "LightGBM, 100 trees of 31 leaves", models.lightgbm_model(X, y)
    yield "XGBoost, 500 trees of depth 8", models.xgboost_model(X, y, trees=500, depth=8)
    grown = models.xgboost_model(X, y, trees=500, depth=8, min_child_weight=0)
    yield "XGBoost, 500 of depth 8, fully grown", grown


def _print(name: str, model: Any, X: pd.DataFrame, *, rows: int, repeat: int) -> None:
    from explainers.base import Background

    factory = models.explainer_factory(model, X)
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

        compiled = milliseconds(lambda: factory.build(background), repeat=repeat)
        stored = milliseconds(restore, repeat=repeat)
    print(f"{name:<36} {rows:>10} {compiled:>10.1f} {stored:>10.1f} {len(tables) / 1e6:>8.1f}")


if __name__ == "__main__":
    main()
