"""Metrics of counterfactuals: what came of the searches, and how long they took."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

STATUSES: Final = ("found", "none_found", "not_needed", "failed")
SEARCH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10)


class RecourseMetrics:
    """The families; `begin` makes a model's children at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.searches = Counter(
            "explain_counterfactuals",
            "Searches for changes that lead to another decision, by what came of them",
            ("model", "status"),
            registry=registry,
        )
        self.duration = Histogram(
            "explain_counterfactual_duration_seconds",
            "One search and the checks of what it found",
            ("model",),
            buckets=SEARCH_BUCKETS,
            registry=registry,
        )

    def begin(self, model: str) -> None:
        """Rates exist from the first scrape."""
        self.duration.labels(model)
        for status in STATUSES:
            self.searches.labels(model, status)
