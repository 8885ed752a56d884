"""Series of another process on this one's /metrics page: a worker's, on its API's.

The worker answers each connection to a private socket with a snapshot of its registry. The API
adds it to its own: counters and histograms are summed, of gauges the greater one counts. A worker
that was started again begins at zero; what its forerunner had counted is kept, so no counter ever
goes backwards.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample

TIMEOUT_SECONDS = 0.5
SUMMED = frozenset({"counter", "histogram"})


def snapshot(registry: CollectorRegistry, incarnation: str) -> bytes:
    """Every family, as JSON. incarnation: names this start of the process."""
    families = [
        [
            family.name,
            family.documentation,
            family.type,
            [
                [sample.name, sample.labels, sample.value, _plain(sample.exemplar)]
                for sample in family.samples
            ],
        ]
        for family in registry.collect()
    ]
    return orjson.dumps([incarnation, families])


async def serve_snapshots(
    registry: CollectorRegistry, incarnation: str, socket: Path
) -> asyncio.Server:
    """Answer every connection to this socket with a snapshot."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(snapshot(registry, incarnation))
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer, socket)


class RemoteMetrics:
    """What another process counts, over all its starts."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._incarnation = ""
        self._said: list[list[Any]] = []
        self._before: Mapping[str, Metric] = {}

    async def refresh(self) -> None:
        """Ask it; what it said last counts on while it does not answer. Cost: below 1 ms, so that
        it can be asked often: what it counts after the last time is lost if it is killed.
        """
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    said = await reader.read()
                finally:
                    writer.close()
            incarnation, families = orjson.loads(said)
            if incarnation != self._incarnation:
                summed = {n: family for n, family in self._now().items() if family.type in SUMMED}
                self._before = _joined_all(self._before, summed)
            self._incarnation, self._said = incarnation, families

    @property
    def families(self) -> Mapping[str, Metric]:
        """By name."""
        return _joined_all(self._before, self._now())

    def _now(self) -> dict[str, Metric]:
        return {family.name: family for family in map(_family, self._said)}


class JointRegistry:
    """A registry to be exposed: one's own families, joined with another process's."""

    def __init__(self, own: CollectorRegistry, remote: RemoteMetrics) -> None:
        self._own = own
        self._remote = remote

    def collect(self) -> Iterator[Metric]:
        """Every family once, as the exposition formats want it."""
        own = {family.name: family for family in self._own.collect()}
        yield from _joined_all(own, self._remote.families).values()


def _joined_all(some: Mapping[str, Metric], others: Mapping[str, Metric]) -> dict[str, Metric]:
    joined = dict(some)
    for name, other in others.items():
        joined[name] = _joined(some[name], other) if name in some else other
    return joined


def _joined(one: Metric, other: Metric) -> Metric:
    samples = {_key(sample): sample for sample in one.samples}
    for sample in other.samples:
        mine = samples.get(_key(sample))
        samples[_key(sample)] = sample if mine is None else _both(mine, sample, one.type)
    made = Metric(one.name, one.documentation, one.type, one.unit)
    made.samples = list(samples.values())
    return made


def _both(mine: Sample, other: Sample, kind: str) -> Sample:
    combine = sum if kind in SUMMED else max
    value = combine((mine.value, other.value))
    return mine._replace(value=value, exemplar=_newer(mine.exemplar, other.exemplar))


def _key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    return sample.name, tuple(sorted(sample.labels.items()))


def _newer(one: Exemplar | None, other: Exemplar | None) -> Exemplar | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda exemplar: float(exemplar.timestamp or 0))


def _plain(exemplar: Exemplar | None) -> list[Any] | None:
    if exemplar is None:
        return None
    timestamp = None if exemplar.timestamp is None else float(exemplar.timestamp)
    return [exemplar.labels, exemplar.value, timestamp]


def _family(plain: list[Any]) -> Metric:
    name, documentation, kind, samples = plain
    made = Metric(name, documentation, kind)
    made.samples = [
        Sample(sample, labels, value, None, None if exemplar is None else Exemplar(*exemplar))
        for sample, labels, value, exemplar in samples
    ]
    return made
