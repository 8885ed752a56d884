"""The look at labels of a running service: every few minutes it counts what labels say, and raises
or closes triggers to retrain.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

from service.drift.comparing import Comparison
from service.drifting import DriftWatch
from service.errors import ServiceError
from service.evidence import EvidenceError, EvidenceLog, EvidenceStore
from service.logs import log, place_of
from service.performance import windows
from service.performance.measures import Change, change, figures
from service.performance.tally import ROWS, Shape, Tally
from service.performance_metrics import Number, PerformanceMetrics
from service.registry.described import describe_version
from service.registry.errors import DamagedVersionError
from service.registry.layout import Layout
from service.retraining import telling, triggers
from service.retraining.triggers import Cause, Reason, standing_of
from service.serving import ServedModels
from service.settings import Settings

LOOK_SECONDS = 120.0
FIRST_LOOK_SECONDS = 7.0
TELL_SECONDS = 5.0
"""Between two looks for webhook calls that are due."""

MOST_SHARE = 0.1
"""Of a thread's time, spent in opening what was labelled."""

SECONDS_A_LOOK = 60.0
"""After which the rest of the stale hours waits for the next look."""

KEPT_WINDOWS = 2
BEGINS_WITHIN = 0.1
"""A window is complete whose first label is about its first tenth."""

PSI_RECOVERED = 0.8
"""Drift is over when no index beyond chance is above this part of the alarm's."""

Version = tuple[str, int]


