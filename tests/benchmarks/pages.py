"""CPU time to answer with a page or a plot, beside the JSON of the same record.

    .venv/bin/python tests/benchmarks/pages.py [--repeat 200]

The application in this process, asked over HTTP by one client; the times are the whole process's,
client included, so a page's own cost is its difference from JSON. Records: 30 numeric columns, 9
mixed ones, and 13 columns with three classes. The bound is 50 ms of server time a page.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))

import machine  # noqa: E402
from live_app import live_app  # noqa: E402
from page_sites import HTML, KINDS, SVG, explained, page_of, registry_of_kinds  # noqa: E402
from servers import Client, wait_until  # noqa: E402
from tables import breast_cancer, mixed  # noqa: E402

BOUND_MILLISECONDS = 50.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=200, help="answers of each kind")
    repeat = parser.parse_args().repeat
    print(machine.facts())
    folder = Path(tempfile.mkdtemp())
    try:
        slowest = _measured(folder, repeat)
    finally:
        shutil.rmtree(folder)
    print(machine.load())
    return int(slowest > BOUND_MILLISECONDS)


def _measured(folder: Path, repeat: int) -> float:
    """The median of the slowest kind of page, in milliseconds of CPU time."""
    registry = registry_of_kinds(folder, _two_models(folder / "two"))
    slowest = 0.0
    with live_app(folder, registry=registry, model="breast_cancer") as live:
        client = live.client()
        print(f"{'model':<16}{'as':<16}{'ms, median':>12}{'ms, p99':>10}{'x JSON':>9}{'bytes':>9}")
        for model in KINDS.values():
            path = explained(client, model)
            _settled(client, path)
            json = _milliseconds(lambda path=path: page_of(client, path, "*/*"), repeat)
            for accept in ("application/json", SVG, HTML):
                took = _milliseconds(lambda p=path, a=accept: page_of(client, p, a), repeat)
                size, median = len(page_of(client, path, accept).body), statistics.median(took)
                ratio = median / statistics.median(json)
                worst = sorted(took)[int(0.99 * len(took))]
                print(f"{model:<16}{accept:<16}{median:>12.2f}{worst:>10.2f}{ratio:>9.1f}{size:>9}")
                slowest = max(slowest, median)
    return slowest


def _settled(client: Client, path: str) -> None:
    wait_until(lambda: client.get(f"{path}/proof").status == 200)


def _milliseconds(call: Callable[[], object], repeat: int) -> list[float]:
    call()
    found = []
    for _ in range(repeat):
        started = time.process_time()
        call()
        found.append(1e3 * (time.process_time() - started))
    return found


def _two_models(path: Path) -> Path:
    """As the tests' fixture of that name."""
    from xgboost import XGBClassifier

    from service.registry import Registry
    from service.registry.work import Options

    X, y = breast_cancer()
    model = XGBClassifier(n_estimators=40, max_depth=4, n_jobs=1).fit(X, y)
    Registry(path).register("breast_cancer", model, X, y, options=Options())
    X, y = mixed()
    X = X.astype({"site": "category", "grade": "category"})
    model = XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1, enable_categorical=True)
    Registry(path).register("mixed", model.fit(X, y), X, y, options=Options())
    return path


if __name__ == "__main__":
    sys.exit(main())
