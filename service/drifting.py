"""The look at drift of a running service: once a minute, at the windows of all replicas."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from service.drift import windows
from service.drift.baseline import Baseline
from service.drift.comparing import Comparison, Limits, compare
from service.drift_metrics import DriftMetrics, Measured, ModelDrift
from service.evidence import EvidenceError, EvidenceLog, EvidenceStore
from service.logs import log, place_of
from service.serving import ServedModels
from service.settings import Settings

LOOK_SECONDS = 60.0
FIRST_LOOK_SECONDS = 5.0
LOOKS_A_TIDY = 60
SOON = timedelta(hours=2)
"""Windows of a replica whose clock is ahead."""


@dataclass(slots=True, eq=False)
class DriftWatch:
    """Any number of processes may have one: all find the same."""

    evidence: EvidenceLog
    models: ServedModels
    metrics: DriftMetrics
    limits: Limits
    hours: float
    keep: timedelta

    @classmethod
    def of(
        cls, evidence: EvidenceLog, models: ServedModels, metrics: DriftMetrics, settings: Settings
    ) -> Self:
        """As the settings say."""
        return cls(
            *(evidence, models, metrics, limits_of(settings)),
            hours=settings.drift_window_hours,
            keep=timedelta(days=settings.drift_retention_days),
        )

    async def run(self) -> None:
        """Until cancelled; a store that is away is looked at a minute later."""
        looks = 0
        await asyncio.sleep(FIRST_LOOK_SECONDS)
        while True:
            try:
                if looks % LOOKS_A_TIDY == 0:
                    await asyncio.to_thread(self._tidy)
                await self.look()
            except EvidenceError as error:
                log.warning("drift_waits_for_store", reason=str(error))
            except Exception as error:  # noqa: BLE001 - without it the gauges would stand still
                log.error("drift_failed", place=place_of(error))
            looks += 1
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Read the windows and export what they say. Raises StoreUnavailableError."""
        found = await asyncio.to_thread(self.compared)
        self.metrics.show({name: exported(one) for (name, _), one in found})

    def compared(self) -> list[tuple[tuple[str, int], Comparison]]:
        """Each served model and version with what its windows say. Raises StoreUnavailableError."""
        taps = [served.tap for served in self.models.all.values()]
        baselines = [tap.baseline for tap in taps if tap is not None]
        return [((own.model, own.version), self._compared(own)) for own in baselines]

    def _compared(self, baseline: Baseline) -> Comparison:
        return compared_now(self.evidence.store, baseline, self.limits, self.hours)

    def _tidy(self) -> None:
        windows.forget(self.evidence.store, before=datetime.now(UTC) - self.keep)


def compared_now(
    store: EvidenceStore, baseline: Baseline, limits: Limits, hours: float
) -> Comparison:
    """A version's last hours with its baseline. Raises StoreUnavailableError."""
    now = datetime.now(UTC)
    since = windows.look_since(now, hours)
    tally = windows.summed(store, baseline, since, now + SOON)
    before = baseline.reference
    return compare(baseline.bins, baseline.names, before, tally, limits, is_baseline=True)


def limits_of(settings: Settings) -> Limits:
    """When there is drift, as the settings say."""
    return Limits(
        false_alarm_rate=settings.drift_false_alarm_rate, least_rows=settings.drift_min_rows
    )


def exported(comparison: Comparison) -> ModelDrift:
    """A comparison as numbers of gauges. Of a kind without enough rows there are none."""
    measured: list[Measured] = []
    for one in comparison.findings:
        own = (one.kind, one.feature)
        measured += [
            Measured("explain_drift_psi", *own, one.psi),
            Measured("explain_drift_ks_statistic", *own, one.ks),
            Measured("explain_drift_alarm", *own, float(one.is_alarm)),
        ]
        if one.kind == "feature":
            measured += [
                Measured("explain_drift_out_of_range_ratio", *own, one.out_of_range),
                Measured("explain_drift_unseen_ratio", *own, one.unseen),
            ]
    for output, value in comparison.ndcg.items():
        is_lost = value < comparison.limits.ndcg_alarm
        measured += [
            Measured("explain_drift_ndcg", "attribution", output, value),
            Measured("explain_drift_alarm", "order", output, float(is_lost)),
        ]
    rows = {"feature": comparison.rows[1], "attribution": comparison.explained[1]}
    return ModelDrift(time.time(), rows, measured)
