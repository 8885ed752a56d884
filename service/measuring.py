"""The look at labels of a running service: every few minutes it counts what labels say, and raises
or closes triggers to retrain.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

from service.drift.episodes import facts_of, is_over
from service.drifting import DriftWatch
from service.errors import CommandError
from service.evidence import EvidenceError, EvidenceLog, EvidenceStore
from service.logs import log, place_of
from service.performance import windows
from service.performance.known import measured_version
from service.performance.measures import Change, change, figures
from service.performance.tally import ROWS, Shape, Tally
from service.performance.windows import Measured
from service.performance_metrics import Number, PerformanceMetrics
from service.registry.layout import Layout
from service.retraining import telling, triggers
from service.retraining.triggers import CAUSES, Cause, Reason, standing_of
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
    _missing: set[Version] = field(default_factory=set)
    _is_over: Event = field(default_factory=Event)

    async def run(self) -> None:
        """Until cancelled; what fails is tried again at the next look."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self.webhook is not None:
                    tasks.create_task(self._telling(self.webhook))
                tasks.create_task(self._looking())
        finally:
            self._is_over.set()

    async def _telling(self, webhook: telling.Webhook) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self._guarded(lambda: webhook.tell(self._store))

    async def _looking(self) -> None:
        await asyncio.sleep(FIRST_LOOK_SECONDS)
        while True:
            await self._guarded(self.look)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Judge drift, count, judge labels and export. For a thread: counting may take a minute.

        Raises StoreUnavailableError.
        """
        now = self.clock()
        since = self._since(now)
        with self._apart("drift"):
            self._judge_drift(now)
        with self._apart("superseded"):
            self._close_superseded(now)
        uncounted = self._count(since, now)
        windows.forget(self.evidence.store, before=now - KEPT_WINDOWS * self._window)
        numbers = self._measured(since, now, uncounted)
        self.metrics.show([*numbers, *self._retraining()])

    @contextmanager
    def _apart(self, *what: object) -> Iterator[None]:
        """What fails here does not stop the rest of a look; an absent store does."""
        try:
            yield
        except EvidenceError:
            raise
        except Exception as error:  # noqa: BLE001 - one version would stop those of all others
            log.error("performance_failed", what=what, place=place_of(error))

    async def _guarded(self, work: Callable[[], object]) -> None:
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

    def _count(self, since: datetime, now: datetime) -> set[Version]:
        """Versions with hours of which nothing is counted yet."""
        pace = _Pace(self._is_over, time.monotonic() + SECONDS_A_LOOK)
        hours = windows.stale_hours(self._store, self._known, since=since, now=now)
        uncounted: set[Version] = set()
        for stale in hours:
            version = stale.hour[:2]
            is_counted = stale.is_counted
            with self._apart(*version):
                if pace.has_time:
                    is_counted |= windows.recount(self._store, stale, rest=pace.rest)
            if not is_counted:
                uncounted.add(version)
        return uncounted

    def _known(self, version: Version) -> Measured | None:
        """None for a version whose files are gone: its labels cannot be read."""
        layout = Layout(self.settings.registry)
        try:
            known = measured_version(layout, *version)
        except CommandError as error:
            if version not in self._missing:
                log.warning("performance_without_version", version=version, reason=str(error))
            self._missing.add(version)
            return None
        self._missing.discard(version)
        return known

    def _measured(self, since: datetime, now: datetime, uncounted: set[Version]) -> list[Number]:
        numbers = [Number("explain_performance_last_run_timestamp_seconds", (), time.time())]
        for version in windows.versions(self._store, since=since):
            with self._apart(*version):
                own = self._known(version)
                if own is not None:
                    may_freeze = version not in uncounted
                    numbers += self._measured_of(own, (since, now), may_freeze=may_freeze)
        return numbers

    def _measured_of(
        self, own: Measured, period: tuple[datetime, datetime], *, may_freeze: bool
    ) -> list[Number]:
        labels, shape = (own.model, str(own.version)), own.shape
        summed = windows.summed(self._store, own, since=period[0])
        rows = summed.tally[ROWS]
        numbers = [Number("explain_performance_rows", labels, rows)]
        if rows < self.settings.performance_min_labels:
            return numbers
        numbers += _numbers(labels, shape, summed.tally)
        before = windows.reference(self._store, own)
        if before is None and may_freeze:
            before = self._frozen(own, summed, period)
        if before is not None:
            numbers += _reference_numbers(labels, shape, before)
            found = change(shape, before, summed.tally)
            self._judge((own.model, own.version), found, period[1])
        return numbers

    def _frozen(
        self, own: Measured, summed: windows.Summed, period: tuple[datetime, datetime]
    ) -> Tally | None:
        """The reference that the first complete window becomes."""
        if summed.first_us is None:
            return None
        begins_by = period[0] + BEGINS_WITHIN * self._window
        is_complete = summed.first_us <= begins_by.timestamp() * 1e6
        is_judged = change(own.shape, summed.tally, summed.tally) is not None
        if not (is_complete and is_judged):
            return None
        if windows.keep_reference(self._store, own, summed.tally, period):
            log.info("performance_reference", model=own.model, version=own.version)
        return windows.reference(self._store, own)

    def _judge(self, version: Version, found: Change | None, now: datetime) -> None:
        if found is None or self._serving().get(version[0]) != version[1]:
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
        serving = self._serving()
        told = {one.reason.standing: one.reason.facts for one in triggers.standing(self._store)}
        for version, found in self.drift.compared():
            if serving.get(version[0]) != version[1]:
                continue
            facts = told.get(standing_of(*version, "drift"))
            if found.is_alarm:
                self._raise(Reason(*version, "drift", facts_of(found)), now)
            elif facts is not None and is_over(found, facts):
                self._close(version, "drift", now, "nothing drifts any more")

    def _close_superseded(self, now: datetime) -> None:
        """Of versions that no longer serve."""
        serving = self._serving()
        for one in triggers.standing(self._store):
            version = one.reason.model, one.reason.version
            if serving.get(version[0], version[1]) != version[1]:
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
        standing = [one for one in triggers.standing(self._store) if one.is_needed]
        needed = {(one.reason.model, one.reason.cause) for one in standing}
        found = [
            Number("explain_retrain_needed", (name, cause), float((name, cause) in needed))
            for name in self.models.all
            for cause in CAUSES
        ]
        waiting = 0 if self.webhook is None else telling.waiting(self._store, self.clock())
        return [*found, Number("explain_retrain_calls_waiting", (), waiting)]

    def _serving(self) -> dict[str, int]:
        """As the registry says: replicas that have not followed it yet agree all the same. Without
        models whose pointer cannot be read.
        """
        layout, found = Layout(self.settings.registry), {}
        for name in self.models.all:
            with suppress(CommandError):
                version = layout.serving(name)
                if version is not None:
                    found[name] = version
        return found


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
