"""Metrics of labelled predictions and of triggers to retrain, the same on every replica."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

OF_VERSION = ("model", "version")
OF_MEASURE = (*OF_VERSION, "measure")
FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "explain_performance_auc": (
        "ROC AUC of the window's labelled predictions; of several classes the mean of all",
        OF_VERSION,
    ),
    "explain_performance_rmse": ("Root mean squared error, likewise", OF_VERSION),
    "explain_performance_mae": ("Mean absolute error, likewise", OF_VERSION),
    "explain_performance_brier": ("Brier score, likewise", OF_VERSION),
    "explain_calibration_error": (
        "Expected calibration error over ten bins, likewise",
        OF_VERSION,
    ),
    "explain_performance_standard_error": ("Standard error of a measure", OF_MEASURE),
    "explain_performance_reference": (
        "The measure in the version's first complete window",
        OF_MEASURE,
    ),
    "explain_performance_rows": ("Labelled instances in the window", OF_VERSION),
    "explain_performance_last_run_timestamp_seconds": ("When labels were last looked at", ()),
    "explain_retrain_needed": (
        "1 while a trigger to retrain of that cause stands that nobody dismissed",
        ("model", "cause"),
    ),
    "explain_retrain_calls_waiting": ("Webhook calls not yet taken by the receiver", ()),
}


class Number(NamedTuple):
    """One number of a gauge, with its label values."""

    gauge: str
    labels: tuple[str, ...]
    value: float


class PerformanceMetrics(Collector):
    """Replaced as a whole by each look. Every replica exports the same: take the maximum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._numbers: Sequence[Number] = ()
        registry.register(self)

    def show(self, numbers: Sequence[Number]) -> None:
        """Export these, and no others."""
        self._numbers = numbers

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families without their numbers."""
        return [*_families().values()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families."""
        families = _families()
        for gauge, labels, value in self._numbers:
            families[gauge].add_metric(labels, value)
        return [*families.values()]


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(name, text, labels=labels)
        for name, (text, labels) in FAMILIES.items()
    }
