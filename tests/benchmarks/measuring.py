"""How calls in the benchmark's own process are measured: one core, one thread, CPU time."""

import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from processes import ONE_THREAD


def use_one_core() -> None:
    """To be called before a library is imported that starts OpenMP threads."""
    os.environ.update(ONE_THREAD)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")


def row_microseconds(call: Callable[[Any], object], table: Any, *, rows: int, repeat: int) -> float:
    """Median CPU time of a call with so many rows of the table, the next ones each time."""
    starts = itertools.cycle(range(0, len(table) - rows + 1, rows))
    chosen = (table[start : start + rows] for start in starts)
    return 1e6 * _median_seconds(call, itertools.islice(chosen, repeat + 1))


def milliseconds(call: Callable[[], object], *, repeat: int) -> float:
    """Median CPU time of a call."""
    return 1e3 * _median_seconds(lambda _: call(), range(repeat + 1))


def _median_seconds(call: Callable[[Any], object], arguments: Iterable[Any]) -> float:
    """Of all calls but the first."""
    times = []
    for argument in arguments:
        started = time.process_time()
        call(argument)
        times.append(time.process_time() - started)
    return statistics.median(times[1:])
