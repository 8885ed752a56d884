"""Unit tests of the rules in promtool's format: each alert fires when it should, and alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from scripts.monitoring.definitions import (
    Alert,
    Case,
    Clock,
    Definitions,
    Latency,
    Promise,
)
from scripts.monitoring.rules import annotations, labels

STEP = "2m"
"""Between samples: two in the shortest window."""

PER_STEP = 200_000
ALIVE = {'explain_queue_jobs{queue="low", state="dead"}': "0"}
SAFETY = 1.5
HOURS = {"page": "12h", "ticket": "72h"}
"""For how long a promise's counters go on: past the longest window of that severity."""

FIRING = 'count by (alertname, severity) (ALERTS{alertstate="firing"})'


def alert_tests(definitions: Definitions) -> dict[str, Any]:
    """The file for `promtool test rules` on the conditions."""
    alerts = definitions.alerts
    tests = [_of_alert(definitions, alert, case) for alert in alerts for case in alert.cases]
    return {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}


def promise_tests(definitions: Definitions) -> dict[str, Any]:
    """The file on the promises: days of counters, so they are looked at each hour only."""
    tests = [
        _of_promise(definitions, promise, severity)
        for promise in definitions.promises
        for severity in (*HOURS, None)
    ]
    by_alert = {promise.alert: promise for promise in definitions.promises}
    tests += [
        _of_hidden(definitions, promise, by_alert[hider])
        for promise in definitions.promises
        for hider in promise.hidden_by
        if hider in by_alert
    ]
    return {"rule_files": ["rules.yml"], "evaluation_interval": "1h", "tests": tests}


def _of_alert(definitions: Definitions, alert: Alert, case: Case) -> dict[str, Any]:
    minutes = int(Clock().seconds(case.at) / 60)
    alive = {} if case.is_alone else {name: f"{value}x{minutes}" for name, value in ALIVE.items()}
    return _test(definitions, alert, alert.severity, case.at, {**alive, **case.series}, case.fires)


def _of_promise(definitions: Definitions, promise: Promise, severity: str | None) -> dict[str, Any]:
    """Broken a little faster than the slowest pair of that severity allows, or kept as promised."""
    of = severity or "page"
    slowest = min(burn.factor for burn in definitions.burns if burn.severity == of)
    share = min(1.0, slowest * promise.budget * SAFETY) if severity else promise.budget / 2
    series = dict(_series(promise, share, HOURS[of]))
    fires = [{"slo": promise.name}] if severity else []
    return _test(definitions, promise, of, HOURS[of], series, fires) | {"interval": STEP}


def _of_hidden(definitions: Definitions, promise: Promise, hider: Promise) -> dict[str, Any]:
    """Both broken for good: only what hides the other fires."""
    lasts = HOURS["page"]
    series = dict(_series(promise, 1.0, lasts)) | dict(_series(hider, 1.0, lasts))
    fires = [{"slo": hider.name}]
    test = _test(definitions, hider, "page", lasts, series, fires)
    return test | {"interval": STEP, "name": f"{hider.alert} hides {promise.alert}"}


def _series(promise: Promise, share: float, lasts: str) -> Iterable[tuple[str, str]]:
    """Counters of which that share goes wrong."""
    steps = int(Clock().seconds(lasts) / Clock().seconds(STEP))
    bad = round(PER_STEP * share)
    yield from ((name, f"{value}x{steps}") for name, value in ALIVE.items())

    def counter(metric: str, extra: Mapping[str, str], each: int) -> tuple[str, str]:
        return _written(metric, {**promise.example, **extra}), f"0+{each}x{steps}"

    indicator = promise.indicator
    if isinstance(indicator, Latency):
        edge = {"le": str(float(indicator.within_seconds))}
        yield counter(f"{indicator.metric}_count", {}, PER_STEP)
        yield counter(f"{indicator.metric}_bucket", edge, PER_STEP - bad)
        return
    numerator, denominator = (one.partition("{")[0] for one in (indicator.bad, indicator.total))
    yield counter(numerator, promise.bad_example, bad)
    of_good = PER_STEP - bad if numerator == denominator else PER_STEP
    yield counter(denominator, promise.good_example, of_good)


def _written(metric: str, found: Mapping[str, str]) -> str:
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in found.items()) + "}"


def _test(
    definitions: Definitions,
    of: Promise | Alert,
    severity: str,
    at: str,
    series: Mapping[str, str],
    fires: Iterable[Mapping[str, str]],
) -> dict[str, Any]:
    name = of.alert if isinstance(of, Promise) else of.name
    carried = labels(definitions, severity)
    expected = [
        {"exp_labels": carried | dict(own), "exp_annotations": annotations(definitions, of)}
        for own in fires
    ]
    sample = {"labels": f'{{alertname="{name}", severity="{severity}"}}', "value": len(expected)}
    return {
        "name": f"{name} {'fires as a ' + severity if expected else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": expected}],
        "promql_expr_test": [
            {"expr": FIRING, "eval_time": at, "exp_samples": [sample] if expected else []}
        ],
    }
