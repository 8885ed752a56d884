"""Metric of the reasons that adverse decisions get."""

from prometheus_client import CollectorRegistry, Counter

STATUSES = ("given", "withheld")


class ReasonMetrics:
    """Made at zero for each model, so that a rate exists from the first scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "explain_reasons",
            "Adverse decisions explained, by whether reasons were given or withheld",
            ("model", "status"),
            registry=registry,
        )

    def bind(self, model: str) -> dict[str, Counter]:
        """One model's, by status."""
        return {status: self.decisions.labels(model, status) for status in STATUSES}
