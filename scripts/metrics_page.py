"""Writes docs/metrics.md from the metrics themselves: python -m scripts.metrics_page."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from service.metrics import Metrics
from service.queue_metrics import JobMetrics, QueueMetrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

What `GET /metrics` of the API shows (where keys are used, one with the scope `metrics` reads it),
and a worker at its `--metrics-port`. Without `EXPLAIND_REDIS_URL` the API's page includes that of
its own worker. Every process counts what it did itself: sum counters over processes; gauges of
the queue are the same everywhere: take the maximum. No label holds a request, a user or a value.

This page is made by `python -m scripts.metrics_page`; a test compares.
"""
API, WORKER = "API", "worker"


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The page as it should be."""
    rows = [
        f"| `{metric._name}{_suffix(metric)}` | {metric._type} | "  # noqa: SLF001 - told nowhere else
        f"{', '.join(f'`{label}`' for label in metric._labelnames) or '-'} | "  # noqa: SLF001
        f"{where} | {metric._documentation.replace('|', '/')} |"  # noqa: SLF001
        for metric, where in _metrics()
    ]
    head = ["| metric | type | labels | of | meaning |", "|---|---|---|---|---|"]
    edges = [
        f"- `{metric._name}`: {', '.join(f'{edge:g}' for edge in metric._upper_bounds[:-1])}"  # noqa: SLF001
        for metric, _ in _metrics()
        if metric._type == "histogram"  # noqa: SLF001
    ]
    return "\n".join([HEAD, *head, *rows, "", "## Buckets", "", *edges, ""])


def _metrics() -> Iterator[tuple[MetricWrapperBase, str]]:
    """Every metric, and whose it is, in the order in which they are made."""
    both, api, worker = Metrics().registry, CollectorRegistry(), CollectorRegistry()
    QueueMetrics(api)
    JobMetrics(worker)
    for registry, where in ((both, f"{API}, {WORKER}"), (api, API), (worker, WORKER)):
        for collector in registry._collector_to_names:  # noqa: SLF001
            assert isinstance(collector, MetricWrapperBase), collector
            yield collector, where


def _suffix(metric: MetricWrapperBase) -> str:
    return "_total" if metric._type == "counter" else ""  # noqa: SLF001


if __name__ == "__main__":
    main()
