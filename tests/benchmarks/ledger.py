"""What the log costs: CPU of sequencing an event, its effect on appends, proofs in a large tree.

python tests/benchmarks/ledger.py [--entries 1000000]
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from decisions import decision
from ledgers import KEYRING, append, sequencer
from sqlalchemy import insert

from service.evidence import EvidenceLog, EvidenceStore
from service.evidence.events import seal
from service.evidence.tables import tree_nodes
from service.ledger import EVIDENCE, Ledger
from service.ledger.rows import Batch, add_mark, log_rows, set_mark
from service.ledger.running import Sequencing
from service.ledger.tree import CompactRange
from service.uuid7 import uuid7

APPENDERS = 16
ROUNDS = 3
STEP = 20_000
PAYLOAD = b'{"values":[' + b"0.123456789," * 250 + b"0]}"  # 3 KB, as of an explained answer


class Quiet:
    """An observer that only counts failures."""

    failures = 0

    def on_failure(self, kind: str) -> None:
        self.failures += 1
        print("failure", kind)

    def on_waiting(self, rows: int) -> None: ...


def sequencing_cost(url: str, events: int) -> None:
    with EvidenceStore.open(url) as store:
        for _ in range(events // 500):
            store.insert([seal(decision(answer=PAYLOAD)) for _ in range(500)])
        sequencing = sequencer(store)
        started, cpu = time.perf_counter(), time.thread_time()
        sequencing.run(is_last=True)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - started
        print(
            f"sequencing: {cpu / events * 1e6:.1f} us CPU an event, {wall / events * 1e6:.1f} wall"
        )
        cpu = time.thread_time()
        for _ in range(200):
            sequencing.run()
        print(f"a turn without news: {(time.thread_time() - cpu) / 200 * 1e6:.0f} us CPU")


async def append_latencies(url: str, *, events: int, is_sequenced: bool) -> list[float]:
    log = await EvidenceLog.open(url)
    found: list[float] = []
    signer = Ledger(log.store, KEYRING).signer
    with tempfile.TemporaryDirectory() as folder:
        sequencing = Sequencing.of(log.store, signer, Path(folder), Quiet())
        if is_sequenced:
            sequencing.start()

        async def one() -> None:
            for _ in range(events // APPENDERS):
                event = decision(answer=PAYLOAD)
                started = time.perf_counter()
                await log.append(event)
                found.append(time.perf_counter() - started)
                await asyncio.sleep(0.003)  # what else a request does

        await asyncio.gather(*(one() for _ in range(APPENDERS)))
        await asyncio.to_thread(sequencing.close)
    await log.close()
    return found


def appends(folder: Path, events: int) -> None:
    for turn in range(ROUNDS):
        for is_sequenced in (False, True):
            url = f"sqlite:///{folder}/{turn}{is_sequenced}.db"
            started = time.perf_counter()
            found = asyncio.run(append_latencies(url, events=events, is_sequenced=is_sequenced))
            cuts = statistics.quantiles(found, n=1000)
            rate = events / (time.perf_counter() - started)
            name = "sequenced" if is_sequenced else "alone    "
            print(
                f"appends, {name}: p50 {cuts[499] * 1e3:.2f}"
                f" p99 {cuts[989] * 1e3:.2f} p99.9 {cuts[998] * 1e3:.2f} ms, {rate:.0f}/s"
            )


def fill(store: EvidenceStore, entries: int) -> None:
    """A log as a million events would have left it, without the events."""
    rows, tree = log_rows(store), CompactRange()
    for start in range(0, entries, STEP):
        leaves = [seq.to_bytes(32, "big") for seq in range(start, start + STEP)]
        nodes = [{"log": "evidence", **node._asdict()} for node in tree.extend(leaves)]
        with store.changing() as changing:
            batch = Batch([uuid7() for _ in leaves], leaves, 0, "")
            rows.insert(changing, EVIDENCE, start, batch)
            changing.execute(insert(tree_nodes), nodes)
    with store.changing() as changing:
        add_mark(changing, EVIDENCE)
        mark, _ = rows.mark(changing, EVIDENCE)
        set_mark(changing, EVIDENCE, mark, replace(mark, size=entries))


def proofs(store: EvidenceStore, size: int) -> None:
    ledger = Ledger(store, KEYRING)
    for name, call in (("inclusion", ledger.inclusion), ("consistency", ledger.consistency)):
        wall, cpu = [], time.thread_time()
        for i in range(200):
            started = time.perf_counter()
            path = call("evidence", 1 + i * (size // 201), size)
            wall.append(time.perf_counter() - started)
            assert len(path) <= 22
        cpu = (time.thread_time() - cpu) / 200
        print(f"{name}: median {statistics.median(wall) * 1e3:.2f} ms, CPU {cpu * 1e3:.2f} ms")
    cpu = time.thread_time()
    ledger.inclusions("evidence", range(5000), size)
    print(f"in a row: {(time.thread_time() - cpu) / 5000 * 1e6:.0f} us CPU an entry")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--entries", type=int, default=1_000_000)
    options.add_argument("--events", type=int, default=20_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sequencing_cost(f"sqlite:///{folder}/cost.db", chosen.events)
        appends(folder, chosen.events)
        with EvidenceStore.open(f"sqlite:///{folder}/proofs.db") as store:
            fill(store, chosen.entries)
            append(store, 100)
            started = time.perf_counter()
            sequencer(store).run(is_last=True)
            print(f"first turn: {(time.perf_counter() - started) * 1e3:.1f} ms")
            proofs(store, chosen.entries + 100)


if __name__ == "__main__":
    main()
