"""A process that explains one row after the other and prints by how many bytes it grew.

    python -m memory_growth engine ENGINE CALLS [LEAKED_BYTES]
    python -m memory_growth service DATA_DIR CALLS [LEAKED_BYTES]

LEAKED_BYTES are kept at each call: so a test can show that a leak of this size is noticed.
"""

import gc
import itertools
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from engines import pair
from faulty_parts import OddExplainer, with_explainer
from live_app import live_app
from servers import Client
from tables import breast_cancer, instances_of

from explainers.base import Explanation

PAGE_BYTES = 4096
BYTES_OF_EMPTY = sys.getsizeof(b"")
CLIENTS = 8
PARTS = 9


@dataclass
class Leak:
    """Passes explanations on and keeps so many bytes for each row."""

    size: int
    kept: list[bytes] = field(default_factory=list)

    def __call__(self, explanation: Explanation) -> Explanation:
        if self.size:
            size = self.size * len(explanation.values)
            self.kept.append(bytes(size - BYTES_OF_EMPTY))
        return explanation


def resident_bytes() -> int:
    """Memory of this process that is not swapped out."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def growth(explain: Callable[[int], None], calls: int) -> int:
    """Bytes that so many calls add, after two fifths as many to warm up, by the median of their
    parts. A leak is in every part; a cache that fills up, a larger batch or memory given back, some
    megabytes each, is in a few.
    """
    explain(calls * 2 // 5)
    gc.collect()
    found = [resident_bytes()]
    for _ in range(PARTS):
        explain(calls // PARTS)
        gc.collect()
        found.append(resident_bytes())
    return PARTS * int(statistics.median(end - start for start, end in pairwise(found)))


def of_engine(name: str, calls: int, leak: Leak) -> int:
    real = pair(name)
    subject = replace(real, explainer=OddExplainer(real.explainer, leak))
    rows = itertools.cycle([subject.rows[i : i + 1] for i in range(len(subject.rows))])

    def explain(count: int) -> None:
        for row in itertools.islice(rows, count):
            subject.answer(row)

    return growth(explain, calls)


def of_service(data_dir: str, calls: int, leak: Leak) -> int:
    rows = instances_of(breast_cancer()[0])

    def send(client: Client, count: int) -> None:
        for row in itertools.islice(itertools.cycle(rows), count):
            assert client.predict([row]).json()["explanation"]["status"] == "complete"

    with live_app(Path(data_dir), customise=with_explainer(leak)) as app:
        clients = [app.client() for _ in range(CLIENTS)]

        def explain(count: int) -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(send, clients, [count // CLIENTS] * CLIENTS))

        return growth(explain, calls)


if __name__ == "__main__":
    kind, subject, calls, leaked = (*sys.argv[1:], "0")[:4]
    measure = {"engine": of_engine, "service": of_service}[kind]
    print(measure(subject, int(calls), Leak(int(leaked))))
