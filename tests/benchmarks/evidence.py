"""Rows a second into the evidence log at 100 writers: as JSON, encrypted, and into a store that
stores nothing.

    .venv/bin/python tests/benchmarks/evidence.py [--seconds 5] [--writers 100] [--directory DIR]
        [--database-url postgresql+psycopg://...]

Each writer appends an event of a decision with an explanation of 20 columns, waits until it is
durable, and appends the next. The target is 20,000 rows/s, or 20 times what one commit per row
reaches where a synced write takes over 1 ms.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import machine
import numpy as np
import orjson
from targets import Target, verdict

from service.evidence import (
    AppendOutcome,
    DecisionEvent,
    EvidenceLog,
    EvidenceStore,
    HeaderConstants,
    HeaderTemplate,
    laid_out,
)
from service.evidence.sealing import Sealed
from service.evidence.store import Outcome
from service.keystore import Kek, KeyStore
from service.uuid7 import uuid7

COLUMNS = [f"column_{number:02}" for number in range(20)]
LEAST_ROWS_A_SECOND = 20_000
LEAST_TIMES_ONE_BY_ONE = 20
SLOW_DISK_MILLISECONDS = 1.0
ROUNDS = 3


@dataclass(frozen=True)
class Rate:
    """Of one run: rows a second, how long an append took, CPU time of the process a row."""

    rows_a_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    cpu_microseconds: float

    def __str__(self) -> str:
        return (
            f"{self.rows_a_second:>10,.0f} rows/s   append p50 {self.p50_milliseconds:6.2f} ms  "
            f"p99 {self.p99_milliseconds:7.2f} ms   CPU {self.cpu_microseconds:5.1f} us a row"
        )


class NullStore(EvidenceStore):
    """Takes everything and stores nothing: what the log itself costs."""

    def store(self, sealed: Sequence[Sealed]) -> list[Outcome]:
        return [AppendOutcome.STORED] * len(sealed)


def main() -> int:
    options = _options()
    print(machine.facts())
    with tempfile.TemporaryDirectory(prefix="explaind-evidence-", dir=options.directory) as name:
        folder = Path(name)
        disk = machine.Disk.of(folder)
        print(disk)
        event = _event()
        print(f"one event: payload {len(event.payload):,} bytes, {options.writers} writers\n")
        found = _sqlite(folder, event, options)
        if options.database_url is not None:
            found |= _postgresql(folder, event, options)
    return verdict(_targets(found, disk))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--writers", type=int, default=100)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--database-url", help="a database of PostgreSQL's that may be filled")
    return parser.parse_args()


def _sqlite(folder: Path, event: DecisionEvent, options: argparse.Namespace) -> dict[str, Rate]:
    names = iter(f"sqlite:///{folder}/evidence-{number}.db" for number in range(100))
    return _compared("SQLite", lambda: next(names), folder, event, options)


def _postgresql(folder: Path, event: DecisionEvent, options: argparse.Namespace) -> dict[str, Rate]:
    return _compared("PostgreSQL", lambda: options.database_url, folder, event, options)


def _compared(
    backend: str,
    url: Callable[[], str],
    folder: Path,
    event: DecisionEvent,
    options: argparse.Namespace,
) -> dict[str, Rate]:
    """The best of some rounds of each kind, in turn: others use this machine too."""
    runs = {
        "null store": lambda: _measured(url(), folder, event, options, store=NullStore),
        "JSON": lambda: _measured(url(), folder, event, options),
        "encrypted": lambda: _measured(url(), folder, event, options, encrypts=True),
        "one commit a row": lambda: _one_by_one(url(), event, options.seconds / ROUNDS),
    }
    found: dict[str, list[Rate]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            found[name].append(run())
    best = {}
    for name, rates in found.items():
        best[f"{backend}, {name}"] = max(rates, key=lambda rate: rate.rows_a_second)
        print(f"{backend + ', ' + name:<30} {best[f'{backend}, {name}']}")
    return best


def _targets(found: dict[str, Rate], disk: machine.Disk) -> Iterator[Target]:
    for backend in ("SQLite", "PostgreSQL"):
        for name in ("JSON", "encrypted"):
            rate = found.get(f"{backend}, {name}")
            if rate is None:
                continue
            one = found[f"{backend}, one commit a row"].rows_a_second
            is_slow = disk.fdatasync_p50_milliseconds > SLOW_DISK_MILLISECONDS
            bound = LEAST_TIMES_ONE_BY_ONE * one if is_slow else LEAST_ROWS_A_SECOND
            yield Target(f"{backend}, {name}: rows a second", bound, rate.rows_a_second)


@contextmanager
def _keys(folder: Path, *, encrypts: bool) -> Iterator[KeyStore | None]:
    if not encrypts:
        yield None
        return
    with KeyStore.open(f"sqlite:///{folder}/keys-{uuid7()}.db", Kek.random()) as keys:
        yield keys


def _measured(
    url: str,
    folder: Path,
    event: DecisionEvent,
    options: argparse.Namespace,
    *,
    encrypts: bool = False,
    store: type[EvidenceStore] = EvidenceStore,
) -> Rate:
    with _keys(folder, encrypts=encrypts) as keys:
        if keys is not None:
            _forget_keys(url)
        return asyncio.run(_appended(url, keys, store, event, options))


def _forget_keys(url: str) -> None:
    """A database that was filled before belongs to the key store of then."""
    from sqlalchemy import create_engine, text

    EvidenceStore.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM meta WHERE name = 'key_store'"))
    engine.dispose()


async def _appended(
    url: str,
    keys: KeyStore | None,
    store: type[EvidenceStore],
    event: DecisionEvent,
    options: argparse.Namespace,
) -> Rate:
    log = await EvidenceLog.open(url, keys=keys)
    if store is not EvidenceStore:
        log._writer._insert = store.store.__get__(log._store)
    taken: list[float] = []
    until = time.perf_counter() + options.seconds / ROUNDS

    async def write() -> None:
        while (started := time.perf_counter()) < until:
            await log.append(_next(event))
            taken.append(time.perf_counter() - started)

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(write() for _ in range(options.writers)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    await log.close()
    return _rate(taken, seconds, cpu)


def _one_by_one(url: str, event: DecisionEvent, budget_seconds: float) -> Rate:
    taken: list[float] = []
    with closing(EvidenceStore.open(url)) as store:
        cpu, started = time.process_time(), time.perf_counter()
        while (before := time.perf_counter()) < started + budget_seconds:
            store.append(_next(event))
            taken.append(time.perf_counter() - before)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return _rate(taken, seconds, cpu)


def _rate(taken: Sequence[float], seconds: float, cpu: float) -> Rate:
    p50, p99 = np.percentile(taken, [50, 99])
    return Rate(len(taken) / seconds, 1e3 * p50, 1e3 * p99, 1e6 * cpu / len(taken))


def _next(event: DecisionEvent) -> DecisionEvent:
    return replace(event, request_id=uuid7(), event_id=uuid7())


def _event() -> DecisionEvent:
    draw = random.Random(4)
    row = {name: round(100 * draw.random(), 1) for name in COLUMNS}
    explanation = {
        "status": "complete",
        "values": [[[draw.gauss(0, 1)] for _ in COLUMNS]],
        "feature_names": COLUMNS,
        "top": [[{"feature": n, "value": row[n], "contribution": 0.1} for n in COLUMNS[:5]]],
        "caveat": "Attributions describe this model's behaviour; they are not causes.",
    }
    names = ("answer", "instances", "fed")
    values = ({"explanation": explanation}, [row], [[*row.values()]])
    pieces: list[bytes] = []
    for name, value in zip(names, values, strict=True):
        pieces += (b'%s"%s":' % (b"," if pieces else b"{", name.encode()), orjson.dumps(value))
    payload, parts = laid_out([*pieces, b"}"], names)
    now = datetime.now(UTC)
    return DecisionEvent(
        template=HeaderTemplate.of(_constants(), retention=timedelta(days=183)),
        request_id="benchmark",
        received_at=now,
        completed_at=now,
        status="complete",
        lane="inline",
        payload=payload,
        parts=parts,
    )


def _constants() -> HeaderConstants:
    digest = "sha256:" + "0" * 64
    return HeaderConstants(
        service_version="0.1.0",
        git_revision=None,
        policy_version=None,
        retention_class="default",
        model="benchmark",
        version=1,
        model_digest=digest,
        artifact_digest=digest,
        artifact_format="ubj",
        schema_digest=digest,
        feature_names_digest=digest,
        category_maps_digest=None,
        trees_used=100,
        library_versions={"xgboost": "3.2.0"},
        method="tree_interventional",
        engine="table",
        config_digest=digest,
        background_digest=digest,
        output_space="log_odds",
        link="logit",
        exact=True,
    )


if __name__ == "__main__":
    sys.exit(main())
