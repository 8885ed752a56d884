"""Writes docs/metrics.md from the metrics themselves: python -m scripts.metrics_page."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

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


class Shown(NamedTuple):
    """A metric as the page shows it."""

    name: str
    kind: str
    labels: Sequence[str]
    text: str
    edges: Sequence[float]
    where: str

    @property
    def row(self) -> str:
        """Its line of the table."""
        suffix = "_total" if self.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in self.labels) or "-"
        text = self.text.replace("|", "/")
        return f"| `{self.name}{suffix}` | {self.kind} | {labels} | {self.where} | {text} |"


def page() -> str:
    """The page as it should be."""
    shown = [*_metrics()]
    head = ["| metric | type | labels | of | meaning |", "|---|---|---|---|---|"]
    edges = [
        f"- `{metric.name}`: {', '.join(f'{edge:g}' for edge in metric.edges)}"
        for metric in shown
        if metric.edges
    ]
    rows = [metric.row for metric in shown]
    return "\n".join([HEAD, *head, *rows, "", "## Buckets", "", *edges, ""])


def _metrics() -> Iterator[Shown]:
    """Every metric, and whose it is, in the order in which they are made."""
    both, api, worker = Metrics().registry, CollectorRegistry(), CollectorRegistry()
    QueueMetrics(api)
    JobMetrics(worker)
    for registry, where in ((both, f"{API}, {WORKER}"), (api, API), (worker, WORKER)):
        for collector in registry._collector_to_names:  # noqa: SLF001 - told nowhere else
            edges = getattr(collector, "_upper_bounds", ())[:-1]
            for family in collector.describe():
                owner = family if hasattr(family, "_labelnames") else collector
                labels: Sequence[str] = getattr(owner, "_labelnames")  # noqa: B009
                yield Shown(family.name, family.type, labels, family.documentation, edges, where)


if __name__ == "__main__":
    main()
