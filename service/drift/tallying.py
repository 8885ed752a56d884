"""What a process sees of its requests, kept for a moment and then counted."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np

from explainers.base import FloatArray, Values
from service.drift.baseline import Baseline
from service.drift.bins import Bins, Tally
from service.drift.windows import WindowKey, hour_of

MOST_BYTES = 32 * 1024 * 1024
"""Of arrays that wait to be counted."""


class _Seen(NamedTuple):
    baseline: Baseline
    started_us: int
    X: FloatArray | None
    scores: FloatArray | None
    values: Values | None


@dataclass(slots=True, eq=False)
class Window:
    """What this process counted for one key. replica: a name that only this count is stored under,
    so that one begun anew, after a step of the clock, replaces nothing.
    """

    tally: Tally
    replica: str
    is_saved: bool = False


@dataclass(slots=True, eq=False)
class Tallies:
    """Everything one process has counted in this hour, and in others what is not stored yet. `see`
    is for any thread; the others are for one at a time.
    """

    on_dropped: Callable[[int], None]
    most_bytes: int = MOST_BYTES
    clock: Callable[[], float] = time.time
    _waiting: list[_Seen] = field(default_factory=list)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)
    _windows: dict[WindowKey, Window] = field(default_factory=dict)

    def see(
        self,
        baseline: Baseline,
        X: FloatArray | None,
        scores: FloatArray | None,
        values: Values | None,
    ) -> None:
        """Keep a batch: N rows as fed and their scores, and the values of M explained ones. They
        are not copied. Cost: two microseconds.
        """
        size = sum(part.nbytes for part in (X, scores, values) if part is not None)
        started_us = hour_of(int(self.clock() * 1e6))
        with self._lock:
            has_room = self._bytes + size <= self.most_bytes
            if has_room:
                self._bytes += size
                self._waiting.append(_Seen(baseline, started_us, X, scores, values))
        if not has_room:
            self.on_dropped(len(X) if X is not None else 0 if values is None else len(values))

    def count(self) -> None:
        """Count what waits, all batches of a version together."""
        with self._lock:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
        groups: dict[WindowKey, list[_Seen]] = {}
        for seen in waiting:
            own = seen.baseline
            key = WindowKey(own.model, own.version, seen.started_us, own.digest)
            groups.setdefault(key, []).append(seen)
        for key, group in groups.items():
            bins = group[0].baseline.bins
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = Window(bins.empty(), uuid.uuid4().hex)
            window.is_saved = False
            _count(bins, group, window.tally)

    def unsaved(self) -> dict[WindowKey, Window]:
        """What has grown since it was last stored."""
        return {key: window for key, window in self._windows.items() if not window.is_saved}

    def saved(self, windows: Iterable[WindowKey]) -> None:
        """Note that these are stored as they are; hours that are over are let go of."""
        current = hour_of(int(self.clock() * 1e6))
        for key in windows:
            self._windows[key].is_saved = True
        for key, window in list(self._windows.items()):
            if window.is_saved and key.started_us != current:
                del self._windows[key]


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """Where requests of one served version are seen."""

    tallies: Tallies
    baseline: Baseline

    def see(self, X: FloatArray, scores: FloatArray, values: Values | None) -> None:
        """N rows as fed, their scores, and the values of those that were explained."""
        self.tallies.see(self.baseline, X, scores, values)


def _count(bins: Bins, group: Sequence[_Seen], tally: Tally) -> None:
    fed = [(s.X, s.scores) for s in group if s.X is not None and s.scores is not None]
    if fed:
        X, scores = (np.concatenate(parts) for parts in zip(*fed, strict=True))
        bins.count(X, scores, tally)
    values = [s.values for s in group if s.values is not None]
    if values:
        bins.count_values(np.concatenate(values), tally)
