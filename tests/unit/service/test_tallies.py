"""Metrics that are added up when they are read: what is read is what the library would say."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.samples import Exemplar

from service.tallies import MOST_AHEAD, TalliedCounter, TalliedHistogram

BOUNDS = (0.5, 1.0, 2.0)


def samples(registry: CollectorRegistry) -> list[Any]:
    found = [sample for family in registry.collect() for sample in family.samples]
    return [(s.name, s.labels, repr(s.value)) for s in found if not s.name.endswith("_created")]


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, math.inf, math.nan])))
def test_what_is_read_is_what_the_library_would_say(amounts: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    for counter, histogram, registry in (
        (TalliedCounter, TalliedHistogram, ours),
        (Counter, Histogram, theirs),
    ):
        counted = counter("counted", "Amounts.", ["kind"], registry=registry).labels("a")
        observed = histogram("seen", "Amounts.", ["kind"], buckets=BOUNDS, registry=registry)
        for amount in amounts:
            counted.inc(amount)
            observed.labels("a").observe(amount)
    assert samples(ours) == samples(theirs)
    assert samples(ours) == samples(theirs), "a second look counts nothing twice"


def test_nothing_is_lost_or_counted_twice_between_threads() -> None:
    registry = CollectorRegistry()
    counted = TalliedCounter("counted", "Amounts.", registry=registry)
    observed = TalliedHistogram("seen", "Amounts.", buckets=BOUNDS, registry=registry)
    times, threads = 3 * MOST_AHEAD, 4

    def count(_: int) -> None:
        for _ in range(times):
            counted.inc()
            observed.observe(0.75)

    def read(_: int) -> None:
        for _ in range(200):
            samples(registry)

    with ThreadPoolExecutor(threads + 1) as pool:
        assert len([*pool.map(count, range(threads)), *pool.map(read, range(1))]) == threads + 1
    total = times * threads
    assert registry.get_sample_value("counted_total") == total
    assert registry.get_sample_value("seen_count") == total
    assert registry.get_sample_value("seen_bucket", {"le": "0.5"}) == 0
    assert registry.get_sample_value("seen_bucket", {"le": "1.0"}) == total


def test_what_nobody_reads_takes_no_memory() -> None:
    counted = TalliedCounter("counted", "Amounts.", registry=None)
    observed = TalliedHistogram("seen", "Amounts.", registry=None)
    for _ in range(3 * MOST_AHEAD):
        counted.inc()
        observed.observe(1.0)
    assert counted._amounts is not None
    assert observed._amounts is not None
    assert max(len(counted._amounts), len(observed._amounts)) < MOST_AHEAD


def test_the_last_exemplar_of_a_bucket_is_shown() -> None:
    registry = CollectorRegistry()
    observed = TalliedHistogram("seen", "Amounts.", buckets=BOUNDS, registry=registry)
    before = time.time()
    for number, amount in enumerate((0.75, 0.8, 1.5)):
        observed.observe(amount)
        observed.observe(amount, {"request_id": f"request-{number}"})
    (family,) = registry.collect()
    shown = {s.labels.get("le"): s.exemplar for s in family.samples if s.exemplar is not None}
    assert {le: (found.labels["request_id"], found.value) for le, found in shown.items()} == {
        "1.0": ("request-1", 0.8),
        "2.0": ("request-2", 1.5),
    }
    assert all(before <= found.timestamp <= time.time() for found in shown.values())
    assert registry.get_sample_value("seen_count") == 6


def test_an_exemplar_that_another_reader_has_shown_is_not_missed() -> None:
    registry = CollectorRegistry()
    observed = TalliedHistogram("seen", "Amounts.", buckets=BOUNDS, registry=registry)
    first = observed._buckets[0]
    show = first.set_exemplar

    def while_another_reads(exemplar: Exemplar) -> None:
        observed.observe(2.5)
        samples(registry)
        show(exemplar)

    first.set_exemplar = while_another_reads
    for amount in (0.25, 0.75):
        observed.observe(amount, {"request_id": f"request-{amount}"})
    (family,) = registry.collect()
    shown = {sample.exemplar.value for sample in family.samples if sample.exemplar is not None}
    assert shown == {0.25, 0.75}


def test_what_the_library_refuses_is_refused() -> None:
    registry = CollectorRegistry()
    counted = TalliedCounter("counted", "Amounts.", ["kind"], registry=registry)
    observed = TalliedHistogram("seen", "Amounts.", ["kind"], registry=registry)
    with pytest.raises(ValueError, match="missing label values"):
        counted.inc()
    with pytest.raises(ValueError, match="missing label values"):
        observed.observe(1.0)
    with pytest.raises(ValueError, match="non-negative"):
        counted.labels("a").inc(-1)
