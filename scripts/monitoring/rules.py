"""Recording rules, named as Sloth names them, and alerts that read them."""

from collections.abc import Iterable
from typing import Any

from scripts.monitoring.definitions import (
    SEVERITIES,
    Alert,
    Burn,
    Clock,
    Definitions,
    Promise,
)

Rule = dict[str, Any]
PERIOD_DAYS = 30
SHORTEST = "5m"


def record_of(window: str) -> str:
    """The share that went wrong over a window."""
    return f"slo:sli_error:ratio_rate{window}"


class Rules:
    """All groups. clock: how long their windows are."""

    def __init__(self, definitions: Definitions, clock: Clock) -> None:
        self._all = definitions
        self._clock = clock
        self._promises = {promise.alert: promise for promise in definitions.promises}
        self._alerts = {alert.name: alert for alert in definitions.alerts}

    def groups(self) -> list[dict[str, Any]]:
        """One group, whose rules are evaluated in order and at one time: in several, an alert
        would for moments not see what hides it.
        """
        promises = self._all.promises
        recordings = [rule for one in promises for rule in self._recorded(one)]
        burning = [rule for one in promises for rule in self._burning(one)]
        others = [self._other(alert) for alert in self._all.alerts]
        return [{"name": self._all.service, "rules": [*recordings, *burning, *others]}]

    def _recorded(self, promise: Promise) -> Iterable[Rule]:
        return [*self._indicators(promise), *self._budgets(promise)]

    def _labels(self, promise: Promise) -> dict[str, str]:
        service = self._all.service
        return {
            "sloth_id": f"{service}-{promise.name}",
            "sloth_service": service,
            "sloth_slo": promise.name,
        }

    def _indicators(self, promise: Promise) -> Iterable[Rule]:
        labels = self._labels(promise)
        for window in self._all.windows:
            bad, total = promise.indicator.rates(self._clock.window(window))
            yield {
                "record": record_of(window),
                "expr": f"({bad} or 0 * {total})\n/ ({total} > 0)",
                "labels": {**labels, "sloth_window": window},
            }

    def _budgets(self, promise: Promise) -> Iterable[Rule]:
        labels = self._labels(promise)
        series = f'{record_of(SHORTEST)}{{sloth_id="{labels["sloth_id"]}"}}'
        period = self._clock.window(f"{PERIOD_DAYS}d")
        budget = f"{promise.budget:g}"
        expressions = {
            "slo:objective:ratio": f"vector({promise.objective / 100:g})",
            "slo:error_budget:ratio": f"vector({budget})",
            "slo:time_period:days": f"vector({PERIOD_DAYS})",
            "slo:current_burn_rate:ratio": f"sum without (sloth_window) ({series}) / {budget}",
            "slo:period_error_budget_remaining:ratio": (
                f"1 - sum without (sloth_window) (avg_over_time({series}[{period}])) / {budget}"
            ),
        }
        for record, expression in expressions.items():
            yield {"record": record, "expr": expression, "labels": labels}

    def _burning(self, promise: Promise) -> Iterable[Rule]:
        for severity in reversed(SEVERITIES):
            worse = SEVERITIES[SEVERITIES.index(severity) + 1 :]
            condition = f"({self._pairs(promise, severity)})"
            for other in worse:
                condition += f"\nunless on ()\n({self._pairs(promise, other)})"
            condition += self._hidden(promise, severity)
            extra = {"slo": promise.name}
            yield self._rule(promise, severity, condition, extra)

    def _pairs(self, promise: Promise, severity: str) -> str:
        """The condition that the budget burns too fast for that severity."""
        burns = [burn for burn in self._all.burns if burn.severity == severity]
        return "\nor ".join(self._pair(promise, burn) for burn in burns)

    def _pair(self, promise: Promise, burn: Burn) -> str:
        selector = f'{{sloth_id="{self._all.service}-{promise.name}"}}'
        limit = f"{burn.factor:g} * {promise.budget:g}"
        long, short = (
            f"max({record_of(window)}{selector}) > {limit}" for window in (burn.long, burn.short)
        )
        return f"({long} and {short})"

    def _hidden(self, of: Promise | Alert, severity: str) -> str:
        """What silences an alert of that severity: the conditions of others at least as severe."""
        parts = [
            f"\nunless on ()\n({condition})"
            for hider in of.hidden_by
            for condition in self._conditions(hider, severity, of)
        ]
        return "".join(parts)

    def _conditions(self, name: str, severity: str, of: Promise | Alert) -> Iterable[str]:
        as_severe = SEVERITIES[SEVERITIES.index(severity) :]
        if name in self._promises:
            return [self._while_it_lasts(self._promises[name], each, of) for each in as_severe]
        alert = self._alerts[name]
        return [self._clock.expression(alert.expression)] if alert.severity in as_severe else []

    def _while_it_lasts(self, hider: Promise, severity: str, of: Promise | Alert) -> str:
        """The condition of what hides, whose windows remember its fault for hours: what is hidden
        remembers it as long. Only a fault that goes on without the other's is one of its own.
        """
        pairs, lasts = self._pairs(hider, severity), self._now(hider, severity)
        if isinstance(of, Promise):
            own = f"({self._now(of, severity)}\nunless on ()\n{lasts})"
            return f"({pairs})\nunless on ()\n{own}"
        return f"({pairs})\nand on ()\n({lasts})"

    def _now(self, promise: Promise, severity: str) -> str:
        """That the budget burns in the shortest window, as fast as the slowest pair asks."""
        slowest = min(burn.factor for burn in self._all.burns if burn.severity == severity)
        selector = f'{{sloth_id="{self._all.service}-{promise.name}"}}'
        return f"max({record_of(SHORTEST)}{selector}) > {slowest:g} * {promise.budget:g}"

    def _other(self, alert: Alert) -> Rule:
        condition = self._clock.expression(alert.expression)
        if alert.hidden_by:
            condition = f"({condition})" + self._hidden(alert, alert.severity)
        return self._rule(alert, alert.severity, condition, {})

    def _rule(
        self, of: Promise | Alert, severity: str, condition: str, extra: dict[str, str]
    ) -> Rule:
        name = of.alert if isinstance(of, Promise) else of.name
        rule: Rule = {"alert": name, "expr": condition}
        if isinstance(of, Alert) and of.holds_for:
            rule["for"] = self._clock.window(of.holds_for)
        rule["labels"] = labels(self._all, severity) | extra
        rule["annotations"] = annotations(self._all, of)
        return rule


def labels(definitions: Definitions, severity: str) -> dict[str, str]:
    """What every alert carries beside its own."""
    return {"severity": severity, "owner": definitions.owner, "service": definitions.service}


def annotations(definitions: Definitions, of: Promise | Alert) -> dict[str, str]:
    """What a pager shows: without values, which would make one alert many."""
    name = of.alert if isinstance(of, Promise) else of.name
    summary = of.says
    if isinstance(of, Promise):
        summary = f"Not kept: {of.says} Objective {of.objective:g} %."
    return {
        "summary": summary,
        "description": of.advice.means,
        "runbook_url": f"{definitions.runbook}#{name.lower()}",
    }
