"""`explaind drift`."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    AsJson,
    DatabaseUrl,
    DataDir,
    RegistryDir,
    print_json,
    print_text,
    utc,
)

if TYPE_CHECKING:
    from service.drift.baseline import Baseline
    from service.drift.report import Period, Report
    from service.settings import Settings

Since = Annotated[
    datetime | None,
    typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC, whole hours."),
]
Until = Annotated[
    datetime | None,
    typer.Option("--to", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Not included."),
]


def drift(
    model: Annotated[str | None, typer.Argument(help="Default: the only one registered.")] = None,
    since: Since = None,
    until: Until = None,
    against: Annotated[
        str, typer.Option(help="`baseline`, or another window: FROM/TO.")
    ] = "baseline",
    version: Annotated[int | None, typer.Option(help="Default: the one that serves.")] = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was asked in a time with the baseline, or with another time, by column.

    Exit codes: 0 no drift, or too few rows to say; 1 drift.
    """
    from service.drift.report import Period
    from service.errors import CheckFailedError
    from service.settings import Settings

    settings = Settings.load(data_dir=data_dir, registry=registry, database_url=database_url)
    baseline = _baseline(settings, model, version)
    now = datetime.now(UTC)
    period = _period(settings, utc(since), utc(until), now)
    other = None if against == "baseline" else Period(*_moments(against))
    report = _compared(settings, baseline, period, other)
    if as_json:
        print_json(report.document())
    else:
        print_text("\n".join(report.lines()))
    if report.comparison.is_alarm:
        raise CheckFailedError(f"{baseline.model}/{baseline.version} has drifted")


def _baseline(settings: "Settings", model: str | None, version: int | None) -> "Baseline":
    from service.drift.baseline import Baseline
    from service.errors import UnknownError, UsageError
    from service.registry.layout import Layout

    layout = Layout(settings.registry)
    names = layout.names()
    if model is None and len(names) != 1:
        raise UsageError(f"name one of the models: {', '.join(names) or 'none is registered'}")
    name = model or names[0]
    chosen = version or layout.serving(name)
    if chosen is None:
        raise UnknownError(f"no model {name!r} is registered in {layout.root}")
    return Baseline.read(layout, name, chosen)


def _period(
    settings: "Settings", since: datetime | None, until: datetime | None, now: datetime
) -> "Period":
    from service.drift.report import Period
    from service.drift.windows import look_since
    from service.errors import UsageError

    end = until or now
    period = Period(since or look_since(end, settings.drift_window_hours), end)
    if period.since >= period.until:
        raise UsageError("--from must be before --to")
    return period


def _moments(against: str) -> tuple[datetime, datetime]:
    from service.errors import UsageError

    try:
        first, second = map(datetime.fromisoformat, against.split("/"))
    except ValueError:
        raise UsageError(f"--against {against!r} is neither `baseline` nor FROM/TO") from None
    first, second = (
        moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        for moment in (first, second)
    )
    if first >= second:
        raise UsageError("--against must be FROM/TO, FROM before TO")
    return first, second


def _compared(
    settings: "Settings", baseline: "Baseline", period: "Period", against: "Period | None"
) -> "Report":
    from service.drift.comparing import Limits, compare
    from service.drift.report import Report
    from service.drift.windows import summed
    from service.storing import evidence_store

    limits = Limits(
        false_alarm_rate=settings.drift_false_alarm_rate, least_rows=settings.drift_min_rows
    )
    if against is not None:
        limits = replace(limits, least_before=settings.drift_min_rows)
    with evidence_store(settings) as store:
        after = summed(store, baseline, period.since, period.until)
        before = (
            baseline.reference
            if against is None
            else summed(store, baseline, against.since, against.until)
        )
    is_baseline = against is None
    comparison = compare(
        baseline.bins, baseline.names, before, after, limits, is_baseline=is_baseline
    )
    return Report(baseline, comparison, period, against)