@dataclass(slots=True, eq=False)
class PerformanceWatch:
    """Any number of processes may have one: what they count and raise is in the database once."""

    evidence: EvidenceLog
    models: ServedModels
    metrics: PerformanceMetrics
    drift: DriftWatch
    settings: Settings
    webhook: telling.Webhook | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _shapes: dict[Version, Shape | None] = field(default_factory=dict)
    _is_over: Event = field(default_factory=Event)

    async def run(self) -> None:
        """Until cancelled; what fails is tried again at the next look."""
        next_look = time.monotonic() + FIRST_LOOK_SECONDS
        try:
            while True:
                await asyncio.sleep(TELL_SECONDS)
                if self.webhook is not None:
                    await self._guarded(self._tell)
                if time.monotonic() >= next_look:
                    await self._guarded(self.look)
                    next_look = time.monotonic() + LOOK_SECONDS
        finally:
            self._is_over.set()

    def look(self) -> None:
        """Count, judge and export. For a thread. Raises StoreUnavailableError."""
        now = self.clock()
        since = self._since(now)
        is_complete = self._count(since, now)
        windows.forget(self.evidence.store, before=now - KEPT_WINDOWS * self._window)
        numbers = self._measured(since, now, may_freeze=is_complete)
        self._judge_drift(now)
        self._close_superseded(now)
        self.metrics.show([*numbers, *self._retraining()])

    async def _guarded(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except EvidenceError as error:
            log.warning("performance_waits_for_store", reason=str(error))
        except Exception as error:  # noqa: BLE001 - without it the gauges would stand still
            log.error("performance_failed", place=place_of(error))

    @property
    def _store(self) -> EvidenceStore:
        return self.evidence.store

    @property
    def _window(self) -> timedelta:
        return timedelta(days=self.settings.performance_window_days)

    def _since(self, now: datetime) -> datetime:
        return (now - self._window).replace(minute=0, second=0, microsecond=0)

    def _tell(self) -> None:
        assert self.webhook is not None
        self.webhook.tell(self._store)

    def _count(self, since: datetime, now: datetime) -> bool:
        """Whether all there is was counted, or left for the next look."""
        pace = _Pace(self._is_over, time.monotonic() + SECONDS_A_LOOK)
        for hour in windows.stale_hours(self._store, since=since, now=now):
            shape = self._shape(hour[:2])
            if shape is None:
                continue
            windows.recount(self._store, hour, shape, rest=pace.rest)
            if not pace.has_time:
                return False
        return True

    def _shape(self, version: Version) -> Shape | None:
        """None for a version whose manifest is gone: its labels cannot be read."""
        if version not in self._shapes:
            try:
                known = describe_version(Layout(self.settings.registry), *version)
                self._shapes[version] = Shape.of(known.manifest)
            except (DamagedVersionError, ServiceError) as error:
                log.warning("performance_without_version", version=version, reason=str(error))
                self._shapes[version] = None
        return self._shapes[version]

    def _measured(self, since: datetime, now: datetime, *, may_freeze: bool) -> list[Number]:
        numbers = [Number("explain_performance_last_run_timestamp_seconds", (), time.time())]
        for version in windows.versions(self._store, since=since):
            shape = self._shape(version)
            if shape is None:
                continue
            labels = (version[0], str(version[1]))
            summed = windows.summed(self._store, version, shape, since=since)
            rows = summed.tally[ROWS]
            numbers.append(Number("explain_performance_rows", labels, rows))
            if rows < self.settings.performance_min_labels:
                continue
            numbers += _numbers(labels, shape, summed.tally)
            before = windows.reference(self._store, version)
            if before is None and may_freeze:
                before = self._frozen(version, shape, summed, (since, now))
            if before is not None:
                numbers += _reference_numbers(labels, shape, before)
                self._judge(version, change(shape, before, summed.tally), now)
        return numbers

    def _frozen(
        self,
        version: Version,
        shape: Shape,
        summed: windows.Summed,
        period: tuple[datetime, datetime],
    ) -> Tally | None:
        """The reference that the first complete window becomes."""
        if summed.first_us is None:
            return None
        begins_by = period[0] + BEGINS_WITHIN * self._window
        is_complete = summed.first_us <= begins_by.timestamp() * 1e6
        is_judged = change(shape, summed.tally, summed.tally) is not None
        if not (is_complete and is_judged):
            return None
        if windows.keep_reference(self._store, version, summed.tally, period):
            log.info("performance_reference", model=version[0], version=version[1])
        return windows.reference(self._store, version)

    def _judge(self, version: Version, found: Change | None, now: datetime) -> None:
        if found is None or version not in self._serving():
            return
        facts = {
            "measure": found.measure,
            "before": found.before.value,
            "after": found.after.value,
            "worse": found.worse,
            "standard_error": found.standard_error,
        }
        if found.is_alarm:
            self._raise(Reason(*version, "performance", facts), now)
        elif found.is_over:
            self._close(version, "performance", now, "it is good enough again")

    def _judge_drift(self, now: datetime) -> None:
        for version, found in self.drift.compared():
            if found.is_alarm:
                self._raise(Reason(*version, "drift", _facts_of(found)), now)
            elif _is_over(found):
                self._close(version, "drift", now, "nothing drifts any more")

    def _close_superseded(self, now: datetime) -> None:
        """Of versions that no longer serve."""
        serving = self._serving()
        for one in triggers.standing(self._store):
            version = one.reason.model, one.reason.version
            if version not in serving and one.reason.model in self.models.all:
                self._close(version, one.reason.cause, now, "another version serves")

    def _raise(self, reason: Reason, now: datetime) -> None:
        trigger_id = triggers.raise_once(self._store, reason, now)
        if trigger_id is not None:
            own = {"model": reason.model, "version": reason.version, "cause": reason.cause}
            log.warning("retrain_needed", trigger=trigger_id, **own, **reason.facts)

    def _close(self, version: Version, cause: Cause, now: datetime, note: str) -> None:
        if triggers.close(self._store, standing_of(*version, cause), now, note):
            named = {"model": version[0], "version": version[1], "cause": cause}
            log.info("retrain_closed", **named, reason=note)

    def _retraining(self) -> list[Number]:
        needed = {one.reason.model for one in triggers.standing(self._store) if one.is_needed}
        found = [
            Number("explain_retrain_needed", (name,), float(name in needed))
            for name in self.models.all
        ]
        waiting = 0 if self.webhook is None else telling.waiting(self._store)
        return [*found, Number("explain_retrain_calls_waiting", (), waiting)]

    def _serving(self) -> set[Version]:
        return {(name, served.model.manifest.version) for name, served in self.models.all.items()}


@dataclass(slots=True)
class _Pace:
    """Leaves most of the time to others, until the service stops."""

    is_over: Event
    until: float
    since: float = field(default_factory=time.monotonic)

    @property
    def has_time(self) -> bool:
        """There is some left for more hours."""
        return time.monotonic() < self.until and not self.is_over.is_set()

    def rest(self) -> bool:
        """Wait after a page; False when the service stops. A begun hour is counted to its end."""
        busy = time.monotonic() - self.since
        is_over = self.is_over.wait(busy * (1 / MOST_SHARE - 1))
        self.since = time.monotonic()
        return not is_over


def _numbers(labels: tuple[str, str], shape: Shape, tally: Tally) -> list[Number]:
    found = []
    for measure, estimate in figures(shape, tally).items():
        own = f"explain_performance_{measure}"
        name = "explain_calibration_error" if measure == "calibration_error" else own
        found += [
            Number(name, labels, estimate.value),
            Number(
                "explain_performance_standard_error", (*labels, measure), estimate.standard_error
            ),
        ]
    return found


def _reference_numbers(labels: tuple[str, str], shape: Shape, before: Tally) -> list[Number]:
    return [
        Number("explain_performance_reference", (*labels, measure), estimate.value)
        for measure, estimate in figures(shape, before).items()
    ]


def _facts_of(found: Comparison) -> dict[str, object]:
    worst = found.findings[0]
    facts = {"kind": worst.kind, "feature": worst.feature, "psi": worst.psi}
    return {**facts, "psi_expected": worst.psi_expected, "order_lost": found.is_order_lost}


def _is_over(found: Comparison) -> bool:
    if found.is_alarm or not found.has_enough("feature"):
        return False
    most = PSI_RECOVERED * found.limits.psi_alarm
    return all(one.psi < most for one in found.findings if one.is_notice)
