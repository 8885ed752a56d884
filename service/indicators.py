"""A model's service level indicators, as one process has counted them since its start."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample

from service.metrics import ROLE, Metrics

ENDED_BADLY = frozenset({"failed", "timeout", "rejected", "dead"})
"""Of explanations that were wanted, as in deploy/slos.yml."""

LANES = {
    "inline": ("Explanations in the answer", "0.2", "200 ms"),
    "queued": ("Explanations by a worker", "300.0", "300 s"),
}
"""Of each lane its name, and within what it is to be delivered: the bucket, in words."""


class Indicator(NamedTuple):
    """How much of something was as it should be."""

    says: str
    good: int
    total: int


def indicators_of(metrics: Metrics, model: str) -> list[Indicator]:
    """Those that have counted anything. Cost: a millisecond."""
    found = [_share("Valid requests that were answered", metrics.predictions, model)]
    for lane, (name, bound, words) in LANES.items():
        labels = {"lane": lane, "role": ROLE}
        wanted = _sum(_samples(metrics.wanted, model, "_total", **labels))
        ended = _samples(metrics.explanations, model, "_total", **labels)
        bad = _sum(each for each in ended if each.labels["outcome"] in ENDED_BADLY)
        found.append(Indicator(f"{name} that did not fail", wanted - bad, wanted))
        timed = _sum(_samples(metrics.duration, model, "_count", **labels))
        soon = _sum(_samples(metrics.duration, model, "_bucket", **labels, le=bound))
        found.append(Indicator(f"{name} within {words}", soon, timed))
    found.append(_share("Explanations that add up to the output", metrics.checks, model))
    return [each for each in found if each.total]


def _samples(
    family: Counter | Histogram, model: str, suffix: str, **labels: str
) -> Iterator[Sample]:
    wanted = {"model": model, **labels}.items()
    for metric in family.collect():
        for sample in metric.samples:
            if sample.name == metric.name + suffix and wanted <= sample.labels.items():
                yield sample


def _sum(samples: Iterable[Sample]) -> int:
    return round(sum(sample.value for sample in samples))


def _share(says: str, family: Counter, model: str) -> Indicator:
    """Of all outcomes but `invalid`, which is the client's, the share that is `ok`."""
    samples = list(_samples(family, model, "_total"))
    good = _sum(each for each in samples if each.labels["outcome"] == "ok")
    invalid = _sum(each for each in samples if each.labels["outcome"] == "invalid")
    return Indicator(says, good, _sum(samples) - invalid)
