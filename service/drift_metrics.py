"""Metrics of drift: what the last look at the windows found, the same on every replica."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

MOST_FEATURES = 200
"""Of one model and kind; the largest number of the others is `_other`'s."""

OTHER = "_other"
OF_FEATURE = ("model", "kind", "feature")
TEXTS = {
    "explain_drift_psi": "Population stability index against the registered baseline",
    "explain_drift_ks_statistic": "Largest distance of the distributions over the baseline's bins",
    "explain_drift_ndcg": "Agreement of the order of attributions with the baseline's",
    "explain_drift_alarm": "1 where a shift is both large and beyond chance",
    "explain_drift_out_of_range_ratio": "Share of rows outside what was seen at registration",
    "explain_drift_unseen_ratio": "Share of rows with a level the model does not know",
}
"""Gauges by model, kind and feature."""


class Measured(NamedTuple):
    """One number of a gauge."""

    gauge: str
    kind: str
    feature: str
    value: float


class ModelDrift(NamedTuple):
    """What is exported of one model. rows: in the windows, by kind."""

    at: float
    rows: Mapping[str, int]
    measured: Sequence[Measured]


class DriftMetrics(Collector):
    """Replaced as a whole by each look, so that no scrape sees half of one.

    Every replica exports the same numbers: take the maximum, never the sum.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: Mapping[str, ModelDrift] = {}
        self._dropped = Counter(
            "explain_drift_dropped_rows",
            "Rows that no drift window counts, because the buffer was full",
            registry=registry,
        )
        registry.register(self)

    @property
    def on_dropped(self) -> Callable[[int], None]:
        """Count rows that no window will have."""
        return self._dropped.inc

    def show(self, models: Mapping[str, ModelDrift]) -> None:
        """Export these models, and no others."""
        self._models = {
            name: found._replace(measured=_capped(found.measured)) for name, found in models.items()
        }

    def of(self, model: str) -> ModelDrift | None:
        """What is exported of a model."""
        return self._models.get(model)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families without their numbers."""
        return [*_families().values()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families."""
        families = _families()
        for model, found in self._models.items():
            families["explain_drift_last_run_timestamp_seconds"].add_metric([model], found.at)
            for kind, rows in found.rows.items():
                families["explain_drift_rows"].add_metric([model, kind], rows)
            for gauge, kind, feature, value in found.measured:
                families[gauge].add_metric([model, kind, feature], value)
        return [*families.values()]


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        **{name: GaugeMetricFamily(name, text, labels=OF_FEATURE) for name, text in TEXTS.items()},
        "explain_drift_rows": GaugeMetricFamily(
            "explain_drift_rows", "Rows in the windows looked at", labels=("model", "kind")
        ),
        "explain_drift_last_run_timestamp_seconds": GaugeMetricFamily(
            "explain_drift_last_run_timestamp_seconds",
            "When the windows were last looked at",
            labels=("model",),
        ),
    }


def _capped(measured: Sequence[Measured]) -> Sequence[Measured]:
    """The first features of each gauge and kind, and the largest of the others as one."""
    kept: list[Measured] = []
    seen: dict[tuple[str, str], int] = {}
    others: dict[tuple[str, str], Measured] = {}
    for one in measured:
        family = (one.gauge, one.kind)
        seen[family] = seen.get(family, 0) + 1
        if seen[family] <= MOST_FEATURES:
            kept.append(one)
        elif family not in others or one.value > others[family].value:
            others[family] = one._replace(feature=OTHER)
    return [*kept, *others.values()]
