"""Time to export a log and to verify the bundle, against parsing the same file as JSON.

    .venv/bin/python tests/benchmarks/verify.py [--records 100000] [--gzip]

Records with payloads of 3 KB are stored, sequenced and exported by the service's own parts; then
`python service/verify.py` runs as a process of its own. Baseline: Python's json reading every line
of the file, nothing more. The middle of --repeat runs by CPU, each with its peak of memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import machine
from decisions import decision
from ledgers import KEYRING, sequencer
from tables import breast_cancer, instances_of

from service import verify
from service.bundles import Exporter, Selection
from service.evidence import DecisionEvent, EvidenceStore, laid_out
from service.evidence.events import seal
from service.ledger import Ledger

PARSE = """
import gzip, json, sys
opened = gzip.open if sys.argv[1].endswith(".gz") else open
with opened(sys.argv[1], "rb") as file:
    for line in file:
        json.loads(line)
"""
TIMED = """
import os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
])
_, status, usage = os.wait4(process, 0)
assert status == 0
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""
"""A small process of its own: a child counts the memory of whoever started it as its own peak."""

BATCH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--gzip", action="store_true")
    asked = parser.parse_args()
    print(machine.facts())
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / ("bundle.jsonl" + ".gz" * asked.gzip)
        seconds = _exported(Path(folder), bundle, asked.records)
        print(f"{asked.records} records, {bundle.stat().st_size / 1e6:.0f} MB, {machine.load()}")
        print(f"export              {seconds:7.1f} s  {seconds / asked.records * 1e6:6.1f} us each")
        parsed = _median([sys.executable, "-c", PARSE, str(bundle)], asked.repeat)
        verified = _median([sys.executable, str(verify.__file__), str(bundle)], asked.repeat)
        for name, run in (("json, baseline", parsed), ("verify.py", verified)):
            each = run.cpu_seconds / asked.records * 1e6
            print(
                f"{name:<19} {run.seconds:7.1f} s, of CPU {run.cpu_seconds:6.1f} s, "
                f"{each:.1f} us each; {run.peak_kib >> 10} MiB"
            )
        print(f"ratio to baseline   {verified.cpu_seconds / parsed.cpu_seconds:7.2f} in CPU")


def _exported(folder: Path, bundle: Path, records: int) -> float:
    with EvidenceStore.open(f"sqlite:///{folder}/evidence.db") as store:
        rows = (seal(event) for event in _events(records))
        while batch := [row for _, row in zip(range(BATCH), rows, strict=False)]:
            store.insert(batch)
        sequencer(store).run(is_last=True)
        started = time.perf_counter()
        Exporter(store=store, ledger=Ledger(store, KEYRING)).export(bundle, Selection())
        return time.perf_counter() - started


def _events(records: int) -> Iterator[DecisionEvent]:
    """Decisions about real rows, with an explanation's numbers of a real one's length."""
    instances = instances_of(breast_cancer()[0])
    for i in range(records):
        instance = instances[i % len(instances)]
        values = [[value * 0.0123456789 + i] for value in instance.values()]
        answer = {"explanation": {"values": [values], "feature_names": list(instance)}}
        fed = [list(instance.values())] * 4
        pieces = [json.dumps(part).encode() for part in (answer, [instance], fed)]
        payload, parts = laid_out(
            [
                *(b'{"answer":', pieces[0], b',"instances":', pieces[1], b',"fed":', pieces[2]),
                b"}",
            ],
            ["answer", "instances", "fed"],
        )
        yield replace(decision(), payload=payload, parts=parts)


class Run(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_kib: int


def _median(command: Sequence[str], repeat: int) -> Run:
    """The run in the middle by CPU time."""
    runs = sorted((_run(command) for _ in range(repeat)), key=lambda run: run.cpu_seconds)
    return runs[repeat // 2]


def _run(command: Sequence[str]) -> Run:
    done = subprocess.run([sys.executable, "-c", TIMED, *command], capture_output=True, check=True)
    seconds, cpu_seconds, peak = done.stdout.split()
    return Run(float(seconds), float(cpu_seconds), int(peak))


if __name__ == "__main__":
    main()
