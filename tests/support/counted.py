"""What a metric of the service says when it is read."""

from prometheus_client import Counter, Histogram


def total(counter: Counter) -> float:
    """The value of a counter, or of one child of it."""
    return _sample(counter, "_total")


def observed_sum(histogram: Histogram) -> float:
    """The sum of what a histogram observed, or one child of it."""
    return _sample(histogram, "_sum")


def _sample(metric: Counter | Histogram, suffix: str) -> float:
    (value,) = (
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(suffix)
    )
    return value
